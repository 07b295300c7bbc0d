"""Thrift's compact protocol, as far as Parquet's footers and page headers need it read beforehand."""

from __future__ import annotations

from collections.abc import Iterator

_MAX_DEPTH = 32
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, STRUCT = range(1, 13)
LIST = _LIST
_INTEGERS = frozenset({_I16, _I32, _I64})
_SIZES = {_BYTE: 1, _DOUBLE: 8}
_LONG_LIST = 15
_MAX_SHIFT = 63

Fields = dict[int, "int | Fields"]


class Compact:
    """A place in a message; each method reads on from it.

    Parameters
    ----------
    data : bytes
        What is there of the message. Where it ends too early, :class:`IndexError` is raised.
    at : int
        Where to begin.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def struct(self) -> Iterator[tuple[int, int]]:
        """Yield number and kind of each field; whoever iterates must read or skip its value."""
        number = 0
        while head := self._byte():
            step = head >> 4
            number = number + step if step else _signed(self._varint())
            yield number, head & 15

    def list_head(self) -> tuple[int, int]:
        """Read the number and the kind of a list's elements."""
        head = self._byte()
        size = head >> 4
        return (self._varint() if size == _LONG_LIST else size), head & 15

    def fields(self, depth: int = 0) -> Fields:
        """Read a struct: its integers and the structs in it; what else it has is skipped."""
        _check_depth(depth)
        found: Fields = {}
        for number, kind in self.struct():
            if kind in _INTEGERS:
                found[number] = _signed(self._varint())
            elif kind == STRUCT:
                found[number] = self.fields(depth + 1)
            else:
                self.skip(kind, depth)
        return found

    def skip(self, kind: int, depth: int = 0) -> None:
        """Go past a field's value."""
        _check_depth(depth)
        if kind in _INTEGERS:
            self._varint()
        elif kind in _SIZES:
            self._pass(_SIZES[kind])
        elif kind == _BINARY:
            self._pass(self._varint())
        elif kind in {_LIST, _SET}:
            size, of = self.list_head()
            self._skip_elements(size, [of], depth)
        elif kind == _MAP:
            size = self._varint()
            both = self._byte() if size else 0
            self._skip_elements(size, [both >> 4, both & 15], depth)
        elif kind == STRUCT:
            for _, inner in self.struct():
                self.skip(inner, depth + 1)
        elif kind not in {_TRUE, _FALSE}:
            raise ValueError(f"a field of unknown kind {kind}")

    def _skip_elements(self, size: int, kinds: list[int], depth: int) -> None:
        for _ in range(size):
            for kind in kinds:
                if kind in {_TRUE, _FALSE}:  # a byte each, where they are no fields
                    self._pass(1)
                else:
                    self.skip(kind, depth + 1)

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _pass(self, size: int) -> None:
        if self.at + size > len(self._data):
            raise IndexError("the message ends too early")
        self.at += size

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > _MAX_SHIFT:
                raise ValueError("an integer of more than 64 bits")


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"structures nest deeper than {_MAX_DEPTH}")
