"""Detections: the sources of a field, one row each, whatever the table they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.detections import columns as cols
from deblend_batch.detections import values
from deblend_batch.detections.carried import SOURCE_NAME, carried_columns
from deblend_batch.detections.columns import Source
from deblend_batch.detections.formats.bounds import IdName
from deblend_batch.detections.formats.hats import sky_columns
from deblend_batch.detections.formats.parquet import is_folder
from deblend_batch.detections.formats.scan import scan_table
from deblend_batch.detections.unique import Repeated, find_repeated
from deblend_batch.detections.where import Condition
from deblend_batch.errors import DetectionsError
from deblend_batch.storage import Options
from deblend_batch.table_columns import Column


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
    carried : pyarrow.Table, optional
        What goes through to the catalogue, a row a source: ``source_name`` where ids are text, and the
        columns that the user named.
    psf_fwhm_arcsec : ndarray of float32, shape (n, band), optional
        Full width at half maximum of the PSF at the source, NaN where unknown; one column where the table has
        one for all bands.
    n_left_out : int
        Rows of the table that its condition does not select.
    """

    id: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    yx: NDArray[np.float64] | None
    mag: NDArray[np.float32]
    radius_arcsec: NDArray[np.float32]
    carried: pa.Table | None = None
    psf_fwhm_arcsec: NDArray[np.float32] | None = None
    n_left_out: int = 0

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Detections:
        return Detections(
            id=self.id[rows],
            ra=self.ra[rows],
            dec=self.dec[rows],
            yx=None if self.yx is None else self.yx[rows],
            mag=self.mag[rows],
            radius_arcsec=self.radius_arcsec[rows],
            carried=None if self.carried is None else _rows_of(self.carried, rows),
            psf_fwhm_arcsec=None if self.psf_fwhm_arcsec is None else self.psf_fwhm_arcsec[rows],
        )

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

        def joined(name: str) -> NDArray[np.generic]:
            return np.concatenate([getattr(part, name) for part in parts])

        apart = {"yx", "carried", "psf_fwhm_arcsec", "n_left_out"}
        columns = {f.name: joined(f.name) for f in fields(cls) if f.name not in apart}
        yx: Any = None if parts[0].yx is None else joined("yx")
        carried = [part.carried for part in parts if part.carried is not None]
        return cls(
            yx=yx,
            **columns,  # type: ignore[arg-type]  # each as its field says
            carried=pa.concat_tables(carried, promote_options="permissive") if carried else None,
            psf_fwhm_arcsec=_joined_widths(parts),
            n_left_out=sum(part.n_left_out for part in parts),
        )


def read_detections(
    url: str,
    columns: Mapping[str, Column] | None = None,
    options: Options | None = None,
    *,
    where: str | None = None,
    origin: int | Literal["parent"] | None = None,
    parent_yx: tuple[float, float] | None = None,
    carry: Sequence[str] = (),
    pixel_arcsec: float | None = None,
    bands: Sequence[str] = (),
) -> Iterator[Detections]:
    """Read a detection table, part by part.

    Parameters
    ----------
    url : str
        Any table that :func:`deblend_batch.detections.formats.scan.scan_table` reads.
    columns : mapping, optional
        Names in the table of ``id``, ``ra``, ``dec``, ``x``, ``y``, ``mag``, ``radius``, ``psf_fwhm`` (or
        ``psf_fwhm_<band>``); those not named are looked for under these names, upper or lower case.
    options : mapping, optional
        fsspec storage options.
    where : str, optional
        Condition of the rows that count.
    origin : {0, 1, "parent"}, optional
        What the centre of the first pixel is called; by the names of the columns if absent, else 0. With
        ``parent`` positions count in the frame that the image was cut from.
    parent_yx : tuple of float, optional
        Where the first pixel lies in that frame, px (y, x).
    carry : sequence of str
        Columns that are kept as they are.
    pixel_arcsec : float, optional
        Edge of a pixel, for radii in pixels.
    bands : sequence of str
        Bands of the field, for the PSF's width in each.

    Yields
    ------
    Detections
        At least one, which may be empty. Where the table has sky and pixel positions the sky
        counts, unless ``columns`` names ``x`` and ``y`` alone. Masked and null values are NaN;
        units are converted where the table states them.
    """
    mapping = _with_sky(columns or {}, url, options)
    known = (*cols.DETECTION_COLUMNS, *map(cols.psf_column, bands))
    cols.check_mapping(mapping, known, url)
    condition = None if where is None else Condition(where)
    looked_at = () if condition is None else condition.columns
    found: dict[str, Source] = {}

    def choose(names: Sequence[str]) -> list[str]:
        chosen = cols.resolve_detections(names, mapping, url, known)
        cols.check_there(names, looked_at, "where", url)
        cols.check_there(names, carry, "carry", url)
        found.clear()  # each file of a folder has its own names; a table that does not fit changes nothing
        found.update(chosen)
        ids = [IdName(name) for name in found["id"].names]
        own = [name for source in found.values() for name in source.names]
        return list(dict.fromkeys([*ids, *own, *looked_at, *carry]))

    named: bool | None = None
    for whole in scan_table(url, choose, options):
        part = whole if condition is None else whole.filter(pa.array(condition.rows(whole)))
        ids, names = values.ids(part, found["id"], "id", url)
        if len(ids):
            named = _same_kind(named, names is not None, found["id"].name, url)
        numbers = {
            ours: values.floats(part, source, ours, url, pixel_arcsec)
            for ours, source in found.items()
            if ours != "id"
        }
        first = _first_pixel(cols.origin_of(found) if origin is None else origin, parent_yx, url)
        made = _detections(ids, numbers, first)
        texts = {} if names is None else {SOURCE_NAME: names}
        carried = carried_columns(part, carry, texts, url)
        psf, left_out = _psf_fwhm(numbers, bands), len(whole) - len(part)
        yield replace(made, carried=carried, psf_fwhm_arcsec=psf, n_left_out=left_out)


def read_pairs_table(
    url: str, columns: Mapping[str, Column] | None = None, options: Options | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Read a table of pre-detected pairs, part by part.

    Parameters
    ----------
    url : str
        Any table that :func:`deblend_batch.detections.formats.scan.scan_table` reads.
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
    found: dict[str, Source] = {}

    def choose(names: Sequence[str]) -> list[str]:
        for ours in cols.PAIR_COLUMNS:
            theirs = cols.find_column(names, ours, mapping, url)
            if theirs is None:
                raise cols.missing_column(names, ours, url)
            found[ours] = theirs
        return list(
            dict.fromkeys(IdName(name) for source in found.values() for name in source.names)
        )

    for part in scan_table(url, choose, options):
        central, companion = (
            values.ids(part, found[ours], ours, url)[0] for ours in cols.PAIR_COLUMNS
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


def _first_pixel(
    origin: int | str, parent_yx: tuple[float, float] | None, url: str
) -> tuple[float, float]:
    """Return what the positions call the first pixel, (y, x)."""
    if origin != "parent":
        return float(origin), float(origin)
    if parent_yx is None:
        raise DetectionsError(
            f"{url}: 'origin: parent' takes a field that knows its place in the larger frame, from LTV1 and "
            "LTV2, or CRVAL1A and CRVAL2A, of its image; set its attribute 'parent_origin' to [y, x]"
        )
    return parent_yx


def _with_sky(
    columns: Mapping[str, Column], url: str, options: Options | None
) -> Mapping[str, Column]:
    """Add the positions that a HATS catalogue states, where the user names none."""
    if {"ra", "dec", "x", "y"} & columns.keys() or not is_folder(url, options):
        return columns
    return {**sky_columns(url, options), **columns}


def _rows_of(table: pa.Table, rows: slice | NDArray[np.generic]) -> pa.Table:
    return table.take(pa.array(np.arange(len(table))[rows]))


def _same_kind(before: bool | None, named: bool, column: str, url: str) -> bool:
    """Refuse ids of which some parts of a text hold numbers and others text."""
    if before is not None and before is not named:
        raise DetectionsError(
            f"{url}: column 'id' holds numbers in some rows and text in others; make all of it text with "
            f"'columns: {{id: [{column}]}}'"
        )
    return named


def _detections(
    ids: NDArray[np.int64],
    numbers: Mapping[str, NDArray[np.float64]],
    origin_yx: tuple[float, float],
) -> Detections:
    unknown = np.full(len(ids), np.nan)
    return Detections(
        id=ids,
        ra=numbers.get("ra", unknown),
        dec=numbers.get("dec", unknown),
        yx=np.stack([numbers["y"], numbers["x"]], axis=1) - origin_yx if "x" in numbers else None,
        mag=numbers.get("mag", unknown).astype(np.float32),
        radius_arcsec=numbers.get("radius", unknown).astype(np.float32),
    )


def _psf_fwhm(
    numbers: Mapping[str, NDArray[np.float64]], bands: Sequence[str]
) -> NDArray[np.float32] | None:
    """Return the PSF's widths, a column a band, or the one that is for all."""
    own = [numbers.get(cols.psf_column(band)) for band in bands]
    every = numbers.get(cols.PSF_FWHM)
    if all(column is None for column in own):
        own = [every]
    given = next((column for column in [every, *own] if column is not None), None)
    if given is None:
        return None
    other = np.full(len(given), np.nan) if every is None else every
    widths = [other if column is None else column for column in own]
    return np.stack(widths, axis=1).astype(np.float32)


def _joined_widths(parts: Sequence[Detections]) -> NDArray[np.float32] | None:
    """Join the PSF's widths; parts of a folder may have none."""
    known = [part.psf_fwhm_arcsec for part in parts if part.psf_fwhm_arcsec is not None]
    if not known:
        return None
    width = max(each.shape[1] for each in known)
    nothing = [np.full((len(part), 1), np.nan, np.float32) for part in parts]
    each = [
        other if part.psf_fwhm_arcsec is None else part.psf_fwhm_arcsec
        for part, other in zip(parts, nothing, strict=True)
    ]
    return np.concatenate([np.broadcast_to(one, (len(one), width)) for one in each])


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
