"""Finding the pairs that spoil a tile: by halving, with as few tries as that takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

from deblend_batch.engine.worker.poison import Poison

Tries = Generator[range, BaseException | None, "list[Poison]"]


def halve(
    rows: range, error: BaseException, limit: int | None = None, *, confirm: bool = False
) -> Tries:
    """Narrow a failure down to single rows, the largest ranges first.

    A generator to which the caller tells how each try went: ``None`` or the error. Every row ends in exactly
    one range that worked, or is returned. A range that failed, and whose halves both work, is not blamed.

    Parameters
    ----------
    rows : range
        What failed as a whole.
    error : BaseException
        How.
    limit : int, optional
        Failures after which whatever has not been narrowed down is blamed as a whole; a quarter of them
        suffices while nothing has worked. ``k`` bad rows of ``n`` fail about ``k log2(n / k) + 2 k`` times.
    confirm : bool
        Whether a single row is blamed only when it fails a second time.

    Yields
    ------
    range
        What to try next.

    Returns
    -------
    list of Poison
        By row.
    """
    if confirm and len(rows) == 1:
        for _ in range(2):
            outcome = yield rows
            if outcome is None:
                return []
            error = outcome
        return [Poison.of(rows.start, error)]
    bad: deque[tuple[range, BaseException]] = deque([(rows, error)])
    blamed: list[Poison] = []
    failures, worked = 0, False
    while bad:
        whole, why = bad.popleft()
        enough = limit is not None and failures >= (limit if worked else limit // 4)
        if len(whole) == 1 or enough:
            blamed += [Poison.of(row, why) for row in whole]
            continue
        middle = (whole.start + whole.stop) // 2
        for half in (range(whole.start, middle), range(middle, whole.stop)):
            outcome = yield half
            if outcome is not None and confirm and len(half) == 1:
                outcome = yield half
            if outcome is None:
                worked = True
            else:
                failures += 1
                bad.append((half, outcome))
    return sorted(blamed, key=lambda each: each.row)
