"""Whether a prepared run can be done: what the pairs of its fields say, and the memory of the nodes.

A run and its plan go through the same steps in the same order, so that whatever would stop the one before its
first tile stops the other, too, with the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from deblend_batch.engine.inputs.index import FieldIndex, UnplacedPair
from deblend_batch.engine.inputs.index_task import IndexTask
from deblend_batch.engine.inputs.prepare import Prepared
from deblend_batch.engine.needs.memory import largest_batch, model_needs, project_run
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import Memory, NodeSize, check_fits

IndexAll = Callable[[Sequence[IndexTask]], list[FieldIndex]]
"""Indexes fields: a run does it on its cluster, a plan in this process."""
Reconcile = Callable[[Sequence[IndexTask]], list[UnplacedPair]]
"""Compares the indexes of all fields; the same two places."""


@dataclass(frozen=True)
class Admitted:
    """What is known of a run that can be done.

    Parameters
    ----------
    indexes : list of FieldIndex
        The pairs of each field, by tile.
    unplaced : list of UnplacedPair
        Pre-detected pairs that no tile holds.
    project : callable
        Projects the memory of its processes; takes the tiles that an actor holds at a time, or what the
        config says.
    """

    indexes: list[FieldIndex]
    unplaced: list[UnplacedPair]
    project: Callable[..., Memory]


def admit(
    prepared: Prepared,
    tasks: Sequence[IndexTask],
    pool: ActorPool,
    nodes: Sequence[NodeSize],
    index_all: IndexAll,
    reconcile: Reconcile,
) -> Admitted:
    """Index the fields of a run, and refuse it where it does not fit or its tables contradict each other.

    Parameters
    ----------
    prepared : Prepared
        The run.
    tasks : sequence of IndexTask
        One a field.
    pool : ActorPool
        Its actors.
    nodes : sequence of NodeSize
        Where they are to run; empty where that is not known yet, so that their memory cannot be checked.
    index_all : callable
        Indexes the fields.
    reconcile : callable
        Compares the indexes of several fields: see :func:`~deblend_batch.engine.inputs.reconcile.reconcile`.

    Returns
    -------
    Admitted
        What was learnt.

    Raises
    ------
    DetectionsError
        If a table cannot be used, or two fields hold pairs of the same ids.
    ConfigError
        If the run does not fit on the nodes.
    """
    config, fields = prepared.config, prepared.fields
    needs = model_needs(prepared.card, largest_batch(config, pool))
    indexes = index_all(tasks)
    project = partial(project_run, config, needs, fields, indexes, pool)
    check_fits(project(), pool, nodes)
    unplaced = [pair for index in indexes for pair in index.unplaced]
    if len(tasks) > 1:
        unplaced += reconcile(tasks)
    return Admitted(indexes, unplaced, project)
