"""Detections: the sources of a field, one row each, whatever the table they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.detections import columns as cols
from deblend_batch.detections.formats import scan_table
from deblend_batch.detections.unique import Repeated, find_repeated
from deblend_batch.errors import DetectionsError
from deblend_batch.storage import Options


@dataclass(frozen=True)
class Detections:
    """Sources as columns; row ``i`` of each array is source ``i``.

    Parameters
    ----------
    id : ndarray of int64, shape (n,)
        Unique in the whole table.
    ra, dec : ndarray of float64, shape (n,)
        ICRS degrees; NaN where unknown.
    yx : ndarray of float64, shape (n, 2), or None
        Pixel positions (y, x), 0-based pixel centres; None where the table gives sky positions.
    mag : ndarray of float32, shape (n,)
        AB magnitude; NaN where unknown.
    radius_arcsec : ndarray of float32, shape (n,)
        Half-light radius; NaN where unknown.
    psf_fwhm_arcsec : ndarray of float32, shape (n, band), or None
        Full width at half maximum of the PSF at the source, NaN where unknown; one column where the table has
        one for all bands.
    carried : pyarrow.Table, or None
        Columns that go through to the catalogue, of n rows.
    """

    id: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    yx: NDArray[np.float64] | None
    mag: NDArray[np.float32]
    radius_arcsec: NDArray[np.float32]
    psf_fwhm_arcsec: NDArray[np.float32] | None = None
    carried: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Detections:
        chosen: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in self.arrays()
        }
        carried = None
        if self.carried is not None:
            carried = self.carried.take(pa.array(np.arange(len(self))[rows]))
        return Detections(**chosen, carried=carried)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any] | None]]:
        """Return the columns that are arrays, by name."""
        return ((name, column) for name, column in vars(self).items() if name != "carried")

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """Join parts of one table.

        Parameters
        ----------
        parts : sequence of Detections
            All with pixel positions, or none.
        """
        if not parts:
            nothing = np.empty(0)
            small = np.empty(0, np.float32)
            return cls(np.empty(0, np.int64), nothing, nothing, None, small, small)

        columns: dict[str, Any] = {
            name: None if first is None else np.concatenate([getattr(part, name) for part in parts])
            for name, first in parts[0].arrays()
        }
        tables = [part.carried for part in parts if part.carried is not None]
        carried = pa.concat_tables(tables, promote_options="permissive") if tables else None
        return cls(**columns, carried=carried)


def read_detections(
    url: str,
    columns: Mapping[str, str] | None = None,
    options: Options | None = None,
    *,
    bands: Sequence[str] = (),
    carry: Sequence[str] = (),
) -> Iterator[Detections]:
    """Read a detection table, part by part.

    Parameters
    ----------
    url : str
        Any table that :func:`deblend_batch.detections.formats.scan_table` reads.
    columns : mapping, optional
        Names in the table of ``id``, ``ra``, ``dec``, ``x``, ``y``, ``mag``, ``radius``, ``psf_fwhm`` (or
        ``psf_fwhm_<band>``); those not named are looked for under these names, upper or lower case.
    options : mapping, optional
        fsspec storage options.
    bands : sequence of str
        Bands whose ``psf_fwhm_<band>`` are looked for.
    carry : sequence of str
        Columns, by their names in the table, that are to go through to the catalogue.

    Yields
    ------
    Detections
        At least one, which may be empty. Where the table has sky and pixel positions the sky
        counts, unless ``columns`` names ``x`` and ``y`` alone. Masked and null values are NaN;
        units are converted where the table states them.
    """
    mapping = columns or {}
    known = (*cols.DETECTION_COLUMNS, *(cols.psf_column(band) for band in bands))
    cols.check_mapping(mapping, known, url)
    found: dict[str, str] = {}

    def choose(names: Sequence[str]) -> list[str]:
        found.clear()  # each file of a folder has its own names
        found.update(cols.resolve_detections(names, mapping, known, url))
        cols.check_carried(names, carry, url)
        return list(dict.fromkeys([*found.values(), *carry]))

    for part in scan_table(url, choose, options):
        ids = cols.integers(part, found["id"], "id", url)
        numbers = {
            ours: cols.floats(part, theirs, ours, url)
            for ours, theirs in found.items()
            if ours != "id"
        }
        psf = _psf_fwhm(numbers, bands)
        yield _detections(ids, numbers, psf, part.select(list(carry)) if carry else None)


def read_pairs_table(
    url: str, columns: Mapping[str, str] | None = None, options: Options | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Read a table of pre-detected pairs, part by part.

    Parameters
    ----------
    url : str
        Any table that :func:`deblend_batch.detections.formats.scan_table` reads.
    columns : mapping, optional
        Names in the table of ``central_id`` and ``companion_id``.
    options : mapping, optional
        fsspec storage options.

    Yields
    ------
    central_id, companion_id : ndarray of int64, shape (n,)
        Detection ids; at least once, which may be of no pair.
    """
    mapping = columns or {}
    cols.check_mapping(mapping, cols.PAIR_COLUMNS, url)
    found: dict[str, str] = {}

    def choose(names: Sequence[str]) -> list[str]:
        for ours in cols.PAIR_COLUMNS:
            theirs = cols.find_column(names, ours, mapping, url)
            if theirs is None:
                raise cols.missing_column(names, ours, url)
            found[ours] = theirs
        return list(found.values())

    for part in scan_table(url, choose, options):
        central, companion = (
            cols.integers(part, found[ours], ours, url) for ours in cols.PAIR_COLUMNS
        )
        _check_pairs(central, companion, url)
        yield central, companion


def check_unique(ids: NDArray[np.int64], url: str) -> None:
    """Refuse a table whose ids repeat.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
        All ids of the table.
    url : str
        The table, for the message.
    """
    if (found := find_repeated(ids)) is not None:
        raise repeated_ids(found, url)


def repeated_ids(found: Repeated, url: str) -> DetectionsError:
    """Return the error for a table whose ids repeat."""
    n = f"{found.n}" if found.all_counted else f"at least {found.n}"
    return DetectionsError(
        f"{url}: {n} values of column 'id' occur more than once, the first is {found.first}; "
        "give every source its own id"
    )


def repeated_pairs(n: int, first: tuple[int, int], url: str) -> DetectionsError:
    """Return the error for a table whose pairs repeat."""
    return DetectionsError(
        f"{url}: {n} pairs occur more than once, the first is {first}; keep one row of each"
    )


def _psf_fwhm(
    numbers: Mapping[str, NDArray[np.float64]], bands: Sequence[str]
) -> NDArray[np.float32] | None:
    """Return the PSF's widths, a column a band, or the one that is for all; what is no width is unknown."""
    own = [numbers.get(cols.psf_column(band)) for band in bands]
    every = numbers.get(cols.psf_column())
    if all(column is None for column in own):
        own = [every]
    given = next((column for column in [every, *own] if column is not None), None)
    if given is None:
        return None
    other = np.full(len(given), np.nan) if every is None else every
    widths = np.stack([other if column is None else column for column in own], axis=1)
    return np.where(widths > 0, widths, np.nan).astype(np.float32)


def _detections(
    ids: NDArray[np.int64],
    numbers: Mapping[str, NDArray[np.float64]],
    psf_fwhm: NDArray[np.float32] | None,
    carried: pa.Table | None,
) -> Detections:
    unknown = np.full(len(ids), np.nan)
    return Detections(
        id=ids,
        ra=numbers.get("ra", unknown),
        dec=numbers.get("dec", unknown),
        yx=np.stack([numbers["y"], numbers["x"]], axis=1) if "x" in numbers else None,
        mag=numbers.get("mag", unknown).astype(np.float32),
        radius_arcsec=numbers.get("radius", unknown).astype(np.float32),
        psf_fwhm_arcsec=psf_fwhm,
        carried=carried,
    )


def _check_pairs(central: NDArray[np.int64], companion: NDArray[np.int64], url: str) -> None:
    same = central == companion
    if same.any():
        raise DetectionsError(
            f"{url}: {int(same.sum())} pairs join a source with itself, the first is "
            f"{central[same.argmax()]}; remove them"
        )
    low, high = np.minimum(central, companion), np.maximum(central, companion)
    order = np.lexsort((high, low))
    ordered = np.stack([low[order], high[order]], axis=1)
    same_as_before = (ordered[1:] == ordered[:-1]).all(axis=1)
    repeated = np.unique(ordered[1:][same_as_before], axis=0)
    if len(repeated):
        first, second = repeated[0].tolist()
        raise repeated_pairs(len(repeated), (first, second), url)
