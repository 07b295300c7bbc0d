"""Rows of a table that a condition selects, such as ``brick_primary and type != "DUP"``.

A condition is an expression of Python's syntax over the table's columns. It is no code: comparisons, ``and``,
``or``, ``not``, ``in``, arithmetic and the bits ``&``, ``|`` are computed by Arrow; nothing else is known.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deblend_batch.detections.columns import shown
from deblend_batch.detections.texts import trimmed
from deblend_batch.errors import ConfigError
from deblend_batch.parquet.file import is_text

MAX_LENGTH = 2000
"""Characters of a condition."""

_QUOTED = re.compile(r"`([^`]+)`")
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_COMPUTE: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: pc.add_checked,
    ast.Sub: pc.subtract_checked,
    ast.Mult: pc.multiply_checked,
    ast.Div: lambda one, other: pc.divide(pc.cast(one, pa.float64()), other),
    ast.BitAnd: lambda one, other: _bits(one, other, pc.and_kleene, pc.bit_wise_and),
    ast.BitOr: lambda one, other: _bits(one, other, pc.or_kleene, pc.bit_wise_or),
}
_EXAMPLE = "write such as 'brick_primary == 1 and mag < 24', or `flags & 4 == 0`"


class Condition:
    """A condition, understood.

    Parameters
    ----------
    text : str
        As the user wrote it; a column whose name is no word stands between backticks.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        quoted: list[str] = []

        def stand_in(match: re.Match[str]) -> str:
            quoted.append(match[1])
            return f"__{len(quoted) - 1}__"

        if len(text) > MAX_LENGTH:
            raise self._error(f"has more than {MAX_LENGTH:,} characters")
        try:
            self._tree = ast.parse(_QUOTED.sub(stand_in, text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            hint = "; compare with '=='" if re.search(r"[^=<>!]=[^=]", text) else ""
            raise self._error(f"is no condition{hint}") from error
        self._names = {f"__{number}__": name for number, name in enumerate(quoted)}
        self.columns = tuple(
            dict.fromkeys(
                self._names.get(node.id, node.id)
                for node in ast.walk(self._tree)
                if isinstance(node, ast.Name)
            )
        )
        """The columns that it looks at."""
        if not self.columns:
            raise self._error("looks at no column")

    def rows(self, part: pa.Table) -> NDArray[np.bool_]:
        """Tell which rows it selects; where a value is missing that decides, none.

        Parameters
        ----------
        part : pyarrow.Table
            With the columns of the condition.
        """
        try:
            found = self._value(self._tree, part)
        except pa.ArrowException as error:
            raise self._error(f"cannot be computed ({str(error).splitlines()[0][:120]})") from error
        if isinstance(found, pa.Scalar):
            raise self._error("is the same for every row")
        if len(part) == 0:
            return np.empty(0, np.bool_)
        if not pa.types.is_boolean(found.type):
            raise self._error(f"gives {shown(found.type)}, not true or false")
        return np.asarray(pc.fill_null(found, False).to_numpy(), np.bool_)

    def _value(self, node: ast.expr, part: pa.Table) -> Any:
        """Compute a node: a column, or a scalar."""
        if isinstance(node, ast.Name):
            name = self._names.get(node.id, node.id)
            return _plain(part[name], name)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
            return pa.scalar(node.value)
        if isinstance(node, ast.BoolOp):
            combine = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return reduce(combine, [self._value(each, part) for each in node.values])
        if isinstance(node, ast.UnaryOp):
            inner = self._value(node.operand, part)
            if isinstance(node.op, ast.Not | ast.Invert):
                return pc.invert(inner)
            return pc.negate(inner) if isinstance(node.op, ast.USub) else inner
        if isinstance(node, ast.BinOp) and type(node.op) in _COMPUTE:
            compute = _COMPUTE[type(node.op)]
            return compute(self._value(node.left, part), self._value(node.right, part))
        if isinstance(node, ast.Compare):
            return self._comparison(node, part)
        raise self._error(f"has {shown(ast.unparse(node))!r}, which is not known")

    def _comparison(self, node: ast.Compare, part: pa.Table) -> Any:
        sides = [node.left, *node.comparators]
        between = [each.op for each in sides[1:-1] if isinstance(each, ast.BinOp)]
        if any(isinstance(each, ast.BitAnd | ast.BitOr) for each in between):
            # Bits bind closer than comparisons: 'a == 0 & b > 3' is 'a == (0 & b) > 3', which nobody means.
            raise self._error("has & or | between comparisons; write 'and' or 'or'")
        found = [
            self._compare(operator, one, other, part)
            for operator, one, other in zip(node.ops, sides, sides[1:], strict=False)
        ]
        return reduce(pc.and_kleene, found)

    def _compare(self, operator: ast.cmpop, one: ast.expr, other: ast.expr, part: pa.Table) -> Any:
        left = self._value(one, part)
        if isinstance(operator, ast.In | ast.NotIn):
            if not isinstance(other, ast.List | ast.Tuple | ast.Set) or not other.elts:
                raise self._error("has 'in' without a list")
            each = [pc.equal(*_alike(left, self._value(value, part))) for value in other.elts]
            found = reduce(pc.or_kleene, each)
            return pc.invert(found) if isinstance(operator, ast.NotIn) else found
        if type(operator) not in _COMPARE:
            raise self._error("compares in a way that is not known")
        return _COMPARE[type(operator)](*_alike(left, self._value(other, part)))

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f"where: {shown(self._text)!r} {what}; {_EXAMPLE}")


def _plain(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a column without what only its store knows of it: dictionaries, padding, decimals, NaN."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if is_text(column.type):
        return trimmed(column, name, "where")
    if pa.types.is_decimal(column.type):
        return pc.cast(column, pa.float64())
    if pa.types.is_floating(column.type):  # NaN is unknown, and no number is not equal to it
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def _alike(one: Any, other: Any) -> tuple[Any, Any]:
    """Return two sides of a comparison, of which one is true or false, and the other 1 or 0."""
    if pa.types.is_boolean(one.type) and pa.types.is_integer(other.type):
        return pc.cast(one, pa.int64()), other
    if pa.types.is_boolean(other.type) and pa.types.is_integer(one.type):
        return one, pc.cast(other, pa.int64())
    return one, other


def _bits(one: Any, other: Any, of_truths: Any, of_integers: Any) -> Any:
    return (of_truths if pa.types.is_boolean(one.type) else of_integers)(one, other)
