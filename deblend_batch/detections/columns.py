"""Which column of a table is which, and its values as numbers in our units."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deblend_batch.errors import DetectionsError

DETECTION_COLUMNS = ("id", "ra", "dec", "x", "y", "mag", "radius", "psf_fwhm")
PAIR_COLUMNS = ("central_id", "companion_id")

_MAX_SHOWN = 60
_LONG_INTEGER = re.compile(r"(?<![.\d])\d{4}")
_UNITS = {"ra": u.deg, "dec": u.deg, "radius": u.arcsec, "psf_fwhm": u.arcsec}


def psf_column(band: str = "") -> str:
    """Return the name of the column that has the PSF's width in a band, or in all."""
    return f"psf_fwhm_{band}" if band else "psf_fwhm"


def check_mapping(columns: Mapping[str, str], known: Sequence[str], url: str) -> None:
    """Refuse a mapping of columns that this package does not know."""
    for key in columns:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DetectionsError(
                f"{url}: columns maps {key!r}, which is none of {', '.join(known)}{hint}"
            )


def check_carried(names: Sequence[str], carry: Sequence[str], url: str) -> None:
    """Refuse columns to carry that a table has not."""
    for name in carry:
        if name not in names:
            raise DetectionsError(
                f"{url}: no column {name!r} (to carry); the table has {_listed(names)}"
            )


def resolve_detections(
    names: Sequence[str], columns: Mapping[str, str], known: Sequence[str], url: str
) -> dict[str, str]:
    """Map our column names to a detection table's.

    Returns
    -------
    dict of str
        ``id``, a position on the sky or in pixels (never both), and the others that are known, if there.
    """
    candidates = {ours: find_column(names, ours, columns, url) for ours in known}
    found = {ours: theirs for ours, theirs in candidates.items() if theirs is not None}
    if "id" not in found:
        raise missing_column(names, "id", url)
    has_sky, has_pixels = {"ra", "dec"} <= found.keys(), {"x", "y"} <= found.keys()
    if not has_sky and not has_pixels:
        raise DetectionsError(
            f"{url}: no position: needs columns 'ra' and 'dec', or 'x' and 'y'; the table has "
            f"{_listed(names)}; name them with 'columns: {{ra: NAME, dec: NAME}}'"
        )
    wants_pixels = {"x", "y"} <= columns.keys() and not {"ra", "dec"} & columns.keys()
    use_pixels = has_pixels and (wants_pixels or not has_sky)
    unused = {"ra", "dec"} if use_pixels else {"x", "y"}
    return {ours: theirs for ours, theirs in found.items() if ours not in unused}


def find_column(
    names: Sequence[str], ours: str, columns: Mapping[str, str], url: str
) -> str | None:
    """Find one of our columns in a table.

    Returns
    -------
    str or None
        The mapped name; else ours, or the one name that differs from it in case only; else None.
    """
    if ours in columns:
        if columns[ours] not in names:
            raise DetectionsError(
                f"{url}: no column {columns[ours]!r} (mapped to '{ours}'); the table has "
                f"{_listed(names)}"
            )
        return columns[ours]
    if ours in names:
        return ours
    same = [name for name in names if name.lower() == ours]
    return same[0] if len(same) == 1 else None


def missing_column(names: Sequence[str], ours: str, url: str) -> DetectionsError:
    """Return the error for a table without a column that it must have."""
    return DetectionsError(
        f"{url}: no column '{ours}'; the table has {_listed(names)}; name it with "
        f"'columns: {{{ours}: NAME}}'"
    )


def integers(part: pa.Table, name: str, ours: str, url: str) -> NDArray[np.int64]:
    """Return a column of ids.

    Returns
    -------
    ndarray of int64, shape (n,)
        The ids.

    Raises
    ------
    DetectionsError
        If the column is not integer, has nulls, or does not fit int64.
    """
    values = part[name]
    if len(values) == 0 and pa.types.is_null(values.type):  # as of a text without rows
        return np.empty(0, np.int64)
    if not pa.types.is_integer(values.type):
        raise DetectionsError(
            f"{url}: column '{ours}' holds {shown(values.type)}; it must be integer (int64)"
        )
    if values.null_count:
        raise DetectionsError(
            f"{url}: column '{ours}' is empty in {values.null_count} rows; give every row one"
        )
    try:
        ids: NDArray[np.int64] = pc.cast(values, pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise DetectionsError(
            f"{url}: column '{ours}' holds values of 2**63 or more; they must fit int64"
        ) from error
    return ids


def floats(part: pa.Table, name: str, ours: str, url: str) -> NDArray[np.float64]:
    """Return a column of numbers, in degrees (``ra``, ``dec``) or arcsec (``radius``).

    Parameters
    ----------
    part : pyarrow.Table
        Part of a table; a field's ``unit`` metadata is obeyed.
    name, ours : str
        The column's name there, and ours.
    url : str
        The table, for messages.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN where the column is null.
    """
    values = part[name]
    kind = values.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DetectionsError(f"{url}: column '{ours}' holds {shown(kind)}; it must be numbers")
    numbers: NDArray[np.float64] = pc.fill_null(
        pc.cast(values, pa.float64(), safe=False), np.nan
    ).to_numpy()
    unit = (part.schema.field(name).metadata or {}).get(b"unit")
    quantity = "psf_fwhm" if ours.startswith(psf_column()) else ours
    return (
        numbers * _factor(unit, ours, _UNITS[quantity], url)
        if unit and quantity in _UNITS
        else numbers
    )


def _factor(text: bytes, ours: str, target: u.UnitBase, url: str) -> float:
    unit = shown(text.decode(errors="replace"))
    problem = DetectionsError(
        f"{url}: column '{ours}' is in {unit!r}, which is not an angle; give it in {target}"
    )
    if _LONG_INTEGER.search(unit):  # as a power, astropy would be at it for hours
        raise problem
    try:
        return float(u.Unit(unit).to(target))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise problem from error


def _listed(names: Sequence[str], most: int = 12) -> str:
    some = ", ".join(shown(name) for name in names[:most]) or "no columns"
    return f"{some}, and {len(names) - most} more" if len(names) > most else some


def shown(value: object) -> str:
    """Return what a table says, as far as a message shows it."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
