"""The flag registry: each quality bit is defined once, here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Flag:
    """One bit of the ``flags`` column.

    Parameters
    ----------
    bit : int
        Position, 0 to 30.
    name : str
        Upper-case name.
    description : str
        What a set bit means for the row.
    """

    bit: int
    name: str
    description: str

    @property
    def value(self) -> int:
        """The bit as a number, to be or-ed into ``flags``."""
        return 1 << self.bit

    def where(self, condition: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return the bit where ``condition`` holds, else 0."""
        return np.where(condition, np.int32(self.value), np.int32(0))


EDGE: Final = Flag(0, "EDGE", "the stamp reaches over the edge of the image")
BAD_PIXELS: Final = Flag(
    1, "BAD_PIXELS", "bad pixels in the stamp; they were set to the background"
)
BAD_CENTRE: Final = Flag(2, "BAD_CENTRE", "a bad pixel within two pixels of this member's position")
CROWDED: Final = Flag(3, "CROWDED", "more than two sources in the stamp")
NOT_POSITIVE: Final = Flag(4, "NOT_POSITIVE", "the flux is not positive in at least one band")
OUT_OF_DOMAIN: Final = Flag(
    5, "OUT_OF_DOMAIN", "PSF, separation or signal outside the model's training"
)
COMPANION_OUTSIDE: Final = Flag(
    6, "COMPANION_OUTSIDE", "the companion lies outside the stamp; its flux is NaN"
)
NO_DATA: Final = Flag(7, "NO_DATA", "no usable pixel in at least one band; its flux is NaN there")
OUTSIDE_IMAGE: Final = Flag(8, "OUTSIDE_IMAGE", "this member's position lies outside the image")
ROLE_BY_ID: Final = Flag(
    9, "ROLE_BY_ID", "a magnitude is unknown, so the smaller id is the central"
)
COINCIDENT: Final = Flag(10, "COINCIDENT", "the members are less than one pixel apart")
GROUP_DIVIDED: Final = Flag(
    11,
    "GROUP_DIVIDED",
    "more linked sources than one fit takes: this one was measured with its nearest neighbours alone",
)
LARGER_THAN_STAMP: Final = Flag(
    12, "LARGER_THAN_STAMP", "the members' light reaches beyond the largest stamp"
)

REGISTRY: Final = (
    EDGE,
    BAD_PIXELS,
    BAD_CENTRE,
    CROWDED,
    NOT_POSITIVE,
    OUT_OF_DOMAIN,
    COMPANION_OUTSIDE,
    NO_DATA,
    OUTSIDE_IMAGE,
    ROLE_BY_ID,
    COINCIDENT,
    GROUP_DIVIDED,
    LARGER_THAN_STAMP,
)


def decode(flags: int) -> list[str]:
    """Name the bits that are set in ``flags``.

    Examples
    --------
    >>> decode(9)
    ['EDGE', 'CROWDED']
    """
    return [flag.name for flag in REGISTRY if flags & flag.value]


def count(flags: NDArray[np.integer[Any]]) -> dict[str, int]:
    """Count the rows that have each bit set, for the bits that occur.

    Parameters
    ----------
    flags : ndarray of int, shape (n,)
        The ``flags`` column.
    """
    totals = {flag.name: int(np.count_nonzero(flags & flag.value)) for flag in REGISTRY}
    return {name: total for name, total in totals.items() if total}


def add_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up several results of :func:`count`, in the registry's order."""
    collected = list(counts)
    totals = {flag.name: sum(each.get(flag.name, 0) for each in collected) for flag in REGISTRY}
    return {name: total for name, total in totals.items() if total}
