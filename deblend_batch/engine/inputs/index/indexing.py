"""Indexing a field: from its detection table to the blends of each tile; one Ray task a field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.detections.counted import read_counts
from deblend_batch.detections.table import Detections
from deblend_batch.engine.inputs.cross_checks import compare_with_pixels
from deblend_batch.engine.inputs.index.carried import beside
from deblend_batch.engine.inputs.index.deferred import write_deferred
from deblend_batch.engine.inputs.index.file import (
    FieldIndex,
    UnplacedPair,
    read_index,
    write_index,
)
from deblend_batch.engine.inputs.index.near import read_near
from deblend_batch.engine.inputs.index.predetected import Unplaced, read_predetected
from deblend_batch.engine.inputs.index.task import IndexTask
from deblend_batch.engine.inputs.index.view import NOBODY, View, look_around
from deblend_batch.errors import TooLargeError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.blending import central_first, describe_blends, describe_pairs
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.contaminants import add_contaminants
from deblend_batch.tiling.grouping import BlendRules, Grouping, group_sources
from deblend_batch.tiling.pairing import (
    check_crowding,
    check_number,
    match_within,
    order_members,
)
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from deblend_batch.tiling.tile import TileGrid
from deblend_batch.tiling.units import divide

_LIGHT_UNKNOWN = (
    "magnitudes unknown: bright sources beyond blends.link are masked, not fitted beside others; "
    "give 'mag' for that"
)


def index_field(task: IndexTask) -> FieldIndex:
    """Index a field, or read the index that an earlier start of the same run left.

    Its neighbours with other tables must have offered their sources: see
    :func:`deblend_batch.engine.inputs.offers.offer_field`.
    """
    if task.output.exists(task.url):
        return read_index(task.output, task.url)
    index, blends, columns, view = _indexed(task)
    if len(view.deferred):
        write_deferred(task.output, task.entry.index_name(), view.deferred)
    write_index(task.output, index, blends, columns)
    return index


def build_index(task: IndexTask) -> tuple[FieldIndex, Blends]:
    """Find the blends of a field and the tiles that own them; writes only the list of unused detections.

    Returns
    -------
    index : FieldIndex
        One entry a unit of work.
    blends : Blends
        The blends, by tile, unit and blend id.
    """
    index, blends, *_ = _indexed(task)
    return index, blends


def _indexed(
    task: IndexTask,
) -> tuple[FieldIndex, Blends, list[tuple[pa.Field, pa.Array]], View]:
    """Find the blends of a field, as :func:`build_index` does, with what stands beside them, and the view."""
    opened = Field.reopen(task.entry.field_url, task.options)
    grid = TileGrid(opened.shape_yx, task.tile_size)
    noise = () if opened.variance is not None else opened.measure_noise()
    near = read_near(task, opened)
    own, url = near.detections, task.entry.detections_url
    said = compare_with_pixels(opened, near.yx, own.mag, url, task.meant)
    view = look_around(task, opened, near)
    blends, unplaced = _find(task, opened, view)
    owner = grid.owner(blends.yx[:, 0])
    units = divide(owner, blends.yx[:, 0], task.max_blends)
    alone = len(blends) == 0 and task.pairs.table is None
    index = FieldIndex(
        task.url,
        units.tiles.astype(np.int32),
        tuple(
            f"{task.entry.prefix}{grid.name(tile)}{suffix}"
            for tile, suffix in zip(units.tiles.tolist(), units.suffixes, strict=True)
        ),
        units.starts,
        tuple(float(value) for value in noise),
        _counted(near.counts, view),
        tuple(unplaced),
        _nearest_arcsec(view) if alone else None,
        (*said, *view.said, *_light_unknown(task, view)),
        view.deferred.counts(),
        read_counts(url, task.options) if task.entry.first_of_table else {},
        "" if task.entry.place is None else task.entry.place.name,
        task.measures_all,
    )
    blends = blends[units.rows]
    columns = beside(blends, view.sky.detections.id, view.sky.detections.carried)
    return index, _named(blends, view), columns, view


def _light_unknown(task: IndexTask, view: View) -> tuple[str, ...]:
    """Say where nobody knows whose light is in others' pixels, which decides who is fitted beside them."""
    mag = view.sky.detections.mag
    if task.rules is None or task.pairs.table is not None or not len(mag) or np.isfinite(mag).any():
        return ()
    return (_LIGHT_UNKNOWN,)


def _counted(counts: dict[str, int], view: View) -> dict[str, int]:
    """Count what is left to other fields; a source of a shared table is still used, by one of its fields."""
    found = {**counts, "used": counts["used"] - len(view.deferred)}
    return found | ({"deferred": view.n_replaced} if view.n_replaced else {})


def _named(blends: Blends, view: View) -> Blends:
    """Give the members of blends the ids that they have in their tables."""
    ids = view.sky.detections.id
    if view.source_id is ids:
        return blends
    order = np.argsort(ids)
    row = order[np.minimum(np.searchsorted(ids[order], blends.source_id), len(ids) - 1)]
    return replace(blends, source_id=np.where(blends.is_member, view.source_id[row], 0))


def _find(task: IndexTask, opened: Field, view: View) -> tuple[Blends, list[UnplacedPair]]:
    """Find the blends of a field, as its model takes them."""
    unplaced, sky = Unplaced(str(task.pairs.table)), view.sky
    scale, widest = opened.pixel_scale_arcsec, max(opened.meta.psf_fwhm_arcsec)
    if task.rules is not None and task.pairs.table is None:
        groups = _groups(task, task.rules, opened, view)
        return describe_blends(groups, sky, scale, widest), unplaced.pairs
    rows = _pairs(task, view, unplaced)
    if task.rules is None:
        pairs = describe_pairs(rows, sky, task.stamp_size)
    else:
        pairs = describe_blends(Grouping.of_pairs(rows), sky, scale, widest)
    # After they are described: which row of a source is primary is decided among those of all fields.
    return pairs[_are_here(view, pairs)], unplaced.pairs


def _groups(task: IndexTask, rules: BlendRules, opened: Field, view: View) -> Grouping:
    """Group sources; those that are outside the image, or another field's, are only fitted beside others."""
    sky, scale, widest = view.sky, opened.pixel_scale_arcsec, max(opened.meta.psf_fwhm_arcsec)
    with _of_table(task.entry.detections_url):
        grouping = group_sources(sky.detections, sky.yx, scale, rules).owning(view.is_own)
    grouping = add_contaminants(grouping, sky, scale, widest, rules.max_members)
    return central_first(grouping, sky.detections)


def _are_here(view: View, pairs: Blends) -> NDArray[np.bool_]:
    """Tell which pairs belong here: where their central does, or, if that is in no image, their companion."""
    if not len(pairs):
        return np.empty(0, bool)
    ids = view.sky.detections.id
    order = np.argsort(ids)
    owner = view.owner[order[np.searchsorted(ids[order], pairs.source_id[:, :2])]]
    return np.asarray(np.where(owner[:, 0] == NOBODY, owner[:, 1], owner[:, 0]) == view.here)


def _pairs(task: IndexTask, view: View, unplaced: Unplaced) -> NDArray[np.int64]:
    """Find pairs, or read those that are given; rows of [central, companion]."""
    detections = view.sky.detections
    with _of_table(task.entry.detections_url):
        check_crowding(detections.ra, detections.dec, task.pairs.max_separation)
    if task.pairs.table is None:
        rows = match_within(detections.ra, detections.dec, task.pairs.max_separation)
        rows = order_members(rows, detections)
    else:
        rows = _predetected(task, detections, unplaced)
    lost = (view.owner[rows] == NOBODY).all(axis=1)
    if task.pairs.table is not None and task.entry.alone:
        unplaced.add(detections.id[rows[lost]], "both members are outside the image")
    return np.asarray(rows[~lost])


@contextmanager
def _of_table(url: str) -> Iterator[None]:
    """Say of which table an error is that knows only its rows."""
    try:
        yield
    except TooLargeError as error:
        raise TooLargeError(f"{url}: {error}") from error


def _predetected(task: IndexTask, detections: Detections, unplaced: Unplaced) -> NDArray[np.int64]:
    """Rows of the members of pre-detected pairs; the table says who is central."""
    order = np.argsort(detections.id)
    sorted_ids = detections.id[order]
    found = [np.empty((0, 2), np.int64)]
    reason = (
        "a member is not in the detection table, has no finite position, is far outside the image, or is a "
        "copy of another"
    )
    for members in read_predetected(task.pairs, task.options):
        position = np.minimum(np.searchsorted(sorted_ids, members), len(sorted_ids) - 1)
        known = sorted_ids[position] == members if len(order) else np.zeros(members.shape, bool)
        placed = known.all(axis=1)
        if placed.any():
            found.append(order[position[placed]])
        with _of_table(str(task.pairs.table)):
            check_number(sum(map(len, found)), len(detections))
        if task.entry.alone:
            unplaced.add(members[~placed], reason)
    return np.concatenate(found)


def _nearest_arcsec(view: View) -> float | None:
    """Return the least distance between a detection that belongs here and another, if there are two."""
    detections, own = view.sky.detections, view.is_own
    if len(detections) < 2 or not own.any():
        return None
    vectors = unit_vectors(detections.ra, detections.dec)
    _, nearest = cKDTree(vectors).query(vectors[own], k=2)
    # The first neighbour is the detection itself, or another at the very same position.
    return float(separations_arcsec(vectors[own], vectors[nearest[:, 1]]).min())
