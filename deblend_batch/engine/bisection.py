"""Finding the pairs that spoil a tile: by halving, with as few tries as that takes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from deblend_batch.engine.failure import one_line, root_cause

Tries = Generator[range, BaseException | None, "list[Poison]"]


@dataclass(frozen=True)
class Poison:
    """A pair that cannot be measured.

    Parameters
    ----------
    row : int
        Its place among the pairs of its tile.
    reason : str
        One line.
    error : str
        Class of the error.
    """

    row: int
    reason: str
    error: str

    @classmethod
    def of(cls, row: int, error: BaseException) -> Poison:
        """Blame a pair for an error."""
        return cls(row, one_line(error), type(root_cause(error)).__name__)


def halve(rows: range, error: BaseException, limit: int | None = None) -> Tries:
    """Narrow a failure down to single rows.

    A generator to which the caller tells how each try went: ``None`` or the error. Every row ends in exactly
    one range that worked, or is returned. A range that failed, and whose halves both work, is not blamed.

    Parameters
    ----------
    rows : range
        What failed as a whole.
    error : BaseException
        How.
    limit : int, optional
        Tries after which whatever has not been narrowed down is blamed as a whole.

    Yields
    ------
    range
        What to try next.

    Returns
    -------
    list of Poison
        By row.
    """
    bad: list[tuple[range, BaseException]] = [(rows, error)]
    blamed: list[Poison] = []
    tries = 0
    while bad:
        whole, why = bad.pop()
        if len(whole) == 1 or (limit is not None and tries >= limit):
            blamed += [Poison.of(row, why) for row in whole]
            continue
        middle = (whole.start + whole.stop) // 2
        for half in (range(whole.start, middle), range(middle, whole.stop)):
            outcome = yield half
            tries += 1
            if outcome is not None:
                bad.append((half, outcome))
    return sorted(blamed, key=lambda each: each.row)
