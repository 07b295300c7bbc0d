"""The sources in and near an image, each of the sky once, and whose each of them is.

Where a field of a survey has neighbours with tables of their own, their sources stand for the same ones of
its own table. So all fields see the same sources where they overlap, and share them as if the table were one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.detections.table import Detections
from deblend_batch.detections.unique import find_repeated
from deblend_batch.engine.inputs.index.near import Near
from deblend_batch.engine.inputs.index.offers import best_claims, read_neighbours
from deblend_batch.engine.inputs.index.task import IndexTask
from deblend_batch.errors import DetectionsError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.blending import Sky
from deblend_batch.tiling.member_hash import hash_members, hash_text
from deblend_batch.tiling.ownership import Claims, TableRows, find_stand_ins
from deblend_batch.tiling.tile import inside_image

NOBODY = -1
"""Owner of a source that no image of the survey holds."""
FIELD = "field"
"""Column of the catalogue of a run of several fields: the one that a row's source belongs to."""
_FIELD_SAID = {"description": "field that the source belongs to", "ucd": "meta.id;obs.field"}


@dataclass(frozen=True)
class View:
    """Sources as one field of a run sees them.

    Parameters
    ----------
    sky : Sky
        The sources; of a run of several tables their ids are those of this view alone.
    source_id : ndarray of int64, shape (n,)
        Their ids in their tables.
    owner : ndarray of int64, shape (n,)
        Number of the field that each belongs to; :data:`NOBODY` where no image holds it.
    here : int
        Number of this field.
    deferred : Deferred
        Of the field's own sources those that belong to others.
    n_replaced : int
        Of these, those of which another table's source is the one that counts, and that no other field of
        this table would have.
    said : tuple of str
        How the tables agree where fields overlap, a line.
    """

    sky: Sky
    source_id: NDArray[np.int64]
    owner: NDArray[np.int64]
    here: int
    deferred: Deferred
    n_replaced: int = 0
    said: tuple[str, ...] = ()

    @property
    def is_own(self) -> NDArray[np.bool_]:
        """Whether a source is measured here."""
        return np.asarray(self.owner == self.here)


@dataclass(frozen=True)
class Deferred:
    """Sources in a field's image that belong to other fields, as columns.

    Parameters
    ----------
    source_id : ndarray of int64, shape (n,)
        Ids in the field's own table.
    field : tuple of str, length n
        Name of the field that each belongs to.
    field_source_id : ndarray of int64, shape (n,)
        Its id in that field's table.
    """

    source_id: NDArray[np.int64]
    field: tuple[str, ...]
    field_source_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source_id)

    def counts(self) -> dict[str, int]:
        """Return how many belong to each other field, by name."""
        return dict(sorted(Counter(self.field).items()))


NOTHING_DEFERRED = Deferred(np.empty(0, np.int64), (), np.empty(0, np.int64))


def look_around(task: IndexTask, opened: Field, near: Near) -> View:
    """Return the sources that a field sees, of its own table and of its neighbours'."""
    entry, inside = task.entry, inside_image(near.yx, opened.shape_yx)
    if entry.place is None:
        sky = Sky(near.detections, near.yx, opened.shape_yx)
        owner = np.where(inside, 0, NOBODY)
        return View(sky, near.detections.id, owner, 0, NOTHING_DEFERRED)
    rows, detections = _gather(task, opened, near)
    stand_in = np.arange(len(rows))
    if entry.other_tables:
        stand_in = find_stand_ins(rows, task.match_arcsec)
    names = {each.number: each.name for each in (entry.place, *entry.neighbours)}
    owner = np.where(rows.claims.is_held, rows.claims.field, NOBODY)
    kept = np.flatnonzero(stand_in == np.arange(len(rows)))
    own = np.flatnonzero(inside)  # rows of this field come first
    left = own[owner[stand_in[own]] != entry.place.number]
    to = stand_in[left]
    replaced = left[(to != left) & (rows.claims.field[left] == entry.place.number)]
    if len(replaced) and task.pairs.table is not None:
        raise _two_names(task, rows, int(replaced[0]), int(stand_in[replaced[0]]), names)
    deferred = Deferred(
        rows.id[left], tuple(names[number] for number in owner[to].tolist()), rows.id[to]
    )
    yx = np.concatenate(
        [near.yx, opened.world_to_pixel(*rows.radec[len(near.yx) :].T).reshape(-1, 2)]
    )
    sky = _sky(task, opened, detections[kept], yx[kept], rows, kept)
    sky = replace(sky, detections=_with_field(sky.detections, rows, kept, names))
    said = _say(task, rows, stand_in, own) if entry.other_tables else ()
    return View(sky, rows.id[kept], owner[kept], entry.place.number, deferred, len(replaced), said)


def _gather(task: IndexTask, opened: Field, near: Near) -> tuple[TableRows, Detections]:
    """Put a field's rows and those that its neighbours offer under each other; the field's come first."""
    entry = task.entry
    assert entry.place is not None
    found = [(entry.place.table, near.detections, best_claims(entry, near))]
    seen: dict[str, list[NDArray[np.int64]]] = {}
    for other, detections, claims in read_neighbours(task, opened):
        # Several fields of one table may offer the same rows.
        known = seen.setdefault(other.table, [])
        new = ~np.isin(detections.id, np.concatenate(known)) if known else slice(None)
        known.append(detections.id)
        found.append((other.table, _like(detections[new], near.detections), claims[new]))
    order = {name: number for number, name in enumerate(sorted({name for name, *_ in found}))}
    every = Detections.concatenate([replace(each, yx=None, n_left_out=0) for _, each, _ in found])
    rows = TableRows(
        np.concatenate([np.full(len(each), order[name]) for name, each, _ in found]),
        every.id,
        np.stack([every.ra, every.dec], axis=-1),
        Claims.concatenate([claims for *_, claims in found]),
        tuple(order),
    )
    return rows, every


def _like(detections: Detections, model: Detections) -> Detections:
    """Give detections the columns that others carry; what they have not, or as something else, is null."""
    if model.carried is None:
        return replace(detections, carried=None)
    theirs, n = detections.carried, len(detections)
    columns = [
        theirs[field.name]
        if theirs is not None
        and field.name in theirs.schema.names
        and theirs.schema.field(field.name).type == field.type
        else pa.nulls(n, field.type)
        for field in model.carried.schema
    ]
    return replace(detections, carried=pa.table(columns, schema=model.carried.schema))


def _sky(
    task: IndexTask,
    opened: Field,
    detections: Detections,
    yx: NDArray[np.float64],
    rows: TableRows,
    kept: NDArray[np.int64],
) -> Sky:
    """Return sources whose ids are unique; of several tables an id says nothing without its table."""
    if task.pairs.table is not None and find_repeated(rows.id[kept]) is not None:
        raise DetectionsError(
            f"{task.pairs.table}: names sources by their ids, and the tables of "
            f"{', '.join(rows.tables)} have the same ones; give every source of a survey its own id"
        )
    if not task.entry.several_tables or task.pairs.table is not None:
        return Sky(detections, yx, opened.shape_yx)
    table, ids = rows.table[kept], rows.id[kept]
    numbers = np.empty(len(kept), np.int64)
    numbers[np.lexsort((table, ids))] = np.arange(len(kept))
    salts = np.array([hash_text(name) for name in rows.tables], np.int64)
    keys = hash_members(np.stack([ids, salts[table]], axis=1))
    return Sky(replace(detections, id=numbers), yx, opened.shape_yx, keys)


def _with_field(
    detections: Detections, rows: TableRows, kept: NDArray[np.int64], names: Mapping[int, str]
) -> Detections:
    """Let the name of the field that each source belongs to go through to the catalogue.

    One that no image holds is called after its table, so that its name and id are its own.
    """
    numbers = np.array(sorted(names), np.int64)
    words = np.array([*(names[n] for n in numbers.tolist()), *rows.tables], object)
    field = np.searchsorted(numbers, rows.claims.field[kept])
    which = np.where(rows.claims.is_held[kept], field, len(numbers) + rows.table[kept])
    column = pa.field(FIELD, pa.string(), metadata=_FIELD_SAID)
    called = pa.array(words[which].tolist(), pa.string())
    carried = detections.carried
    if carried is None:
        return replace(detections, carried=pa.table([called], schema=pa.schema([column])))
    return replace(detections, carried=carried.append_column(column, called))


def _say(
    task: IndexTask, rows: TableRows, stand_in: NDArray[np.int64], own: NDArray[np.int64]
) -> tuple[str, ...]:
    """Say how many of a field's sources other tables should have, and have."""
    covered = np.zeros(len(own), bool)
    for other in task.entry.other_tables:
        yx = other.field.world_to_pixel(*rows.radec[own].T)
        covered |= inside_image(yx, other.field.shape_yx)
    if not covered.any():
        return ()
    own = own[covered]
    stands_for = np.bincount(stand_in, minlength=len(rows))
    is_matched = (stand_in[own] != own) | (stands_for[own] > 1)
    line = (
        f"overlaps: of {len(own):,} sources that fields with other tables show, too, "
        f"{is_matched.sum():,} are in those tables within {task.match_arcsec:g} arcsec; the others are kept"
    )
    return (line,)


def _two_names(
    task: IndexTask, rows: TableRows, one: int, other: int, names: Mapping[int, str]
) -> DetectionsError:
    here, there = names[int(rows.claims.field[one])], names[int(rows.claims.field[other])]
    return DetectionsError(
        f"{task.pairs.table}: names sources by their ids, and where {here} and {there} overlap one source "
        f"has two, {rows.id[one]} and {rows.id[other]}; give both fields one detection table, or leave "
        "'pairs.table' out"
    )
