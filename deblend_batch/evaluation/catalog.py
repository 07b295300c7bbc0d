"""A catalogue of shards against true fluxes: read in batches, joined by id or by position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.files import Columns, ParquetTable
from deblend_batch.evaluation.members import Members, Recovered, concatenate
from deblend_batch.evaluation.truth import Truth, read_truth
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors

_WRONG_IDS_ARCSEC = 3.0
_POSITION = {name: name for name in ("source_id", "ra", "dec")}


@dataclass(frozen=True)
class Matched:
    """Members of a catalogue with their truth, and what has none.

    Parameters
    ----------
    members : Members
        True values, fluxes in nJy.
    recovered : Recovered
        The catalogue's fluxes; NaN where the catalogue has none.
    band : str
        Band of the fluxes.
    n_without_truth : int
        Primary rows of the catalogue that no true source belongs to; they are not in ``members``.
    n_truth : int
        True sources in the table; those that are no member of a pair have no row in a catalogue.
    reach_arcsec : float
        Separation of the catalogue's widest pair.
    n_missed : int or None
        True sources that have another one within ``reach_arcsec`` but no row in the catalogue; None where
        the truth has no positions.
    """

    members: Members
    recovered: Recovered
    band: str
    n_without_truth: int
    n_truth: int
    reach_arcsec: float
    n_missed: int | None


@dataclass(frozen=True)
class _Lookup:
    """From a catalogue's source ids to rows of the truth."""

    source_id: NDArray[np.int64]
    row: NDArray[np.intp]

    def rows(self, source_id: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the truth's row of each source, -1 where it has none."""
        place = np.minimum(np.searchsorted(self.source_id, source_id), len(self.source_id) - 1)
        return np.where(self.source_id[place] == source_id, self.row[place], -1)


def match_catalog(
    catalog: str,
    truth: str,
    *,
    band: str | None = None,
    match_arcsec: float | None = None,
    method: str = "catalogue",
    options: storage.Options | None = None,
) -> Matched:
    """Join the primary rows of a catalogue with a table of true fluxes.

    Parameters
    ----------
    catalog : str
        URL of an output folder (its ``shards/`` are read), or of Parquet files with their columns.
    truth : str
        URL of a table of true fluxes; see :func:`~deblend_batch.evaluation.truth.read_truth`.
    band : str, optional
        Band to compare; may be left out where the catalogue has one.
    match_arcsec : float, optional
        Match by position within this distance; without it the truth's ids are the catalogue's.
    method : str
        Name to give to the catalogue's fluxes.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    Matched
        The members. Memory grows with the truth and the matched rows, about 100 bytes each.
    """
    shards = ParquetTable(_shards_of(catalog, options), catalog, options)
    chosen = _band(catalog, shards.names, band)
    _check_columns(catalog, shards.names, chosen)
    sources = read_truth(truth, chosen, options)
    lookup = _lookup(shards, sources, match_arcsec, catalog, truth)
    parts, without_truth, reach = [], 0, 0.0
    has_row = np.zeros(len(sources.id), bool)
    for columns in _primary_rows(shards, chosen):
        rows = lookup.rows(columns["source_id"])
        without_truth += int(np.count_nonzero(rows < 0))
        has_row[rows[rows >= 0]] = True
        reach = max(reach, float(np.nanmax(columns["separation"], initial=0.0)))
        parts.append(_join(_take(columns, rows >= 0), sources, lookup, method))
    if not parts or not any(len(members) for members, _ in parts):
        raise EvaluationError(
            f"{truth}: no row of {catalog} has its source here; give its truth, or match by position"
        )
    if match_arcsec is None:
        _check_positions(shards, sources, catalog, truth)
    return Matched(
        members=concatenate([members for members, _ in parts]),
        recovered=concatenate([recovered for _, recovered in parts]),
        band=chosen,
        n_without_truth=without_truth,
        n_truth=len(sources.id),
        reach_arcsec=reach,
        n_missed=_count_missed(sources, has_row, reach),
    )


def _count_missed(truth: Truth, has_row: NDArray[np.bool_], reach_arcsec: float) -> int | None:
    """Count the true sources without a row that have a neighbour, and so should be in a pair."""
    if truth.radec is None:
        return None
    vectors = unit_vectors(*truth.radec.T)
    chord = 2 * np.sin(np.radians(reach_arcsec / 3600) / 2)
    distance, _ = cKDTree(vectors).query(vectors[~has_row], k=[2])
    return int(np.count_nonzero(distance <= chord))


def _shards_of(catalog: str, options: storage.Options | None) -> list[str]:
    """Return the shards of an output folder; anything else is a table itself."""
    output = Output(catalog, options or {})
    if not output.exists(output.shards_url):
        return [catalog]
    return [output.shard_url(tile) for tile in output.shards()] or [catalog]


def _band(catalog: str, names: Sequence[str], band: str | None) -> str:
    bands = [
        name[5:]
        for name in names
        if name.startswith("flux_") and not name.startswith(("flux_err_", "flux_corr_"))
    ]
    if not bands:
        raise EvaluationError(f"{catalog}: no column 'flux_<band>'; give the output of a run")
    if band is None and len(bands) > 1:
        raise EvaluationError(
            f"{catalog}: has the bands {', '.join(bands)}; choose one with --band"
        )
    if band is not None and band not in bands:
        raise EvaluationError(f"{catalog}: has no band {band!r}; it has {', '.join(bands)}")
    return band or bands[0]


def _columns(band: str) -> dict[str, str]:
    """Return the catalogue's column of each noun."""
    names = ("source_id", "neighbour_id", "role", "separation", "ra", "dec")
    same = {name: name for name in names}
    return {**same, "flux": f"flux_{band}", "flux_err": f"flux_err_{band}"}


def _check_columns(catalog: str, names: Sequence[str], band: str) -> None:
    for column in (*_columns(band).values(), "is_primary"):
        if column not in names:
            raise EvaluationError(
                f"{catalog}: column {column!r} is missing; give the output of a run"
            )


def _take(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.bool_]) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def _primary_rows(shards: ParquetTable, band: str) -> Iterator[Columns]:
    """Yield the primary rows in batches, with the band's columns under common names."""
    for columns in shards.columns({**_columns(band), "is_primary": "is_primary"}):
        yield _take(columns, columns["is_primary"].astype(bool))


def _join(
    columns: Columns, truth: Truth, lookup: _Lookup, method: str
) -> tuple[Members, Recovered]:
    own, other = lookup.rows(columns["source_id"]), lookup.rows(columns["neighbour_id"])
    is_central = columns["role"] == "central"
    difference = truth.mag[own] - np.where(other >= 0, truth.mag[other], np.nan)
    radii = truth.radius_arcsec[own] + np.where(other >= 0, truth.radius_arcsec[other], np.nan)
    separation = columns["separation"].astype(np.float64)
    members = Members(
        flux=truth.flux[own],
        mag=truth.mag[own],
        is_central=is_central,
        mag_difference=np.where(is_central, difference, -difference),
        separation=separation,
        separation_radii=separation / radii,
        kind=truth.kind[own],
        galaxy_id=truth.galaxy_id[own],
        separation_unit="arcsec",
    )
    flux, flux_err = (columns[name].astype(np.float64) for name in ("flux", "flux_err"))
    return members, Recovered(method, flux, flux_err)


def _lookup(
    shards: ParquetTable, truth: Truth, match_arcsec: float | None, catalog: str, where: str
) -> _Lookup:
    if len(truth.id) == 0:
        raise EvaluationError(
            f"{where}: no source has a positive flux; give the truth of {catalog}"
        )
    if match_arcsec is None:
        return _Lookup(truth.id, np.arange(len(truth.id)))
    if truth.radec is None:
        raise EvaluationError(f"{where}: has no columns 'ra' and 'dec' to match by; match by id")
    tree = cKDTree(unit_vectors(*truth.radec.T))
    found: dict[int, int] = {}
    for columns in shards.columns(_POSITION):
        vectors = unit_vectors(columns["ra"], columns["dec"])
        _, row = tree.query(vectors)
        near = separations_arcsec(vectors, tree.data[row]) <= match_arcsec
        found.update(zip(columns["source_id"][near].tolist(), row[near].tolist(), strict=True))
    ids = np.array(sorted(found), np.int64)
    if len(ids) == 0:
        raise EvaluationError(
            f"{where}: no source within {match_arcsec} arcsec of one in {catalog}; give a larger "
            "distance or the truth of this field"
        )
    return _Lookup(ids, np.array([found[i] for i in ids.tolist()], np.intp))


def _check_positions(shards: ParquetTable, truth: Truth, catalog: str, where: str) -> None:
    """Refuse ids that mean other sources: a detection table numbers its own."""
    if truth.radec is None:
        return
    lookup = _Lookup(truth.id, np.arange(len(truth.id)))
    head = _head(shards, 10_000)
    rows = lookup.rows(head["source_id"])
    columns = _take(head, rows >= 0)
    if len(columns["ra"]) == 0:
        return
    true = unit_vectors(*truth.radec[rows[rows >= 0]].T)
    offset = float(np.median(separations_arcsec(unit_vectors(columns["ra"], columns["dec"]), true)))
    if offset > _WRONG_IDS_ARCSEC:
        raise EvaluationError(
            f"{where}: its ids are not those of {catalog} (sources of one id are {offset:.1f} arcsec "
            "apart); match by position instead"
        )


def _head(shards: ParquetTable, n_rows: int) -> Columns:
    """Return the first rows of a catalogue."""
    parts: list[Columns] = []
    for columns in shards.columns(_POSITION):
        parts.append(columns)
        if sum(len(part["ra"]) for part in parts) >= n_rows:
            break
    return {name: np.concatenate([part[name] for part in parts])[:n_rows] for name in _POSITION}
