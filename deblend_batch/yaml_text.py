"""YAML from strangers: no code, no key twice; size, depth and what aliases stand for are bounded (pure)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from deblend_batch.text import shown

MAX_BYTES = 1 << 20
"""Size of a file of settings, bytes."""
_MAX_SCALAR = 10_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of C, where PyYAML was built with it


@dataclass(frozen=True)
class Extent:
    """How large a document may be.

    Parameters
    ----------
    n_bytes : int
        Of its text.
    nodes : int
        Values, aliases followed.
    depth : int
        Levels of nesting.
    """

    n_bytes: int
    nodes: int
    depth: int


_SETTINGS = Extent(MAX_BYTES, 100_000, 32)


class RepeatedKeyError(ValueError):
    """A mapping with a key that is given twice, of which a library would take the last without a word.

    Parameters
    ----------
    key : str
        The key.
    lines : tuple of int
        Where it stands, counted from 1.
    """

    def __init__(self, key: str, lines: tuple[int, int]) -> None:
        super().__init__(f"key {shown(key)} is given twice, in lines {lines[0]} and {lines[1]}")


class ExtentError(ValueError):
    """YAML that is valid, and larger than settings are; the message ends a sentence that names the file."""


def parse(content: bytes) -> Any:
    """Parse one YAML document.

    Parameters
    ----------
    content : bytes
        UTF-8.
    """
    with _checked(content) as (loader, node):
        return None if node is None else loader.construct_document(node)


def check(content: bytes) -> None:
    """Refuse a YAML document that :func:`parse` would refuse; for those that a library makes objects of."""
    with _checked(content):
        pass


def records(content: bytes, key: str) -> list[dict[str, str]]:
    """Return the texts in a list of mappings, whatever tags stand elsewhere in the document.

    Parameters
    ----------
    content : bytes
        UTF-8.
    key : str
        Where the list stands, at the top.
    """
    with _checked(content) as (_, node):
        top = node.value if isinstance(node, yaml.MappingNode) else []
        lists = [value for name, value in top if name.value == key]
        rows = lists[0].value if lists and isinstance(lists[0], yaml.SequenceNode) else []
        return [
            {
                name.value: value.value
                for name, value in row.value
                if isinstance(name, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
            }
            for row in rows
            if isinstance(row, yaml.MappingNode)
        ]


def compose(content: bytes, extent: Extent) -> yaml.Node | None:
    """Return the nodes of a document with tags of any kind; nothing is made of them.

    Parameters
    ----------
    content : bytes
        UTF-8.
    extent : Extent
        Bounds; that of the text as it stands is known before a node is made.
    """
    if len(content) > extent.n_bytes:
        raise ExtentError(f"is larger than {extent.n_bytes:,} bytes")
    nodes = depth = 0
    for event in yaml.parse(content, Loader=_LOADER):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if nodes > extent.nodes or depth > extent.depth:
            raise ExtentError(
                f"holds more than {extent.nodes:,} values, or more than {extent.depth} levels of them"
            )
    node = yaml.compose(content, Loader=_LOADER)
    if node is not None:
        _count(node, {}, 0, extent)
    return node


@contextlib.contextmanager
def _checked(content: bytes) -> Iterator[tuple[yaml.SafeLoader, yaml.Node | None]]:
    """Give a loader and the root of a document, once its extent is known to be that of settings."""
    if len(content) > MAX_BYTES:
        raise ExtentError(f"is larger than {MAX_BYTES:,} bytes")
    loader = yaml.SafeLoader(content.decode("utf-8-sig"))
    try:
        node = loader.get_single_node()
        if node is not None:
            # Before anything is made of it: merge keys copy what they stand for.
            _count(node, {}, 0, _SETTINGS)
        yield loader, node
    except RecursionError as error:
        raise ExtentError(f"is nested deeper than {_SETTINGS.depth} levels") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], depth: int, extent: Extent) -> int:
    """Return how many values a node stands for, aliases followed; each node is looked into once."""
    if depth > extent.depth:
        raise ExtentError(
            f"is nested deeper than {extent.depth} levels, or an alias is inside its anchor"
        )
    if id(node) not in known:
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        total = 1 + sum(_count(inner, known, depth + 1, extent) for inner in _inside(node))
        if total > extent.nodes:
            raise ExtentError(f"holds more than {extent.nodes:,} values, its aliases followed")
        known[id(node)] = total
    return known[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuse a key that is given twice; what ``<<`` merges may be given again, that is its purpose."""
    known: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in known:
            raise RepeatedKeyError(key.value, (known[name], line))
        known[name] = line


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif len(node.value) > _MAX_SCALAR:
        raise ExtentError(f"has a value of more than {_MAX_SCALAR:,} characters")
