"""Finding the pairs that spoil a tile: by halving, with as few tries as that takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deblend_batch.engine.worker.poison import Poison
from deblend_batch.failure import Fault


@dataclass(frozen=True)
class Search:
    """Narrows a failure down to single rows, the widest ranges first: what is to try, and what was found.

    It is a value: :meth:`tried` takes how the next try went and returns the search that follows. Every row
    ends in exactly one range that worked, or is blamed. A range that failed, and whose halves both work, is
    not blamed.

    Parameters
    ----------
    ahead : tuple of range
        What to try, the next one first; empty when all is known.
    failed : tuple of (range, Fault)
        What failed and is still to be halved, the widest first.
    poison : tuple of Poison
        Rows that are blamed so far.
    limit : int, optional
        Failures after which whatever has not been narrowed down is blamed as a whole; a quarter of them
        suffices while nothing has worked. ``k`` bad rows of ``n`` fail about ``k log2(n / k) + 2 k`` times.
    confirm : bool
        Whether a single row is blamed only when it fails a second time.
    failures : int
        Ranges that failed so far.
    worked : bool
        Whether any has worked.
    in_doubt : bool
        Whether the next try is the second one of a single row.

    Examples
    --------
    >>> fault = Fault.of(ValueError("row 1"))
    >>> search = Search.begin(range(2), fault)
    >>> search.next
    range(0, 1)
    >>> search = search.tried(None).tried(fault)
    >>> search.next, [each.row for each in search.blamed]
    (None, [1])
    """

    ahead: tuple[range, ...]
    failed: tuple[tuple[range, Fault], ...] = ()
    poison: tuple[Poison, ...] = ()
    limit: int | None = None
    confirm: bool = False
    failures: int = 0
    worked: bool = False
    in_doubt: bool = False

    @classmethod
    def begin(
        cls, rows: range, fault: Fault, limit: int | None = None, *, confirm: bool = False
    ) -> Search:
        """Start from a range that failed as a whole."""
        if confirm and len(rows) == 1:
            return cls((rows,), limit=limit, confirm=confirm)
        return _halved(cls((), ((rows, fault),), limit=limit, confirm=confirm))

    @property
    def next(self) -> range | None:
        """What to try next; None when all is known."""
        return self.ahead[0] if self.ahead else None

    @property
    def blamed(self) -> tuple[Poison, ...]:
        """The rows that were found, in order."""
        return tuple(sorted(self.poison, key=lambda each: each.row))

    def tried(self, fault: Fault | None) -> Search:
        """Take how the next try went.

        Parameters
        ----------
        fault : Fault, optional
            How it failed; None if it worked.
        """
        rows, *ahead = self.ahead
        if fault is None:
            return _halved(replace(self, ahead=tuple(ahead), worked=True, in_doubt=False))
        if self.confirm and len(rows) == 1 and not self.in_doubt:
            return replace(self, in_doubt=True)
        failed = (*self.failed, (rows, fault))
        failures = self.failures + 1
        return _halved(
            replace(self, ahead=tuple(ahead), failed=failed, failures=failures, in_doubt=False)
        )

    @property
    def enough(self) -> bool:
        """Whether so much failed that no more is narrowed down."""
        if self.limit is None:
            return False
        return self.failures >= (self.limit if self.worked else self.limit // 4)


def _halved(search: Search) -> Search:
    """Blame what cannot be narrowed down further, up to the first range that can, and halve that."""
    if search.ahead:
        return search
    poison = list(search.poison)
    for place, (rows, fault) in enumerate(search.failed):
        if len(rows) > 1 and not search.enough:
            middle = (rows.start + rows.stop) // 2
            halves = (range(rows.start, middle), range(middle, rows.stop))
            left = search.failed[place + 1 :]
            return replace(search, ahead=halves, failed=left, poison=tuple(poison))
        poison += [Poison.of(row, fault) for row in rows]
    return replace(search, failed=(), poison=tuple(poison))
