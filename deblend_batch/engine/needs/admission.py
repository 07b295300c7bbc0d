"""Whether a prepared run can be done: what the pairs of its fields say, and the memory of the nodes.

A run and its plan go through the same steps in the same order, so that whatever would stop the one before its
first tile stops the other, too, with the same words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from deblend_batch.cluster.workers import Workers
from deblend_batch.engine.inputs.index.file import FieldIndex, UnplacedPair
from deblend_batch.engine.inputs.index.indexing import index_field
from deblend_batch.engine.inputs.index.offers import offer_field
from deblend_batch.engine.inputs.index.task import IndexTask
from deblend_batch.engine.inputs.prepare import Prepared
from deblend_batch.engine.inputs.reconcile import reconcile
from deblend_batch.engine.needs.memory import largest_batch, model_needs, project_run
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import Memory, NodeSize, check_fits
from deblend_batch.errors import DetectionsError

_NOTES = 10


@dataclass(frozen=True)
class Examined:
    """What the detections of a run's fields say.

    Parameters
    ----------
    indexes : list of FieldIndex
        The pairs of each field, by tile.
    unplaced : list of UnplacedPair
        Pre-detected pairs that no tile holds.
    notes : tuple of str
        What a reader of the catalogue should know of overlaps, one line each.
    """

    indexes: list[FieldIndex]
    unplaced: list[UnplacedPair]
    notes: tuple[str, ...] = ()


def examine(tasks: Sequence[IndexTask], workers: Workers) -> Examined:
    """Index the fields of a run, and refuse tables that contradict each other."""
    for _ in workers.map(offer_field, [task for task in tasks if task.entry.other_tables]):
        pass
    indexes = list(workers.map(index_field, tasks))
    unplaced = [pair for index in indexes for pair in index.unplaced]
    several = [tasks] if len(tasks) > 1 and tasks[0].pairs.table is not None else []
    unplaced += [pair for found in workers.map(reconcile, several) for pair in found]
    _check_used(tasks, indexes)
    return Examined(indexes, unplaced, _note_bands(tasks, indexes))


def _note_bands(tasks: Sequence[IndexTask], indexes: Sequence[FieldIndex]) -> tuple[str, ...]:
    """Say which fields have sources that are measured in the bands of others alone; at most a few."""
    notes = []
    for task, index in zip(tasks, indexes, strict=True):
        bands = {each.name: each.field.meta.bands for each in task.entry.neighbours}
        own = task.entry.place.field.meta.bands if task.entry.place else ()
        notes += [
            f"{index.field} leaves {n:,} sources to {other}, whose bands are {', '.join(bands[other])} and "
            f"not {', '.join(own)}: each is measured in one field alone; put bands of one sky into one field"
            for other, n in index.deferred.items()
            if set(bands.get(other, own)) != set(own)
        ]
    return tuple(notes[:_NOTES])


def _check_used(tasks: Sequence[IndexTask], indexes: Sequence[FieldIndex]) -> None:
    """Refuse a run of which no detection can be used: what it left would look like a catalogue."""
    counts: Counter[str] = Counter()
    for index in indexes:
        counts.update(index.detections)
    if counts["used"]:
        return
    tables = ", ".join(dict.fromkeys(task.entry.detections_url for task in tasks))
    read = counts["read"]
    if not read:
        raise DetectionsError(f"{tables}: holds no rows; give the catalogue of this field")
    left = read - counts["not_selected"]
    if not left:
        where = next((task.entry.reading.where for task in tasks if task.entry.reading.where), "")
        raise DetectionsError(
            f"{tables}: none of its {read:,} rows is selected by 'where: {where}'"
        )
    places = f"{counts['not_finite']:,} have no position" if counts["not_finite"] else ""
    raise DetectionsError(
        f"{tables}: none of {left:,} detections is on an image{places and f', {places}'}; check that it is "
        "the table of this field, that 'ra' and 'dec' are ICRS degrees, and 'x' and 'y' pixels of this image"
    )


def fit(
    prepared: Prepared,
    examined: Examined,
    pool: ActorPool,
    nodes: Sequence[NodeSize],
    *,
    on_ray: bool,
) -> Callable[..., Memory]:
    """Project the memory of a run, and refuse one that the nodes cannot hold."""
    needs = model_needs(prepared.card, largest_batch(prepared.config, pool))
    project = partial(
        project_run,
        prepared.config,
        needs,
        prepared.fields,
        examined.indexes,
        pool,
        on_ray=on_ray,
    )
    check_fits(project(), pool, nodes)
    return project
