"""JSON that anyone may have written, read into the type that it must have: the one reader of records."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

T = TypeVar("T")
V = TypeVar("V")

_MAX_DEPTH = 8
_SHOWN = 100
_INT64 = 1 << 63


def _check_moment(text: str) -> str:
    """Refuse what is no time, or one that means another moment elsewhere."""
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone")
    return text


def check_plain(values: V) -> V:
    """Refuse what no output of ours holds: depths that cannot be shown, numbers that are none elsewhere."""
    _check_value(values, 0)
    return values


def _check_value(value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, int | float) and not abs(value) < _INT64:
        raise ValueError("holds a number that is too large")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_value(inner, depth + 1)


Id = Annotated[int, Field(strict=True, ge=-_INT64, lt=_INT64)]
"""An int64."""
Number = Annotated[int, Field(strict=True, ge=0, lt=_INT64)]
"""How many, or how large."""
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e12)]
Word = Annotated[str, Field(max_length=1000)]
"""A name, a digest, a version."""
Line = Annotated[str, Field(max_length=100_000)]
"""What was said of a failure."""
Moment = Annotated[str, Field(max_length=100), AfterValidator(_check_moment)]
"""A time with its zone, ISO 8601."""
Values = Annotated[dict[str, Any], AfterValidator(check_plain)]
"""Anything that JSON holds, as deep as settings are."""


def loads(content: bytes, *, nan: bool = False) -> Any:
    """Parse JSON.

    Parameters
    ----------
    content : bytes
        UTF-8.
    nan : bool
        Whether a number may be NaN or infinite, as Python writes it.
    """
    try:
        constant = float if nan else _refuse
        return json.loads(content.decode(), object_pairs_hook=_once, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def typed(kind: TypeAdapter[T], value: object) -> T:
    """Return a value as the type that it must have."""
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:_SHOWN]
        words = first["msg"].removeprefix("Value error, ")[:_SHOWN]
        raise ValueError(f"{where}: {words}" if where else words) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")
