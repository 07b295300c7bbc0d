"""An array of an ASDF file: what the tree says of it, and its pixels by windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from deblend_batch.errors import FieldError, TooLargeError
from deblend_batch.ingest.files.asdf import tree
from deblend_batch.ingest.files.asdf.blocks import Blocks, OpenBlock
from deblend_batch.ingest.files.hdus import MAX_PX
from deblend_batch.text import shown

_TYPES = {
    **{
        f"{kind}{bits}": f"{kind[0]}{bits // 8}"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
    **{f"float{bits}": f"f{bits // 8}" for bits in (16, 32, 64)},
    "bool8": "u1",
}
_MOST_AXES = 8


@dataclass(frozen=True)
class Array:
    """An array that lies in a block, in C's order.

    Parameters
    ----------
    name : str
        Its path in the tree.
    block : int
        Number of its block.
    offset : int
        Where it begins there.
    shape : tuple of int
        Its axes.
    dtype : numpy.dtype
        Of the file, byte order included.
    unit : str
        Of a quantity; empty where the tree tells none.
    """

    name: str
    block: int
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    unit: str = ""

    @classmethod
    def of(cls, name: str, node: yaml.Node, unit: str, where: str) -> Array:
        """Understand what a tree says of an array."""
        kind = tree.text_at(node, "datatype")
        if tree.at(node, "data") is not None:
            raise FieldError(
                f"{where}: is written into the tree, as no image is; save it as a block"
            )
        if kind not in _TYPES or tree.at(node, "strides") is not None:
            raise FieldError(f"{where}: is no plain array of numbers; save it as one")
        order = {"little": "<", "big": ">"}.get(tree.text_at(node, "byteorder"), "")
        if not order:
            raise FieldError(f"{where}: has no byte order; save it again")
        shape = _shape(tree.at(node, "shape"))
        source, offset = (tree.text_at(node, key) or "0" for key in ("source", "offset"))
        if shape is None or not offset.isdecimal() or len(offset + source) > 20:
            raise FieldError(f"{where}: has no shape, or an offset that is none; save it again")
        array = cls(name, int(source), int(offset), shape, np.dtype(order + _TYPES[kind]), unit)
        if math.prod(shape) > MAX_PX:
            raise TooLargeError(
                f"{where}: announces {math.prod(shape):,} pixels, and a field has {MAX_PX:,} at most; the "
                "file is damaged, or the image is too large: divide it"
            )
        return array

    @property
    def is_image(self) -> bool:
        """Whether it is 2-d, or a stack of planes of bits."""
        if len(self.shape) < 2 or 0 in self.shape:
            return False
        return math.prod(self.shape[:-2]) == 1 or self.dtype.kind == "u"

    @property
    def n_bytes(self) -> int:
        """Bytes of its block up to its end."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def open(self, blocks: Blocks) -> OpenArray:
        """Open its block."""
        return OpenArray(self, blocks.open(self.block, self.n_bytes))


@dataclass(frozen=True)
class OpenArray:
    """An array whose block is open."""

    array: Array
    content: OpenBlock

    def window(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a window; of a stack of bits any of its planes."""
        height, width = self.array.shape[-2:]
        found: NDArray[Any] | None = None
        for plane in range(math.prod(self.array.shape[:-2])):
            part = self._plane(plane * height, width, rows, columns)
            found = part if found is None else found | part
        return np.empty((0, 0), self.array.dtype) if found is None else found

    def whole(self) -> NDArray[Any]:
        """Read it all, flat."""
        return self._run(0, math.prod(self.array.shape))

    def _plane(self, first: int, width: int, rows: slice, columns: slice) -> NDArray[Any]:
        if columns.stop - columns.start == width:
            run = self._run((first + rows.start) * width, (rows.stop - rows.start) * width)
            return run.reshape(-1, width)
        window = np.empty((rows.stop - rows.start, columns.stop - columns.start), self.array.dtype)
        for number, row in enumerate(range(rows.start, rows.stop)):
            window[number] = self._run((first + row) * width + columns.start, window.shape[1])
        return window

    def _run(self, first: int, count: int) -> NDArray[Any]:
        size = self.array.dtype.itemsize
        self.content.file.seek(self.content.start + self.array.offset + first * size)
        content = self.content.file.read(count * size)
        if len(content) < count * size:
            raise FieldError(f"array {self.array.name}: truncated; fetch the file again")
        return np.frombuffer(content, self.array.dtype)


def arrays_of(
    top: yaml.Node | None, where: str, path: str = ""
) -> dict[str, tuple[yaml.Node, str]]:
    """Return the arrays of a mapping, and their units, by their paths; mappings below are looked into."""
    found: dict[str, tuple[yaml.Node, str]] = {}
    if not isinstance(top, yaml.MappingNode):
        return found
    for key, node in top.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name = path + key.value
        inner = tree.at(node, "value")
        if tree.is_array(node):
            found[name] = node, ""
        elif inner is not None and tree.is_array(inner):
            found[name] = inner, tree.text_at(node, "unit")
        elif name.count(".") < _MOST_AXES:
            found |= arrays_of(node, where, f"{name}.")
    return found


def shape_of(node: yaml.Node) -> str:
    """Return an array's shape, for messages."""
    return shown(_shape(tree.at(node, "shape")))


def _shape(node: yaml.Node | None) -> tuple[int, ...] | None:
    if not isinstance(node, yaml.SequenceNode) or not 0 < len(node.value) <= _MOST_AXES:
        return None
    texts = [each.value for each in node.value]
    if not all(isinstance(text, str) and text.isdecimal() and len(text) < 19 for text in texts):
        return None
    return tuple(int(text) for text in texts)
