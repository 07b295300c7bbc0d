"""Which of the tables in a file is meant: the one that is named, or the one that has the columns."""

from __future__ import annotations

from collections.abc import Sequence

from deblend_batch.detections.columns import listed, shown
from deblend_batch.detections.formats.bounds import Choose, choose_from
from deblend_batch.errors import DetectionsError, TooLargeError

_MAX_SHOWN = 8


class TableSearch:
    """Is shown the tables of a file one by one, and picks one.

    Parameters
    ----------
    choose : callable
        Picks columns from a table's names; raises where it finds none that serve.
    which : str, optional
        Name, in any case, or number of the table that is meant.
    """

    def __init__(self, choose: Choose, which: str | None) -> None:
        self._choose = choose
        self._which = which
        self._seen: list[str] = []
        self._refused: list[DetectionsError] = []
        self._taken: str | None = None

    def passes(self, name: str, number: int) -> bool:
        """Tell whether a table is not the one that is named, so that nothing need be known of it."""
        if self._which is None:
            return False
        meant = self._which.upper() == name.upper() or self._which == str(number)
        if not meant:
            self._seen.append(_called(name, number))
        return not meant or self._taken is not None

    def columns(self, name: str, number: int, names: Sequence[str]) -> list[str] | None:
        """Return the columns to read of a table; None where it is not the one."""
        called = _called(name, number)
        self._seen.append(f"{called} ({listed(names, 4)})")
        if self._taken is not None:
            if self._serves(names):
                raise DetectionsError(
                    f"{self._taken} and {called} both have the columns; say which is meant with "
                    f"FILE[{number}], and give each a run or a field of its own"
                )
            return None
        try:
            chosen = choose_from(names, self._choose)
        except TooLargeError:
            raise
        except DetectionsError as error:
            if self._which is not None:
                raise
            self._refused.append(error)
            return None
        self._taken = called
        return chosen

    def finish(self) -> None:
        """Say why no table was taken, if none was."""
        if self._taken is not None:
            return
        seen = "; ".join(self._seen[:_MAX_SHOWN]) or "none"
        if self._which is not None:
            raise DetectionsError(f"no table {shown(self._which)!r}; it has: {seen}")
        if not self._refused:
            raise DetectionsError("this file holds no table; give the catalogue's file")
        if len(self._refused) == 1:
            raise self._refused[0]
        raise DetectionsError(
            f"none of its tables has the columns: {seen}; name one, FILE[NUMBER], and its columns"
        )

    def _serves(self, names: Sequence[str]) -> bool:
        """Tell whether another table would serve, too; what was picked of the first one stays."""
        try:
            choose_from(names, self._choose)
        except DetectionsError:
            return False
        return True


def _called(name: str, number: int) -> str:
    return f"{number} {shown(name)}" if name else str(number)
