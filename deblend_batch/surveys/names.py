"""Names of files as patterns: which parts vary, and which files belong to one field (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_WORD = re.compile(r"[a-z][a-z0-9_]*")
_MAX_LENGTH = 400


class NamePattern:
    """A pattern of names, such as ``{brick}-image-{band:[griz]}.fits*``.

    ``{part}`` is any text, ``{part:regex}`` what a regular expression matches; ``*`` is any text that nobody
    asks for.

    Parameters
    ----------
    text : str
        The pattern.

    Raises
    ------
    ValueError
        If it cannot be understood.
    """

    def __init__(self, text: str) -> None:
        if not text or len(text) > _MAX_LENGTH or "/" in text:
            raise ValueError(f"must be the pattern of a file's name, without '/', not {text!r}")
        self.text = text
        self._pieces = list(_pieces(text))
        self.parts = tuple(dict.fromkeys(name for _, name, _ in self._pieces if name))
        self._regex = self._compiled({})

    def match(self, name: str) -> dict[str, str] | None:
        """Return the parts of a name; None where it is none of these."""
        found = self._regex.fullmatch(name)
        return None if found is None else found.groupdict()

    def matches(self, name: str, parts: Mapping[str, str]) -> bool:
        """Tell whether a name is one of these, with parts that are known."""
        return self._compiled(parts).fullmatch(name) is not None

    def filled(self, parts: Mapping[str, str]) -> str:
        """Return the pattern with parts that are known, for messages."""
        return "".join(
            literal + (parts.get(name, f"{{{name}}}") if name else "*" * (regex is not None))
            for literal, name, regex in self._pieces
        )

    def _compiled(self, parts: Mapping[str, str]) -> re.Pattern[str]:
        seen: set[str] = set()
        text = ""
        for literal, name, regex in self._pieces:
            text += re.escape(literal)
            if name in parts:
                text += re.escape(parts[name])
            elif name in seen:
                text += f"(?P={name})"
            elif name:
                text += f"(?P<{name}>{regex})"
                seen.add(name)
            elif regex is not None:
                text += regex
        try:
            return re.compile(text)
        except re.error as error:
            raise ValueError(f"has a part that is no regular expression ({error})") from error


def _pieces(text: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield what stands literally, and the name and the regular expression of the part after it."""
    literal, at = "", 0
    while at < len(text):
        if text[at] == "*":
            yield literal, "", r"[^/]*"
            literal, at = "", at + 1
        elif text[at] == "{":
            stop = _closing(text, at)
            name, _, regex = text[at + 1 : stop].partition(":")
            if not _WORD.fullmatch(name):
                raise ValueError(f"has a part {name!r}; parts are called by small letters")
            _check(regex)
            yield literal, name, regex or r"[^/]+?"
            literal, at = "", stop + 1
        else:
            literal, at = literal + text[at], at + 1
    yield literal, "", None


def _check(regex: str) -> None:
    """Refuse what is a regular expression only together with what stands beside it."""
    try:
        re.compile(regex)
    except re.error as error:
        raise ValueError(f"has a part {regex!r} that is no regular expression ({error})") from error


def _closing(text: str, start: int) -> int:
    """Return where the brace at ``start`` is closed: regular expressions have some of their own."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ValueError("has a '{' that is not closed")
