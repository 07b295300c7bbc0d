"""Tables of true fluxes, with the columns that a simulation or a user has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.detections.formats import read_table
from deblend_batch.errors import NotFoundError
from deblend_batch.evaluation.errors import EvaluationError

ZERO_POINT = 31.4
"""AB magnitude of one nanojansky."""

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]


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
        Any table that :func:`deblend_batch.detections.formats.scan_table` reads, with ``id`` and
        ``flux_<band>`` or ``flux_njy`` (nJy), or ``mag_<band>`` or ``mag`` (AB); optional ``ra``, ``dec``
        (deg), ``radius_arcsec`` or ``radius``, ``type`` or ``kind``, and ``galaxy_id``.
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
    DetectionsError
        If it cannot be read.
    EvaluationError
        If a column is missing or holds no numbers, or an id is there twice.
    TooLargeError
        If it takes more than half of the free memory.
    """
    chosen: dict[str, str] = {}

    def choose(names: Sequence[str]) -> list[str]:
        chosen.update(_choose_columns(names, band, url))
        return list(chosen.values())

    read = numpy_columns(read_table(url, choose, options))
    columns = {noun: read[name] for noun, name in chosen.items()}
    for noun, values in columns.items():
        if noun != "kind" and values.dtype.kind not in "fiu":
            raise EvaluationError(
                f"{url}: column {chosen[noun]!r} holds no numbers; give a truth table"
            )
    truth = _as_truth(columns)
    if twice := truth.id[1:][truth.id[1:] == truth.id[:-1]].tolist():
        raise EvaluationError(f"{url}: id {twice[0]} is there twice; ids must be unique")
    return truth


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


def _as_truth(columns: Columns) -> Truth:
    ids = columns["id"].astype(np.int64)
    if "flux" in columns:
        flux = columns["flux"].astype(np.float64)
    else:
        flux = 10 ** (0.4 * (ZERO_POINT - columns["mag"].astype(np.float64)))
    order = np.argsort(ids, kind="stable")
    order = order[flux[order] > 0]
    radius = columns.get("radius", np.full(len(ids), np.nan))
    radec = [columns[name] for name in ("ra", "dec") if name in columns]
    return Truth(
        id=ids[order],
        flux=flux[order],
        radius_arcsec=radius[order].astype(np.float64),
        kind=columns.get("kind", np.full(len(ids), ""))[order].astype(np.str_),
        galaxy_id=columns.get("galaxy_id", ids)[order].astype(np.int64),
        radec=np.stack(radec, axis=1)[order] if len(radec) == 2 else None,
    )


def open_dataset(urls: Sequence[str], where: str, options: storage.Options | None) -> ds.Dataset:
    """Open Parquet files of one store as one data set.

    Parameters
    ----------
    urls : sequence of str
        Files, or one folder.
    where : str
        What they are, for messages.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    pyarrow.dataset.Dataset
        Nothing but a schema has been read.

    Raises
    ------
    NotFoundError
        If there is no such file.
    EvaluationError
        If it is not Parquet.
    """
    fs, _ = storage.filesystem(urls[0], options)
    paths = [storage.filesystem(url, options)[1] for url in urls]
    try:
        return ds.dataset(paths if len(paths) > 1 else paths[0], filesystem=fs, format="parquet")
    except FileNotFoundError as error:
        raise NotFoundError(f"{where}: no such file or folder; check the URL") from error
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EvaluationError(f"{where}: not Parquet ({reason}); give a Parquet table") from error


def numpy_columns(table: pa.Table | pa.RecordBatch) -> Columns:
    """Return the columns of a table, or of a batch of one, as NumPy arrays."""
    whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
    return {name: whole.column(name).to_numpy() for name in whole.schema.names}
