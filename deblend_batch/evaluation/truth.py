"""Tables of true fluxes: Parquet, with the columns that a simulation or a user has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.detections.unique import Repeated, UniqueKeys
from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.files import Columns, ParquetTable
from deblend_batch.parquet.file import WHOLE_RATIO

ZERO_POINT = 31.4
"""AB magnitude of one nanojansky."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """True sources, sorted by id; row ``i`` of each array is one source.

    Parameters
    ----------
    id : ndarray of int64, shape (n,)
        Unique ids, increasing.
    flux : ndarray of float64, shape (n,)
        Total flux, nJy.
    radius_arcsec : ndarray of float64, shape (n,)
        Half-light radius; NaN where unknown.
    kind : ndarray of str, shape (n,)
        Morphological type, ``""`` where unknown.
    galaxy_id : ndarray of int64, shape (n,)
        Which galaxy it is; the id where unknown.
    radec : ndarray of float64, shape (n, 2), optional
        ICRS position (ra, dec), deg.
    """

    id: NDArray[np.int64]
    flux: Floats
    radius_arcsec: Floats
    kind: NDArray[np.str_]
    galaxy_id: NDArray[np.int64]
    radec: Floats | None

    @property
    def mag(self) -> Floats:
        """AB magnitudes; NaN where the flux is not positive."""
        magnitudes: Floats = ZERO_POINT - 2.5 * np.log10(np.where(self.flux > 0, self.flux, np.nan))
        return magnitudes


def read_truth(url: str, band: str, options: storage.Options | None = None) -> Truth:
    """Read a table of true fluxes.

    Parameters
    ----------
    url : str
        Parquet file or folder with ``id`` and ``flux_<band>`` or ``flux_njy`` (nJy), or
        ``mag_<band>`` or ``mag`` (AB); optional ``ra``, ``dec`` (deg), ``radius_arcsec`` or
        ``radius``, ``type`` or ``kind``, and ``galaxy_id``.
    band : str
        Band of the fluxes; columns without a band's name serve for any.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    Truth
        The sources that have a positive flux.

    Raises
    ------
    NotFoundError
        If there is no such table.
    EvaluationError
        If a column is missing, or an id is there twice.
    """
    table = ParquetTable([url], url, options)
    chosen = _choose_columns(table.names, band, url)
    parts = []
    with UniqueKeys() as ids:
        for columns in table.columns(chosen, ratio=WHOLE_RATIO):
            parts.append(_with_flux(columns))
            _check_unique(ids.add(parts[-1]["id"]), url)
        _check_unique(ids.finish(), url)
    return _as_truth({noun: np.concatenate([part[noun] for part in parts]) for noun in parts[0]})


def _check_unique(found: Repeated | None, url: str) -> None:
    if found is not None:
        raise EvaluationError(f"{url}: id {found.first} is there twice; ids must be unique")


def _choose_columns(names: Sequence[str], band: str, url: str) -> dict[str, str]:
    """Return the table's name of each noun that it has."""
    candidates = {
        "id": ("id",),
        "flux": (f"flux_{band}", "flux_njy"),
        "mag": (f"mag_{band}", "mag"),
        "radius": ("radius_arcsec", "radius"),
        "kind": ("type", "kind"),
        "galaxy_id": ("galaxy_id",),
        "ra": ("ra",),
        "dec": ("dec",),
    }
    found = {
        noun: next(filter(names.__contains__, aliases), None)
        for noun, aliases in candidates.items()
    }
    chosen = {noun: name for noun, name in found.items() if name}
    missing = [noun for noun in ("id", "flux") if noun not in chosen]
    if "mag" in chosen:
        missing = [noun for noun in missing if noun == "id"]
    if missing:
        wanted = " or ".join(repr(n) for noun in (missing[0], "mag") for n in candidates[noun])
        wanted = "'id'" if missing[0] == "id" else wanted
        raise EvaluationError(f"{url}: column {wanted} is missing; it has {', '.join(names)}")
    return chosen


def _with_flux(columns: Columns) -> Columns:
    """Return the sources that have a positive flux."""
    flux = columns["flux"] if "flux" in columns else _flux_of(columns["mag"])
    flux = flux.astype(np.float64)
    kept = {**columns, "id": columns["id"].astype(np.int64), "flux": flux}
    return {noun: values[flux > 0] for noun, values in kept.items() if noun != "mag"}


def _flux_of(mag: NDArray[Any]) -> Floats:
    flux: Floats = 10 ** (0.4 * (ZERO_POINT - mag.astype(np.float64)))
    return flux


def _as_truth(columns: Columns) -> Truth:
    ids = columns["id"]
    order = np.argsort(ids, kind="stable")
    radius = columns.get("radius", np.full(len(ids), np.nan))
    radec = [columns[name] for name in ("ra", "dec") if name in columns]
    return Truth(
        id=ids[order],
        flux=columns["flux"][order],
        radius_arcsec=radius[order].astype(np.float64),
        kind=columns.get("kind", np.full(len(ids), ""))[order].astype(np.str_),
        galaxy_id=columns.get("galaxy_id", ids)[order].astype(np.int64),
        radec=np.stack(radec, axis=1)[order] if len(radec) == 2 else None,
    )
