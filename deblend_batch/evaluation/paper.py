"""The published table, recomputed: the per-pair table of Boucaud et al. 2020 and its numbers.

The table (MNRAS 491, 2481; released with github.com/aboucaud/coindeblend) has one row per test pair
with the true fluxes and those of blend2flux, blend2mask2flux and SExtractor. Network fluxes have
the zero point 25.96, SExtractor's 25.67. ``detection`` is what SExtractor found: 0 only the
central, 1 only the companion, 2 both, 3 more than two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.detections.formats.scan import read_table
from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.members import Members, Recovered, flat, members_of_pairs
from deblend_batch.evaluation.metrics import Metrics, flux_error, json_value, magnitude_offset, mean
from deblend_batch.evaluation.scores import BOOTSTRAP_DRAWS, measure_rows

NETWORKS = {"blend2flux": "b2f", "blend2mask2flux": "b2m2f"}
"""Method to the suffix of its columns."""

MEAN = "mean"
"""The mean of the magnitudes of the two networks: what an ensemble would give."""

SEXTRACTOR = "SExtractor"

NETWORK_ZERO_POINT = 25.96
SEXTRACTOR_ZERO_POINT = 25.67

CLOSEST_RADII = 0.5
"""The closest pairs are nearer than this times the sum of the half-light radii."""

_FLAGS_OF_FOUND = ((0, 2), (1, 2))
"""Values of ``detection`` for which the central, the companion counts as found."""

_MEMBER_COLUMNS = ("id", "mag", "rad", "type", "flux", "flux_b2f", "flux_b2m2f", "flux_sex")

_MOST_BYTES = 1 << 28
"""What the table may take in memory: some hundred times the released one."""


@dataclass(frozen=True)
class PaperTable:
    """The released table, as members (two rows a pair: central, companion).

    Parameters
    ----------
    members : Members
        The truth; fluxes have the zero point 25.96.
    recovered : mapping of str to Recovered
        Method to its fluxes, brought to the zero point 25.96: the two networks, the mean of their
        magnitudes, SExtractor.
    found : ndarray of bool, shape (m,)
        Whether SExtractor found that member in an unambiguous detection: the rows of the figures.
    """

    members: Members
    recovered: Mapping[str, Recovered]
    found: NDArray[np.bool_]


@dataclass(frozen=True)
class PaperNumbers:
    """Every number of the published comparison; fractions are of one.

    Parameters
    ----------
    n_pairs : int
        Pairs in the table.
    table : mapping of (str, str) to Metrics
        By (method, member) over the members that SExtractor found.
    pooled : mapping of str to Metrics
        By method over all pairs, both members.
    closest : mapping of str to Metrics
        The same over the closest pairs.
    sum_flux_mape : mapping of str to float
        By method, the relative error of the flux of both members together.
    member_correlation : mapping of str to float
        By method, Pearson's correlation of dmag of the brighter with dmag of the fainter member.
    brighter_flux_mape, fainter_flux_mape : mapping of str to float
        By method, over the brighter and the fainter members of the pairs.
    irregular_flux_mape : mapping of str to float
        By method, over members of type ``irr``.
    network_correlation : float
        Pearson's correlation of dmag of blend2flux with dmag of blend2mask2flux, all members.
    """

    n_pairs: int
    table: Mapping[tuple[str, str], Metrics]
    pooled: Mapping[str, Metrics]
    closest: Mapping[str, Metrics]
    sum_flux_mape: Mapping[str, float]
    member_correlation: Mapping[str, float]
    brighter_flux_mape: Mapping[str, float]
    fainter_flux_mape: Mapping[str, float]
    irregular_flux_mape: Mapping[str, float]
    network_correlation: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-able values."""
        rows = [
            {"method": method, "member": member, **metrics.to_dict()}
            for (method, member), metrics in self.table.items()
        ]
        metrics: dict[str, Any] = {"table": rows}
        for name in ("pooled", "closest"):
            metrics[name] = {method: each.to_dict() for method, each in getattr(self, name).items()}
        return {name: metrics.get(name, json_value(each)) for name, each in vars(self).items()}


def read_paper_table(url: str, options: storage.Options | None = None) -> PaperTable:
    """Read the released per-pair table.

    Parameters
    ----------
    url : str
        Path or URL of the CSV file (``output_catalog.csv`` of the release).
    options : mapping, optional
        fsspec storage options.
    """
    wanted = ["distance", "detection"]
    wanted += [f"g{member}_{column}" for member in (1, 2) for column in _MEMBER_COLUMNS]

    def choose(names: Sequence[str]) -> list[str]:
        missing = [name for name in wanted if name not in names]
        if missing:
            raise EvaluationError(
                f"{url}: column {missing[0]!r} is missing; give output_catalog.csv of the released data"
            )
        return wanted

    table = read_table(url, choose, options, most=_MOST_BYTES)
    columns = {name: table.column(name).to_numpy() for name in wanted}
    if table.num_rows == 0:
        raise EvaluationError(f"{url}: the table has no rows; give output_catalog.csv as released")
    for name, values in columns.items():
        if not name.endswith("type") and values.dtype.kind not in "fiu":
            raise EvaluationError(
                f"{url}: column {name!r} has no numbers; give output_catalog.csv as released"
            )
    return _as_members(columns)


def _as_members(columns: Mapping[str, NDArray[Any]]) -> PaperTable:
    def both(column: str) -> NDArray[Any]:
        return np.stack([columns[f"g1_{column}"], columns[f"g2_{column}"]], axis=1)

    members = members_of_pairs(
        flux=both("flux"),
        mag=both("mag"),
        radius=both("rad"),
        kind=both("type"),
        galaxy_id=both("id"),
        separation=columns["distance"],
    )
    flux = {name: flat(both(f"flux_{suffix}")) for name, suffix in NETWORKS.items()}
    flux[MEAN] = np.sqrt(flux["blend2flux"] * flux["blend2mask2flux"])
    to_network_units = 10 ** (0.4 * (NETWORK_ZERO_POINT - SEXTRACTOR_ZERO_POINT))
    flux[SEXTRACTOR] = flat(both("flux_sex")) * to_network_units
    found = [np.isin(columns["detection"], flags) for flags in _FLAGS_OF_FOUND]
    return PaperTable(
        members=members,
        recovered={name: Recovered(name, values) for name, values in flux.items()},
        found=np.stack(found, axis=1).ravel(),
    )


def paper_numbers(table: PaperTable) -> PaperNumbers:
    """Compute every number of the published comparison."""
    members, recovered = table.members, table.recovered
    roles = {"central": members.is_central, "companion": ~members.is_central}
    closest = members.separation_radii < CLOSEST_RADII
    networks = {name: recovered[name].flux for name in (*NETWORKS, MEAN)}
    brighter = _is_brighter(members.flux)
    errors = {name: flux_error(flux, members.flux) for name, flux in networks.items()}
    dmag = {name: magnitude_offset(flux, members.flux) for name, flux in networks.items()}
    return PaperNumbers(
        n_pairs=len(members) // 2,
        table={
            (name, role): _measure_where(table, name, rows & table.found)
            for role, rows in roles.items()
            for name in (*NETWORKS, SEXTRACTOR)
        },
        pooled={
            name: measure_rows(members, each, BOOTSTRAP_DRAWS) for name, each in recovered.items()
        },
        closest={name: _measure_where(table, name, closest) for name in recovered},
        sum_flux_mape={
            name: mean(flux_error(_sums(flux), _sums(members.flux)))
            for name, flux in networks.items()
        },
        member_correlation={
            name: _correlation(values[brighter], values[~brighter]) for name, values in dmag.items()
        },
        brighter_flux_mape={name: mean(e[brighter]) for name, e in errors.items()},
        fainter_flux_mape={name: mean(e[~brighter]) for name, e in errors.items()},
        irregular_flux_mape={name: mean(e[members.kind == "irr"]) for name, e in errors.items()},
        network_correlation=_correlation(*(dmag[name] for name in NETWORKS)),
    )


def _measure_where(table: PaperTable, method: str, rows: NDArray[np.bool_]) -> Metrics:
    return measure_rows(table.members[rows], table.recovered[method][rows])


def _is_brighter(flux: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark one member of each pair: the brighter, of equals the central."""
    first = flux[0::2] >= flux[1::2]
    return np.stack([first, ~first], axis=1).ravel()


def _sums(flux: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = flux.reshape(-1, 2).sum(axis=1)
    return total


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
