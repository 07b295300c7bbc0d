"""The detections in and near an image: read from their table part by part, screened, counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detections.table import (
    Detections,
    check_unique,
    read_detections,
    repeated_ids,
)
from deblend_batch.detections.unique import Repeated, UniqueKeys
from deblend_batch.engine.inputs.index.copies import find_copies
from deblend_batch.engine.inputs.index.other_units import OtherUnits
from deblend_batch.engine.inputs.index.task import IndexTask
from deblend_batch.engine.inputs.index.unused import UnusedList
from deblend_batch.engine.inputs.survey import SurveyEntry
from deblend_batch.errors import DetectionsError, TooLargeError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.tile import inside_image


@dataclass(frozen=True)
class Near:
    """What a field's table has in or near the image.

    Parameters
    ----------
    detections : Detections
        With sky positions, each once.
    yx : ndarray of float64, shape (n, 2)
        Their pixel positions (y, x).
    counts : dict
        Rows ``read``, ``used`` (in the image), and one for each reason why rows are not used.
    """

    detections: Detections
    yx: NDArray[np.float64]
    counts: dict[str, int]


@dataclass(frozen=True)
class _Screened:
    """A part of a detection table: what lies in or near the image, and which rows cannot be used, and why."""

    near: Detections
    yx: NDArray[np.float64]
    counts: Counter[str]
    unused: NDArray[np.int64]
    reasons: NDArray[np.str_]


def read_near(task: IndexTask, opened: Field) -> Near:
    """Stream the detection table of a field; keep what lies in or near the image, list what is not used."""
    url, first = task.entry.detections_url, task.entry.first_of_table
    kept: list[_Screened] = []
    counts: Counter[str] = Counter()
    units = OtherUnits(opened)
    unused, most = (
        UnusedList(),
        math.prod(size + 2 * task.reach_px(opened) for size in opened.shape_yx),
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
    return Near(near, yx, _counted(counts, task.entry))


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


def _screen(task: IndexTask, opened: Field, part: Detections) -> _Screened:
    reach_px = task.reach_px(opened)
    part, yx = _placed(task, part, opened)
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


def _placed(
    task: IndexTask, part: Detections, opened: Field
) -> tuple[Detections, NDArray[np.float64]]:
    """Give detections both kinds of positions; the sky position is the one that counts where both exist."""
    if part.yx is None:
        return part, opened.world_to_pixel(part.ra, part.dec)
    if task.entry.shared_table:
        raise DetectionsError(
            f"{task.entry.detections_url}: gives pixel positions, and several fields use it; give 'ra' and "
            "'dec', or each field a table of its own"
        )
    radec = opened.pixel_to_world(part.yx)
    return replace(part, ra=radec[:, 0], dec=radec[:, 1]), part.yx
