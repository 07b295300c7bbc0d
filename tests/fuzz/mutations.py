"""Small valid files, altered as a stranger would alter them: strategies of Hypothesis."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hypothesis import strategies as st

INTEGERS = (0, 1, 2, 7, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**64, -1, -2)
NUMBERS = (
    *(str(number) for number in INTEGERS),
    *("1e308", "-1e308", "1e-308", "nan", "inf", "1e999", "9" * 400, "0.0", "-0", "1_0", "0x10"),
)
WORDS = (
    *("", "T", "F", "'", '"', "\0", "\n", "&x;", "%00", "../../x", "http://127.0.0.1:9/x", "!!int"),
    *("null", "true", "[]", "{}", "NaN", "é" * 40, "A" * 5000, "{" * 300, "[" * 300, "<a>" * 100),
)
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_CARD = 80

Mutation = Callable[[st.DrawFn, bytes], bytes]


def _somewhere(draw: st.DrawFn, content: bytes) -> int:
    return draw(st.integers(0, max(len(content) - 1, 0)))


def flipped(draw: st.DrawFn, content: bytes) -> bytes:
    """Change a few bytes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        if changed:
            changed[_somewhere(draw, content)] = draw(st.integers(0, 255))
    return bytes(changed)


def with_integer(draw: st.DrawFn, content: bytes) -> bytes:
    """Write an integer that stands at a border over some bytes."""
    size, start = draw(st.sampled_from((1, 2, 4, 8))), _somewhere(draw, content)
    value = draw(st.sampled_from(INTEGERS)) % (1 << (8 * size))
    written = value.to_bytes(size, draw(st.sampled_from(("little", "big"))))
    return content[:start] + written + content[start + size :]


def cut(draw: st.DrawFn, content: bytes) -> bytes:
    """Leave something out, often all to the end."""
    start = _somewhere(draw, content)
    stop = draw(st.one_of(st.just(len(content)), st.integers(start, start + 200)))
    return content[:start] + content[stop:]


def repeated(draw: st.DrawFn, content: bytes) -> bytes:
    """Repeat a part."""
    start = _somewhere(draw, content)
    part = content[start : start + draw(st.integers(1, 160))]
    return content[:start] + part * draw(st.sampled_from((2, 3, 1000))) + content[start:]


def with_number(draw: st.DrawFn, content: bytes) -> bytes:
    """Write another number in the place of one."""
    found = list(_NUMBER.finditer(content))
    if not found:
        return content
    chosen = found[draw(st.integers(0, len(found) - 1))]
    number = draw(st.sampled_from(NUMBERS)).encode()
    return content[: chosen.start()] + number + content[chosen.end() :]


def with_word(draw: st.DrawFn, content: bytes) -> bytes:
    """Put a word in, or in the place of one."""
    start = _somewhere(draw, content)
    stop = start + draw(st.integers(0, 12))
    return content[:start] + draw(st.sampled_from(WORDS)).encode() + content[stop:]


def with_card(draw: st.DrawFn, content: bytes) -> bytes:
    """Write another value, or another keyword, into a card of a FITS header."""
    cards = [
        start
        for start in range(0, min(len(content), 72_000), _CARD)
        if content[start + 8 : start + 10] == b"= "
    ]
    if not cards:
        return content
    start = draw(st.sampled_from(cards))
    value = draw(st.sampled_from((*NUMBERS, *WORDS, "'RA---TAN-SIP'", "'DEC--TPV'", "(1, 2)")))
    card = content[start : start + 10] + value.encode("ascii", "replace")[:70].ljust(70)
    if draw(st.booleans()):
        other = draw(st.sampled_from(cards))
        card = content[other : other + 10] + card[10:]
    return content[:start] + card + content[start + _CARD :]


def with_tree(draw: st.DrawFn, content: bytes) -> bytes:
    """Change, drop or nest a member of a JSON document."""
    try:
        return json.dumps(_with_change(draw, json.loads(content))).encode()
    except (ValueError, RecursionError):  # no JSON, or too deep by earlier changes
        return content


def _with_change(draw: st.DrawFn, document: Any) -> Any:
    places = list(_places(document))
    if not places:
        return draw(_VALUES)
    parent, key = draw(st.sampled_from(places))
    if draw(st.booleans()):
        parent[key] = draw(_VALUES)
    elif isinstance(parent, dict):
        value = parent.pop(key)
        if draw(st.booleans()):
            parent[draw(st.sampled_from(WORDS))] = value
    else:
        parent[key] = [parent[key]] * draw(st.sampled_from((2, 500)))
    return document


_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        (None, True, False, "", "x" * 3000, [], {}, float("nan"), float("inf"), 1e308, -1e-308)
    ),
    st.sampled_from(INTEGERS),
    st.sampled_from(WORDS),
    st.just(10**400),
    st.integers(1, 400).map(lambda depth: json.loads("[" * depth + "]" * depth)),
)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    members: Iterable[tuple[Any, Any]] = ()
    if isinstance(document, dict):
        members = document.items()
    elif isinstance(document, list):
        members = enumerate(document)
    for key, value in members:
        yield document, key
        yield from _places(value)


BYTES: tuple[Mutation, ...] = (flipped, with_integer, cut, repeated)
TEXT: tuple[Mutation, ...] = (*BYTES, with_number, with_word)
FITS: tuple[Mutation, ...] = (with_card, with_card, *BYTES, with_number)
JSON: tuple[Mutation, ...] = (with_tree, with_tree, with_tree, *TEXT)


@st.composite
def altered(draw: st.DrawFn, seeds: tuple[bytes, ...], mutations: tuple[Mutation, ...]) -> bytes:
    """One of some files, with one to three alterations."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        content = draw(st.sampled_from(mutations))(draw, content)
    return content
