"""Positions as texts, in hours or degrees, minutes, seconds: ``10:45:03.6``, ``10h45m03.6s``, ``-5d23m28s``.

Which of the two a right ascension is in, letters say, or a unit; where neither does the user is asked: some
tables have degrees between colons, too.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deblend_batch.detections.columns import shown
from deblend_batch.detections.texts import NOTHING, trimmed
from deblend_batch.errors import DetectionsError
from deblend_batch.parquet.file import is_text

AXES = ("ra", "dec")

_FORM = (
    r"^(?P<sign>[+-]?)(?P<whole>\d{1,3})\s*(?P<mark>[:hd\s]|°)\s*(?P<minutes>\d{1,2})\s*[:m'\s]\s*"
    r"(?P<seconds>\d{1,2}(?:\.\d*)?)\s*[s\"]?$"
)
_HOURS = frozenset(
    {"hourangle", "hour", "h", "hr", "hms", "h:m:s", "hh:mm:ss", "h m s", "hh:mm:ss.s"}
)
_DEGREES = frozenset(
    {"deg", "degree", "degrees", "d", "dms", "d:m:s", "dd:mm:ss", "d m s", "dd:mm:ss.s"}
)


def may_hold(kind: pa.DataType) -> bool:
    """Tell whether a column of a type can be such texts; Arrow takes some for times of the day."""
    return is_text(kind) or pa.types.is_time(kind)


def degrees(
    values: pa.ChunkedArray, ours: str, unit: str | None, name: str, url: str
) -> NDArray[np.float64]:
    """Return degrees.

    Parameters
    ----------
    values : pyarrow.ChunkedArray
        Texts, or times.
    ours : {"ra", "dec"}
        Which axis.
    unit : str, optional
        What the table or the user says.
    name : str
        Of the column.
    url : str
        The table, for messages.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN where nothing stands.
    """
    texts = trimmed(values, name, url)
    texts = pc.if_else(pc.is_in(texts, pa.array(NOTHING)), pa.scalar(None, pa.string()), texts)
    found = pc.extract_regex(texts, _FORM)
    wrong = pc.and_(pc.is_valid(texts), pc.is_null(found))
    if pc.any(wrong).as_py():
        raise _no_position(texts.filter(wrong)[0].as_py(), ours, url)
    parts = {
        key: pc.struct_field(found, key) for key in ("sign", "whole", "mark", "minutes", "seconds")
    }
    whole, minutes, seconds = (_numbers(parts[key]) for key in ("whole", "minutes", "seconds"))
    beyond = (minutes > 60) | (seconds > 60)
    if beyond.any():
        raise _no_position(texts[int(beyond.argmax())].as_py(), ours, url)
    size = whole + minutes / 60 + seconds / 3600
    signed = np.where(np.asarray(pc.fill_null(pc.equal(parts["sign"], "-"), False)), -size, size)
    angle = signed * _per_unit(parts["mark"], ours, unit, name, url)
    return np.where(np.abs(angle) <= 90, angle, np.nan) if ours == "dec" else angle


def _numbers(texts: pa.ChunkedArray) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = pc.fill_null(pc.cast(texts, pa.float64()), np.nan).to_numpy()
    return numbers


def _per_unit(
    marks: pa.ChunkedArray, ours: str, unit: str | None, name: str, url: str
) -> NDArray[np.float64]:
    """Return the degrees of one unit of each text's first number."""
    if ours == "dec":
        return np.ones(len(marks))
    hours = np.asarray(pc.fill_null(pc.equal(marks, "h"), False))
    told = hours | np.asarray(pc.or_(pc.is_in(marks, pa.array(["d", "°"])), pc.is_null(marks)))
    said = (unit or "").strip("\"' ").lower()
    if said not in _HOURS | _DEGREES and not told.all():
        raise DetectionsError(
            f"{url}: column {shown(name)!r} (ra) holds texts such as hh:mm:ss or dd:mm:ss, and nothing says "
            f"which; say 'columns: {{ra: {{column: {shown(name)}, unit: hourangle}}}}', or unit: deg"
        )
    return np.where(hours | (~told & (said in _HOURS)), 15.0, 1.0)


def _no_position(text: object, ours: str, url: str) -> DetectionsError:
    return DetectionsError(
        f"{url}: column '{ours}' holds string ({shown(text)!r}); it must be numbers, in degrees, or texts "
        "such as 10h45m03.6s and -05d23m28s"
    )
