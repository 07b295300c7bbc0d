"""The tree of an ASDF file as nodes of YAML: looked into, never made into objects.

A tree may name other files: as JSON references, as arrays that lie elsewhere. A file with such a tree is
refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import BinaryIO

import yaml

from deblend_batch import yaml_text
from deblend_batch.errors import FieldError, TooLargeError
from deblend_batch.text import shown

MAGIC = b"#ASDF"

_EXTENT = yaml_text.Extent(n_bytes=1 << 24, nodes=200_000, depth=100)
_END = re.compile(rb"\r?\n\.\.\.[ \t]*(?:\r?\n|\Z)")
_READ = 1 << 16
_OVERLAP = 16
_ARRAY = re.compile(r"(?:tag:stsci\.(?:edu|org):asdf/)?core/ndarray-[\d.]+")
_REMEDY = "save it whole, in one file"


def is_asdf(head: bytes) -> bool:
    """Tell whether a file is ASDF by its first bytes."""
    return head.startswith(MAGIC)


def read_tree(file: BinaryIO, url: str) -> tuple[yaml.MappingNode, int]:
    """Read the text of a file.

    Returns
    -------
    tree : yaml.MappingNode
        Its top.
    end : int
        Where the text ends.
    """
    text = _text(file, url)
    try:
        node = yaml_text.compose(text, _EXTENT)
    except yaml_text.ExtentError as error:
        raise TooLargeError(f"{url}: its tree {error}, which no image's is") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FieldError(f"{url}: its tree is no YAML ({_first(error)}); fetch it again") from error
    if not isinstance(node, yaml.MappingNode):
        raise FieldError(f"{url}: has no tree; fetch it again")
    _check_whole(node, url)
    return node, len(text)


def at(node: yaml.Node | None, *keys: str) -> yaml.Node | None:
    """Return a part of a tree; None where there is none."""
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == key), None)
    return node


def text_at(node: yaml.Node | None, *keys: str) -> str:
    """Return a text of a tree, empty where there is none."""
    found = at(node, *keys)
    return found.value.strip() if isinstance(found, yaml.ScalarNode) else ""


def number_at(node: yaml.Node | None, *keys: str) -> float | None:
    """Return a finite number of a tree, of a quantity its value; None where there is none."""
    text = text_at(node, *keys) or text_at(node, *keys, "value")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def is_array(node: yaml.Node) -> bool:
    """Tell whether a node is an array."""
    return isinstance(node, yaml.MappingNode) and _ARRAY.fullmatch(node.tag) is not None


def walk(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield a node and all below it, each once."""
    known: set[int] = set()
    left = [node]
    while left:
        each = left.pop()
        if id(each) in known:
            continue
        known.add(id(each))
        yield each
        if isinstance(each, yaml.MappingNode):
            left += [part for pair in each.value for part in pair]
        elif isinstance(each, yaml.SequenceNode):
            left += each.value


def _text(file: BinaryIO, url: str) -> bytes:
    """Read up to the line that ends the tree."""
    file.seek(0)
    text = bytearray()
    while piece := file.read(_READ):
        start = max(0, len(text) - _OVERLAP)
        text += piece
        match = _END.search(text, start)
        if match:
            return bytes(text[: match.end()])
        if len(text) > _EXTENT.n_bytes:
            raise TooLargeError(
                f"{url}: its tree is larger than {_EXTENT.n_bytes:,} bytes, which no image's is"
            )
    raise FieldError(f"{url}: its tree has no end: truncated; fetch it again")


def _check_whole(tree: yaml.Node, url: str) -> None:
    """Refuse a tree that names other files."""
    for node in walk(tree):
        if not isinstance(node, yaml.MappingNode):
            continue
        if (reference := at(node, "$ref")) is not None:
            raise FieldError(
                f"{url}: refers to {shown(reference.value)}, and references are not followed; {_REMEDY}"
            )
        elsewhere = is_array(node) and not (text_at(node, "source") or "0").isdecimal()
        if elsewhere or "externalarray" in node.tag:
            raise FieldError(
                f"{url}: has an array in another file, and references are not followed; {_REMEDY}"
            )


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
