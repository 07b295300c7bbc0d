"""The values of a table's columns: ids, and numbers in our units; what stands for "unknown" is NaN."""

from __future__ import annotations

import hashlib
import re
import warnings

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deblend_batch import unit_text
from deblend_batch.detections import sexagesimal
from deblend_batch.detections.columns import PSF_FWHM, Source, shown, unit_of_angle, unit_of_size
from deblend_batch.detections.texts import as_numbers, trimmed
from deblend_batch.errors import DetectionsError
from deblend_batch.parquet.file import is_text

AB_ZERO_JANSKY = 3631.0
"""Flux density of magnitude zero, by definition."""

_LONG_INTEGER = re.compile(r"(?<![.\d])\d{4}")
_ANGLES = {"ra": u.deg, "dec": u.deg, "radius": u.arcsec}
_FAINTEST, _BRIGHTEST = 50.0, -30.0
"""No magnitude of a source, in any system: catalogues write 99, 999, -99 or -999 where there is none, and 0,
which to all digits is nobody's."""
_LOOKED_AT, _MOST_SENTINELS = 10_000, 8
_MAGNITUDE_SYSTEMS = frozenset({"AB", "ST"})
"""What tables write as the unit of a magnitude, though to astropy it is a flux."""
_FLUX = re.compile(
    r"flux|counts?$|count_?rate|magg(y|ies)|njy|ujy|(^|_)(adu|dn|f_?nu)$|(aperture|segment|source)_sum",
    re.IGNORECASE,
)
_PLURAL = re.compile(r"maggies\b", re.IGNORECASE)
_JOINT = "-"
_ANGLE_WORDS = {
    "px": "pix", "arcseconds": "arcsec", "asec": "arcsec", "arcminutes": "arcmin", "hours": "h", "hrs": "h",
}  # fmt: skip


def ids(
    part: pa.Table, source: Source, ours: str, url: str
) -> tuple[NDArray[np.int64], pa.Array | None]:
    """Return a column of ids.

    Parameters
    ----------
    part : pyarrow.Table
        Part of a table.
    source : Source
        The columns that make an id.
    ours : str
        Our name of it.
    url : str
        The table, for messages.

    Returns
    -------
    ids : ndarray of int64, shape (n,)
        Integers as they stand; of texts, and of what is made of several columns, a hash of 63 bits.
    names : pyarrow.Array of string, or None
        What was hashed.

    Raises
    ------
    DetectionsError
        If an id is neither integer nor text, is missing, or does not fit int64.
    """
    columns = [_plain(part[name]) for name in source.names]
    if not source.composed and not is_text(columns[0].type):
        return _integers(columns[0], ours, url), None
    texts = [_text(column, ours, url) for column in columns]
    names = pc.binary_join_element_wise(*texts, _JOINT) if len(texts) > 1 else texts[0]
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    _check_given(pc.or_kleene(pc.is_null(names), pc.equal(names, "")), ours, url)
    return hashed(names), names


def hashed(names: pa.Array) -> NDArray[np.int64]:
    """Return a stable integer for each text: 63 bits of its BLAKE2b digest.

    Parameters
    ----------
    names : pyarrow.Array of string
        Texts without nulls.
    """
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names.to_pylist())
    bits = np.frombuffer(b"".join(digests), "<u8") >> np.uint64(1)
    return bits.astype(np.int64)


def floats(
    part: pa.Table, source: Source, ours: str, url: str, pixel_arcsec: float | None = None
) -> NDArray[np.float64]:
    """Return a column of numbers: degrees (positions), arcsec (radii and widths) or AB magnitudes (``mag``).

    Parameters
    ----------
    part : pyarrow.Table
        Part of a table; a field's ``unit`` metadata is obeyed.
    source : Source
        The column.
    ours : str
        Our name of it.
    url : str
        The table, for messages.
    pixel_arcsec : float, optional
        Edge of a pixel, for radii in pixels.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN where it is null, or says that nothing is known.
    """
    values = _plain(part[source.name])
    metadata = part.schema.field(source.name).metadata or {}
    unit = source.unit or metadata.get(b"unit", b"").decode(errors="replace") or None
    if unit is None and ours in sexagesimal.AXES:
        unit = unit_of_angle(source.name)
    values, wrong = _from_texts(values, ours, url)
    if wrong is not None and ours in sexagesimal.AXES:
        return sexagesimal.degrees(values, ours, unit, source.name, url)
    kind = values.type
    if wrong is not None or not (
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    ):
        raise DetectionsError(
            f"{url}: column '{ours}' holds {_shown_kind(values, wrong)}; {_wanted(ours)}"
        )
    numbers: NDArray[np.float64] = pc.fill_null(
        pc.cast(values, pa.float64(), safe=False), np.nan
    ).to_numpy()
    if ours == "mag":
        return _magnitudes(numbers, source, unit, url)
    if ours == "radius" or ours.startswith(PSF_FWHM):
        factor = _size_factor(source, ours, unit, url, pixel_arcsec)
        return np.where(numbers > 0, numbers * factor, np.nan)
    if ours in _ANGLES and unit:
        numbers = numbers * _angle_factor(unit, ours, url)
    if ours == "dec":
        return np.where(np.abs(numbers) <= 90, numbers, np.nan)
    return numbers


def _from_texts(values: pa.ChunkedArray, ours: str, url: str) -> tuple[pa.ChunkedArray, str | None]:
    """Return numbers of texts that are numbers all; else the texts, and the first that is none."""
    if not is_text(values.type):
        return values, "" if ours in sexagesimal.AXES and sexagesimal.may_hold(
            values.type
        ) else None
    numbers, wrong = as_numbers(trimmed(values, ours, url))
    return (values, wrong) if wrong is not None else (numbers, None)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as integers, floats or strings, if it can be had so exactly."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = pc.cast(column, kind.value_type), kind.value_type
    if pa.types.is_decimal(kind):
        try:
            if kind.scale <= 0:
                return pc.cast(column, pa.int64())
            return pc.cast(pc.cast(column, pa.string()), pa.float64())  # rounded once, as a text is
        except pa.ArrowException:  # larger than they can hold
            return column
    return column


def _integers(values: pa.ChunkedArray, ours: str, url: str) -> NDArray[np.int64]:
    if len(values) == 0 and pa.types.is_null(values.type):  # as of a text without rows
        return np.empty(0, np.int64)
    if pa.types.is_floating(values.type):
        values = _whole_numbers(values, ours, url)
    if not pa.types.is_integer(values.type):
        more = (
            f", which 'columns: {{{ours}: [NAME]}}' makes of it" if _is_whole(values.type) else ""
        )
        raise DetectionsError(
            f"{url}: column '{ours}' holds {shown(values.type)}; ids must be integer (int64) or text{more}"
        )
    _check_given(pc.is_null(values), ours, url)
    try:
        found: NDArray[np.int64] = pc.cast(values, pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise DetectionsError(
            f"{url}: column '{ours}' holds values of 2**63 or more; they must fit int64, or be made text "
            f"with 'columns: {{{ours}: [NAME]}}'"
        ) from error
    return found


def _whole_numbers(values: pa.ChunkedArray, ours: str, url: str) -> pa.ChunkedArray:
    """Return integers of floats that are integers, as programs write where a column has had gaps."""
    numbers = pc.cast(values, pa.float64())
    missing = pc.or_kleene(pc.is_null(numbers), pc.is_nan(numbers))
    _check_given(pc.fill_null(missing, True), ours, url)  # a value, no switch
    found = numbers.to_numpy()
    if not np.all(found == np.floor(found)):
        return values
    digits = {16: 11, 32: 24, 64: 53}[values.type.bit_width]
    if np.any(np.abs(found) >= 2.0**digits):
        raise DetectionsError(
            f"{url}: column '{ours}' holds {shown(values.type)} of 2**{digits} or more, where ids that "
            "differ may be one; write ids as integers"
        )
    return pc.cast(numbers, pa.int64())


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind) and kind.scale <= 0)


def _text(values: pa.ChunkedArray, ours: str, url: str) -> pa.ChunkedArray:
    kind = values.type
    if _is_whole(kind):  # of more digits than int64 has
        return pc.cast(values, pa.string())
    if not (pa.types.is_integer(kind) or pa.types.is_null(kind) or is_text(kind)):
        raise DetectionsError(
            f"{url}: column '{ours}' holds {shown(kind)}; ids are made of integers and texts"
        )
    return trimmed(values, ours, url)


def _check_given(missing: pa.Array, ours: str, url: str) -> None:
    n = pc.sum(missing).as_py() or 0
    if n:
        raise DetectionsError(f"{url}: column '{ours}' is empty in {n} rows; give every row one")


def _shown_kind(values: pa.ChunkedArray, wrong: str | None) -> str:
    """Return what a column holds, with the first of its texts that is no number."""
    if wrong:
        return f"{shown(values.type)} ({shown(wrong)!r})"
    if not is_text(values.type) and not pa.types.is_temporal(values.type):
        return shown(values.type)
    first = next((value for value in values.to_pylist() if value is not None), "")
    first = first.decode(errors="replace") if isinstance(first, bytes) else first
    return f"{shown(values.type)} ({shown(first)!r})"


def _wanted(ours: str) -> str:
    return "it must be numbers" + (", in degrees" if ours in {"ra", "dec"} else "")


def _magnitudes(
    numbers: NDArray[np.float64], source: Source, unit: str | None, url: str
) -> NDArray[np.float64]:
    zero = source.zero_point
    if zero is None and unit and (source.is_flux or unit not in _MAGNITUDE_SYSTEMS):
        zero = _flux_zero_point(unit)
    if zero is None and source.is_flux:
        says = f"is in {shown(unit)!r}, which is no flux density" if unit else "states no unit"
        raise DetectionsError(
            f"{url}: the flux {shown(source.name)!r} {says}; give columns.mag.unit, such as nJy, or "
            "columns.mag.zero_point, the AB magnitude of one unit"
        )
    if zero is None and unit and _is_another_quantity(unit):
        raise DetectionsError(
            f"{url}: column {shown(source.name)!r} is in {shown(unit)!r}, which is neither a magnitude nor a "
            f"flux density; if it is a flux say so: 'columns: {{mag: {{flux: {shown(source.name)}, "
            "zero_point: 25}}', with the AB magnitude of one unit"
        )
    if zero is None and _seems_flux(source.name):
        raise DetectionsError(
            f"{url}: column {shown(source.name)!r} seems to be a flux, not a magnitude; say so: 'columns: "
            f"{{mag: {{flux: {shown(source.name)}, unit: nJy}}}}', with its own unit"
        )
    if zero is not None:
        numbers = zero - 2.5 * np.log10(np.where(numbers > 0, numbers, np.nan))
    known = (numbers > _BRIGHTEST) & (numbers < _FAINTEST) & ((numbers != 0) | (zero is not None))
    _check_magnitudes(numbers[np.isfinite(numbers)], numbers[known], source.name, url)
    return np.where(known, numbers, np.nan)


def _check_magnitudes(
    finite: NDArray[np.float64], known: NDArray[np.float64], name: str, url: str
) -> None:
    """Refuse a column of which most numbers are no magnitudes, and too various to stand for "unknown"."""
    rest = finite[(finite <= _BRIGHTEST) | (finite >= _FAINTEST)]
    if rest.size > known.size and len(np.unique(rest[:_LOOKED_AT])) > _MOST_SENTINELS:
        raise DetectionsError(
            f"{url}: column {shown(name)!r} holds {rest.min():.4g} to {rest.max():.4g}, which are no "
            f"magnitudes; if it is a flux say so: 'columns: {{mag: {{flux: {shown(name)}, unit: nJy}}}}', "
            "with its own unit"
        )


def _seems_flux(name: str) -> bool:
    return bool(_FLUX.search(name)) and "mag" not in _PLURAL.sub("", name.lower())


def _flux_zero_point(text: str) -> float | None:
    """Return the AB magnitude of one unit of a flux density; None for what is no such unit."""
    unit = unit_text.parsed(text)
    if unit is None or unit == u.mag or isinstance(unit, u.function.FunctionUnitBase):
        return None
    try:
        per_unit = unit.to(u.Jy, equivalencies=u.zero_point_flux(AB_ZERO_JANSKY * u.Jy))
    except u.UnitConversionError:
        return None
    return float(-2.5 * np.log10(per_unit / AB_ZERO_JANSKY))


def _is_another_quantity(text: str) -> bool:
    """Tell whether a unit is none of a magnitude: counts, a rate, a surface brightness."""
    unit = unit_text.parsed(text)
    if unit is None or isinstance(unit, u.MagUnit) or unit == u.dimensionless_unscaled:
        return False
    if text in _MAGNITUDE_SYSTEMS:
        return False
    systems = [base for base in unit.bases if base != u.mag]  # of "AB mag"
    return u.mag not in unit.bases or not all(base.is_equivalent(u.Jy) for base in systems)


def _size_factor(
    source: Source, ours: str, unit: str | None, url: str, pixel_arcsec: float | None
) -> float:
    unit = unit or unit_of_size(source.name)
    if unit is None:
        return 1.0
    if _parsed_angle(unit) == u.pixel:
        if pixel_arcsec is None:
            raise DetectionsError(f"{url}: column '{ours}' is in pixels; give it in arcsec")
        return pixel_arcsec
    return _angle_factor(unit, ours, url)


def _angle_factor(text: str, ours: str, url: str) -> float:
    target, unit = _ANGLES.get(ours, u.arcsec), _parsed_angle(text)
    if unit is not None:
        if ours == "ra" and unit == u.hour:  # of right ascension, not of time
            unit = u.hourangle
        try:
            return float(unit.to(target))
        except (ValueError, TypeError, ArithmeticError):
            pass
    raise DetectionsError(
        f"{url}: column '{ours}' is in {shown(text)!r}, which is not an angle; give it in {target}"
    )


def _parsed_angle(text: str) -> u.UnitBase | None:
    """Read an angle, or pixels, in any case and number: ``DEG``, ``degrees``, ``PIXELS``."""
    small = text.strip().lower()
    spellings = (text, small, small.removesuffix("s"), _ANGLE_WORDS.get(small, ""))
    return next((unit for each in spellings if each and (unit := _parsed(each)) is not None), None)


def _parsed(text: str) -> u.UnitBase | None:
    if _LONG_INTEGER.search(text):  # as a power, astropy would be at it for hours
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return u.Unit(text)
        except (ValueError, TypeError, ArithmeticError):
            return None
