"""Parts of a merged catalogue: names that say of which part a file is, and what ``run.json`` keeps of it.

The files of a part are copied byte for byte, under the names that they had, with a prefix before them. So the
name of a file and what its content calls itself differ, and here alone stands by how much.
"""

from __future__ import annotations

import re

from deblend_batch.catalog.records import RunFile, RunPart

_PREFIX = re.compile(r"p[0-9a-f]{8}-")


def part_prefix(fingerprint: str) -> str:
    """Return what the names of a part's files begin with.

    Examples
    --------
    >>> part_prefix("0123456789abcdef")
    'p01234567-'
    """
    return f"p{fingerprint[:8]}-"


def prefix_of(name: str) -> str:
    """Return the prefix of a file's name; empty in an output that is no merged one.

    Examples
    --------
    >>> prefix_of("p01234567-y0000x0000"), prefix_of("y0000x0000")
    ('p01234567-', '')
    """
    found = _PREFIX.match(name)
    return found.group() if found else ""


def inner_name(name: str) -> str:
    """Return what a file of this name calls itself.

    Examples
    --------
    >>> inner_name("p01234567-y0000x0000")
    'y0000x0000'
    """
    return name.removeprefix(prefix_of(name))


def fingerprint_at(run: RunFile, name: str) -> str | None:
    """Return the fingerprint of the run that made a file of this name; None where no part has its prefix."""
    parts = run.get("parts")
    if parts is None:
        return run["fingerprint"]
    return next((p["fingerprint"] for p in parts if _prefix(p) == prefix_of(name)), None)


def _prefix(part: RunPart) -> str:
    return part_prefix(part["fingerprint"])
