"""The result of an evaluation: numbers, and the ways to show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deblend_batch.evaluation import group_tables, tables
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.pairsets import Example
from deblend_batch.evaluation.paper import PaperNumbers
from deblend_batch.evaluation.scores import Score
from deblend_batch.pages.page import Table

Mode = Literal["paper", "catalog", "pairs"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of methods over the same members.

    Parameters
    ----------
    mode : {"paper", "catalog", "pairs"}
        What was evaluated.
    title : str
        One line for a reader.
    source : str
        Where the data came from.
    members : Members
        The truth.
    recovered : tuple of Recovered
        What each method made of it.
    scores : tuple of Score
        One per method, in the same order.
    notes : tuple of str
        What must be known to read the numbers.
    paper : PaperNumbers, optional
        The published comparison, in mode ``"paper"``.
    examples : tuple of Example
        Pairs to look at, in mode ``"pairs"``.
    limits : tuple of str
        Methods that are told the truth and bound what is possible: in tables, not in figures.
    data : mapping of str to str
        What the data are, fact by fact.
    methods : mapping of str to str
        What each method does and what it is told.
    counts : mapping of str to int
        In mode ``"catalog"``: primary rows ``without truth``, and true sources with a neighbour that have no
        row, ``missed``, where positions are known.
    """

    mode: Mode
    title: str
    source: str
    members: Members
    recovered: tuple[Recovered, ...]
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()
    paper: PaperNumbers | None = None
    examples: tuple[Example, ...] = ()
    limits: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return every number as JSON-able values."""
        return {
            "mode": self.mode,
            "source": self.source,
            "n_members": len(self.members),
            "notes": list(self.notes),
            "data": dict(self.data),
            "methods": dict(self.methods),
            **({"counts": dict(self.counts)} if self.counts else {}),
            **(self.paper.to_dict() if self.paper else {}),
            "scores": [each.to_dict() for each in self.scores],
        }

    def tables(self) -> list[Table]:
        """Return the main tables: of the paper, or of the scores."""
        if self.paper is not None:
            return tables.paper_tables(self.paper)
        found = [tables.score_table(self.scores, role) for role in self._roles]
        return [*found, tables.iou_table(self.scores)] if self._has_masks else found

    def interval_tables(self) -> list[Table]:
        """Return the intervals of the scores, with the physical limit and the coverage of errors."""
        return [tables.interval_table(self.scores, role) for role in self._roles]

    def group_tables(self) -> list[Table]:
        """Return the tables of kinds of members; only those that are known."""
        return group_tables.group_tables(self.scores, self.members.separation_unit)

    @property
    def _roles(self) -> list[str]:
        return [role for role in tables.ROLES if any(s.members[role].n for s in self.scores)]

    @property
    def _has_masks(self) -> bool:
        return any(each.iou for each in self.scores)

    def to_text(self) -> str:
        """Return all tables as plain text; of the paper only its own."""
        head = [self.title, self.source, *self.notes]
        head += [] if self.paper else [tables.INTERVAL_NOTE]
        shown = self.tables()
        if self.paper is None:
            shown += [*self.interval_tables(), *self.group_tables()]
        return "\n\n".join(["\n".join(head), *(table.to_text() for table in shown)])
