"""Indexing a field: from its detection table to the blends of each tile; one Ray task a field."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.catalog.output import Output
from deblend_batch.config import PairsConfig, RunConfig
from deblend_batch.detections.table import (
    Detections,
    check_unique,
    read_detections,
    repeated_ids,
)
from deblend_batch.detections.unique import Repeated, UniqueKeys
from deblend_batch.engine.inputs.carried import beside
from deblend_batch.engine.inputs.copies import find_copies
from deblend_batch.engine.inputs.cross_checks import compare_with_pixels
from deblend_batch.engine.inputs.index import (
    FieldIndex,
    UnplacedPair,
    read_index,
    write_index,
)
from deblend_batch.engine.inputs.other_units import OtherUnits
from deblend_batch.engine.inputs.predetected import Unplaced, read_predetected
from deblend_batch.engine.inputs.survey import SurveyEntry
from deblend_batch.engine.inputs.unused import UnusedList
from deblend_batch.errors import TooLargeError
from deblend_batch.field.layout import Field
from deblend_batch.models.card import ModelCard
from deblend_batch.storage import Options
from deblend_batch.tiling.blending import Sky, central_first, describe_blends, describe_pairs
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.grouping import BlendRules, Grouping, group_sources
from deblend_batch.tiling.pairing import (
    check_crowding,
    check_number,
    match_within,
    order_members,
)
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from deblend_batch.tiling.tile import TileGrid, inside_image
from deblend_batch.tiling.units import divide


@dataclass(frozen=True)
class IndexTask:
    """All that is needed to index one field, anywhere on the cluster."""

    entry: SurveyEntry
    output: Output
    tile_size: int
    max_blends: int
    stamp_size: int
    pairs: PairsConfig
    rules: BlendRules | None = None
    """What a blend is; None for a model that takes pairs."""
    keep_unused: bool = True
    """Whether the detections that cannot be used are listed in a file beside the index."""
    meant: tuple[str, ...] = ()
    """Comparisons of the detections with the pixels that must not stop the run."""

    @property
    def url(self) -> str:
        """URL of the index."""
        return self.output.index_url(self.entry.index_name())

    @property
    def options(self) -> Options:
        """Storage options of the inputs, which are those of the output."""
        return self.output.options


def index_tasks(
    config: RunConfig, output: Output, entries: Sequence[SurveyEntry], card: ModelCard
) -> list[IndexTask]:
    """Describe the indexing of each field of a run.

    Parameters
    ----------
    config : RunConfig
        The config.
    output : Output
        Where the indexes are to be.
    entries : sequence of SurveyEntry
        The fields.
    card : ModelCard
        Of the model.
    """
    link = config.blends.link or config.pairs.max_separation
    rules = BlendRules(link, config.blends.max_members, config.sources)
    return [
        IndexTask(
            entry,
            output,
            config.tiles.size,
            config.tiles.max_pairs,
            card.stamp_size,
            config.pairs,
            None if card.takes_pairs else rules,
            meant=tuple(config.meant),
        )
        for entry in entries
    ]


def index_field(task: IndexTask) -> FieldIndex:
    """Index a field, or read the index that an earlier start of the same run left."""
    if task.output.exists(task.url):
        return read_index(task.output, task.url)
    index, blends, detections = _indexed(task)
    write_index(task.output, index, blends, beside(blends, detections.id, detections.carried))
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
    index, blends, _ = _indexed(task)
    return index, blends


def _indexed(task: IndexTask) -> tuple[FieldIndex, Blends, Detections]:
    """Find the blends of a field, as :func:`build_index` does, with the detections that they are of."""
    opened = Field.reopen(task.entry.field_url, task.options)
    grid = TileGrid(opened.shape_yx, task.tile_size)
    noise = () if opened.variance is not None else opened.measure_noise()
    detections, yx, counts = _load(task, opened)
    said = compare_with_pixels(opened, yx, detections.mag, task.entry.detections_url, task.meant)
    blends, unplaced = _find(task, opened, Sky(detections, yx, opened.shape_yx))
    owner = grid.owner(blends.yx[:, 0])
    units = divide(owner, blends.yx[:, 0], task.max_blends)
    order = units.rows
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
        counts,
        tuple(unplaced),
        _nearest_arcsec(detections, inside_image(yx, opened.shape_yx)) if alone else None,
        said,
    )
    return index, blends[order], detections


@dataclass(frozen=True)
class _Screened:
    """A part of a detection table: what lies in or near the image, and which rows cannot be used, and why."""

    near: Detections
    yx: NDArray[np.float64]
    counts: Counter[str]
    unused: NDArray[np.int64]
    reasons: NDArray[np.str_]


def _load(task: IndexTask, opened: Field) -> tuple[Detections, NDArray[np.float64], dict[str, int]]:
    """Stream the detection table; keep what lies in or near the image, list what is not used."""
    url, first = task.entry.detections_url, task.entry.first_of_table
    kept: list[_Screened] = []
    counts: Counter[str] = Counter()
    units = OtherUnits(opened)
    unused, most = (
        UnusedList(),
        math.prod(size + 2 * _reach(task, opened) for size in opened.shape_yx),
    )
    with UniqueKeys() as ids:
        for part in _read(task, opened):
            _check_ids(ids.add(part.id) if first else None, url)
            screened = _screen(task, opened, part)
            counts += screened.counts
            if not counts["used"]:
                units.look(part)
            if len(screened.near) or not kept:
                kept.append(screened)
            if sum(len(each.near) for each in kept) > most:
                raise TooLargeError(f"{url}: more sources than {opened.url} has pixels; check both")
            unused.add(screened.unused, screened.reasons)
        _check_ids(ids.finish() if first else None, url)
    if not counts["used"]:
        units.check(url)
    near = Detections.concatenate([each.near for each in kept])
    check_unique(near.id, url)
    yx = np.concatenate([each.yx for each in kept])
    copies = find_copies(near)
    lost = copies & inside_image(yx, opened.shape_yx)
    counts.update(copies=int(lost.sum()), used=-int(lost.sum()))
    unused.add(
        near.id[lost], np.full(int(lost.sum()), "a copy: another detection has its position")
    )
    near, yx = near[~copies], yx[~copies]
    if task.keep_unused and first:
        unused.write(task.output, task.entry.index_name())
    return near, yx, _counted(counts, task.entry)


def _counted(counts: Counter[str], entry: SurveyEntry) -> dict[str, int]:
    """Return the counts of a field: the first one of a shared table counts the table's rows for all."""
    known = ("read", "not_finite", "used") if entry.first_of_table else ("used",)
    names = known if entry.shared_table else ("read", "not_finite", "outside", "used")
    rare = [name for name in ("not_selected", "copies") if counts[name]]
    if not entry.first_of_table:
        rare = [name for name in rare if name != "not_selected"]
    return {name: counts[name] for name in (*names, *rare)}


def _read(task: IndexTask, opened: Field) -> Iterator[Detections]:
    reading = task.entry.reading
    return read_detections(
        task.entry.detections_url,
        reading.columns,
        task.options,
        where=reading.where,
        origin=reading.origin,
        parent_yx=opened.meta.parent_yx,
        carry=reading.carry,
        pixel_arcsec=opened.pixel_scale_arcsec,
        bands=opened.meta.bands,
    )


def _check_ids(found: Repeated | None, url: str) -> None:
    if found is not None:
        raise repeated_ids(found, url)


def _reach(task: IndexTask, opened: Field) -> float:
    """Return how far from the image a source may lie and still be of use, px."""
    apart = task.pairs.max_separation if task.rules is None else task.rules.link_arcsec
    return max(apart / opened.pixel_scale_arcsec, task.stamp_size / 2) + 1


def _screen(task: IndexTask, opened: Field, part: Detections) -> _Screened:
    reach_px = _reach(task, opened)
    part, yx = _placed(part, opened)
    finite = np.isfinite(part.ra) & np.isfinite(part.dec)
    far = np.array(opened.shape_yx) - 1 + reach_px
    close = finite & ((yx > -reach_px) & (yx < far)).all(axis=1)
    inside = close & inside_image(yx, opened.shape_yx)
    counts = {
        "read": len(yx) + part.n_left_out,
        "not_selected": part.n_left_out,
        "not_finite": int((~finite).sum()),
        "outside": int((finite & ~inside).sum()),
        "used": int(inside.sum()),
    }
    unused = ~finite if task.entry.shared_table else ~inside
    reasons = np.where(finite[unused], "outside the image", "position is not finite")
    return _Screened(part[close], yx[close], Counter(counts), part.id[unused], reasons)


def _placed(part: Detections, opened: Field) -> tuple[Detections, NDArray[np.float64]]:
    """Give detections both kinds of positions; the sky position is the one that counts where both exist."""
    if part.yx is None:
        return part, opened.world_to_pixel(part.ra, part.dec)
    radec = opened.pixel_to_world(part.yx)
    return replace(part, ra=radec[:, 0], dec=radec[:, 1]), part.yx


def _find(task: IndexTask, opened: Field, sky: Sky) -> tuple[Blends, list[UnplacedPair]]:
    """Find the blends of a field, as its model takes them."""
    unplaced = Unplaced(str(task.pairs.table))
    if task.rules is not None and task.pairs.table is None:
        grouping = _groups(task, task.rules, opened, sky)
    else:
        grouping = Grouping.of_pairs(_pairs(task, sky, unplaced))
    if task.rules is None:
        return describe_pairs(grouping.rows, sky, task.stamp_size), unplaced.pairs
    widest = max(opened.meta.psf_fwhm_arcsec)
    return describe_blends(grouping, sky, opened.pixel_scale_arcsec, widest), unplaced.pairs


def _groups(task: IndexTask, rules: BlendRules, opened: Field, sky: Sky) -> Grouping:
    """Group sources; those that are outside the image, or another field's, are only fitted beside others."""
    with _named(task.entry.detections_url):
        grouping = group_sources(sky.detections, sky.yx, opened.pixel_scale_arcsec, rules)
    owned = inside_image(sky.yx, sky.shape_yx) & ~_held_earlier(task, sky.detections)
    return central_first(grouping.owning(owned), sky.detections)


def _pairs(task: IndexTask, sky: Sky, unplaced: Unplaced) -> NDArray[np.int64]:
    """Find pairs, or read those that are given; rows of [central, companion]."""
    detections, inside = sky.detections, inside_image(sky.yx, sky.shape_yx)
    with _named(task.entry.detections_url):
        check_crowding(detections.ra, detections.dec, task.pairs.max_separation)
    if task.pairs.table is None:
        rows = match_within(detections.ra, detections.dec, task.pairs.max_separation)
        rows = order_members(rows, detections)
    else:
        rows = _predetected(task, detections, unplaced)
    lost = ~np.any(inside[rows], axis=1)
    if task.pairs.table is not None and task.entry.alone:
        unplaced.add(detections.id[rows[lost]], "both members are outside the image")
    rows = rows[~lost]
    elsewhere = np.any(_held_earlier(task, detections)[rows], axis=1)
    return np.asarray(rows[~elsewhere])


@contextmanager
def _named(url: str) -> Iterator[None]:
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
        with _named(str(task.pairs.table)):
            check_number(sum(map(len, found)), len(detections))
        if task.entry.alone:
            unplaced.add(members[~placed], reason)
    return np.concatenate(found)


def _held_earlier(task: IndexTask, detections: Detections) -> NDArray[np.bool_]:
    """Whether an earlier field of the survey holds a source."""
    held = np.zeros(len(detections), bool)
    for url in task.entry.earlier_overlaps:
        other = Field.reopen(url, task.options)
        held |= inside_image(other.world_to_pixel(detections.ra, detections.dec), other.shape_yx)
    return held


def _nearest_arcsec(detections: Detections, inside: NDArray[np.bool_]) -> float | None:
    """Return the least distance between a detection in the image and another, where there are two."""
    if len(detections) < 2 or not inside.any():
        return None
    vectors = unit_vectors(detections.ra, detections.dec)
    _, nearest = cKDTree(vectors).query(vectors[inside], k=2)
    # The first neighbour is the detection itself, or another at the very same position.
    return float(separations_arcsec(vectors[inside], vectors[nearest[:, 1]]).min())
