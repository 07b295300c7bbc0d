"""A method: how one kind of model measures the blends of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deblend_batch.field.layout import Field
from deblend_batch.tiling.stamps import Cut, Stamps

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name; the first axis of each counts the same rows."""


class Method(Protocol):
    """How one kind of model measures blends. Safe to use from several threads.

    What a row is given decides its answer alone, whatever other rows are beside it.
    """

    batches: int
    """Batches that may be filled at a time: rows of different shapes do not meet."""

    @property
    def default_rows(self) -> int:
        """Rows that the model computes together where nobody says."""

    def given(self, stamps: Stamps, field: Field) -> Arrays:
        """Lay out what the model is given of some stamps, the same number of rows for each."""

    def answer(self, given: Arrays, rows_at_once: int) -> Arrays:
        """Run the model."""

    def measured(
        self, cut: Cut, answers: Sequence[Arrays], field: Field
    ) -> dict[str, NDArray[Any]]:
        """Turn answers into columns of a :class:`~deblend_batch.catalog.shard.Measurement`.

        They are those of the stamps' rows end to end; ``masks`` is a column where they are kept.
        """

    def needed_sizes(self, cut: Cut, columns: Arrays) -> NDArray[np.int16]:
        """Return the stamp that each blend turned out to need, px: what it had, or a larger one."""

    def largest(self, rows: int) -> Arrays:
        """Return rows as large as any are, to learn what memory they take."""

    def typical(self, rows: int) -> Arrays:
        """Return rows as most are, to learn what time they take."""


def joined(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Put arrays of the same names end to end."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
