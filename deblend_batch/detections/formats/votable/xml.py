"""XML from strangers, streamed: no reference is followed, nothing is declared, nothing grows without end.

Whatever the encoding, the quotes or the prefix, the parser says what an element is; so the rules stand here
and no text is searched. What passes is handed on as events; no other parser sees the document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO
from xml.parsers import expat

from deblend_batch.detections.formats.bounds import MAX_LINE
from deblend_batch.errors import DetectionsError, TooLargeError

_CHUNK_BYTES = 1 << 16
_MAX_DEPTH = 64
_MAX_NAMES = 1_000
"""Different names of elements and attributes; the parser keeps each."""
_LINKS = ("LINK", "a")
"""Elements whose references are for people: nothing reads them."""


@dataclass(frozen=True)
class Handlers:
    """Who takes the events of a document, by the element's name without its prefix; may change midway."""

    starts: dict[str, Callable[[Mapping[str, str]], None]]
    """Called with the element's attributes."""
    ends: dict[str, Callable[[str], None]]
    """Called with the element's text after the last tag within it, or the last piece of that text."""
    text: Callable[[str], None]
    """Called with a piece of text that goes on in the next step."""


def parse(file: BinaryIO, handlers: Handlers) -> Iterator[None]:
    """Parse a document, and give the events of a few kilobytes of it at each step.

    Yields
    ------
    None
        After each step.
    """
    parser = expat.ParserCreate()
    guard = _Guard(handlers)
    parser.buffer_text, parser.buffer_size = True, _CHUNK_BYTES
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.ProcessingInstructionHandler = _no_stylesheet
    parser.StartElementHandler = guard.started
    parser.EndElementHandler = guard.ended
    parser.CharacterDataHandler = guard.texts.append
    n_bytes = 0
    while chunk := file.read(_CHUNK_BYTES):
        parser.Parse(chunk, False)
        n_bytes += len(chunk)
        if n_bytes - parser.CurrentByteIndex > MAX_LINE:
            raise TooLargeError(f"a tag or comment of more than {MAX_LINE:,} bytes; check the file")
        handlers.text(guard.take_text())
        yield
    parser.Parse(b"", True)
    yield


class _Guard:
    """Looks at each element before anyone else does."""

    def __init__(self, handlers: Handlers) -> None:
        self.texts: list[str] = []
        self._starts, self._ends = handlers.starts, handlers.ends
        self._names: dict[str, str] = {}
        self._attributes: set[str] = set()
        self._depth = 0

    def take_text(self) -> str:
        text = "".join(self.texts)
        self.texts.clear()
        return text

    def started(self, name: str, attributes: Mapping[str, str]) -> None:
        self.texts.clear()
        local = self._names.get(name) or self._learn(name)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TooLargeError(f"elements within elements, more than {_MAX_DEPTH}; check the file")
        if attributes:
            self._check(local, attributes)
        start = self._starts.get(local)
        if start:
            start(attributes)

    def ended(self, name: str) -> None:
        self._depth -= 1
        end = self._ends.get(self._names[name])
        if end:
            end("".join(self.texts))

    def _learn(self, name: str) -> str:
        self._names[name] = name.rpartition(":")[2]
        self._bound()
        return self._names[name]

    def _check(self, element: str, attributes: Mapping[str, str]) -> None:
        if not self._attributes.issuperset(attributes):
            self._attributes.update(attributes)
            self._bound()
        if element in _LINKS:
            return
        for name, value in attributes.items():
            if name.rpartition(":")[2].lower() == "href":
                raise DetectionsError(
                    f"its {element} refers to {value[:100]!r}; no reference out of a table is followed: "
                    "give a table that holds its data itself"
                )

    def _bound(self) -> None:
        if len(self._names) + len(self._attributes) > _MAX_NAMES:
            raise TooLargeError(
                f"more than {_MAX_NAMES:,} different names of elements; check the file"
            )


def _no_doctype(name: str, *_ids: object) -> None:
    raise DetectionsError(
        f"it declares a document type ({name[:100]!r}), which may refer to other files; remove the DOCTYPE"
    )


def _no_stylesheet(target: str, content: str) -> None:
    if target.lower() == "xml-stylesheet" or "href" in content.lower():
        raise DetectionsError(
            f"its instruction {target[:100]!r} refers to another file; no reference out of a table is "
            "followed: remove it"
        )
