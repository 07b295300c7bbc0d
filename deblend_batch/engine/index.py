"""The pair index: the pairs of one field, sorted by tile, as a file that workers read by row groups.

It keeps the driver small (it holds one number a tile, no pairs) and makes a resumed run start at once.
"""

from __future__ import annotations

import io
import json
import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.config import PairsConfig
from deblend_batch.detections.table import (
    Detections,
    check_unique,
    read_detections,
    read_pairs_table,
)
from deblend_batch.engine.survey import SurveyEntry
from deblend_batch.errors import CatalogError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.pairs import (
    MAX_NEIGHBOURS,
    Pairs,
    build_pairs,
    match_within,
    order_members,
)
from deblend_batch.tiling.tile import TileGrid, inside_image

ROW_GROUP = 8192
UNUSED_SUFFIX = ".unused.parquet"
_SUMMARY = b"deblend_batch_index"


@dataclass(frozen=True)
class UnplacedPair:
    """A pre-detected pair that no tile can hold, and why."""

    central_id: int
    companion_id: int
    reason: str


@dataclass(frozen=True)
class FieldIndex:
    """What the driver knows of a field's pairs.

    Parameters
    ----------
    url : str
        The index file.
    tiles : ndarray of int32, shape (t,)
        Numbers of the tiles that hold pairs, ascending.
    tile_names : tuple of str, length t
        Their names, unique in the run.
    starts : ndarray of int64, shape (t + 1,)
        First row of each tile in the file; the last entry is the number of pairs.
    noise_sigma : tuple of float
        Background rms per band, image units; empty where the field has a variance plane.
    detections : dict
        Counts: ``read``, ``used``, and one for each reason why rows were not used.
    unplaced : tuple of UnplacedPair
        Pre-detected pairs that no tile holds.
    """

    url: str
    tiles: NDArray[np.int32]
    tile_names: tuple[str, ...]
    starts: NDArray[np.int64]
    noise_sigma: tuple[float, ...]
    detections: dict[str, int]
    unplaced: tuple[UnplacedPair, ...] = field(default=())

    @property
    def n_pairs(self) -> int:
        """Number of pairs that tiles hold."""
        return int(self.starts[-1])


@dataclass(frozen=True)
class IndexTask:
    """All that is needed to index one field, anywhere on the cluster."""

    entry: SurveyEntry
    url: str
    tile_size: int
    stamp_size: int
    pairs: PairsConfig
    columns: dict[str, str]
    options: dict[str, Any] = field(repr=False)
    keep_unused: bool = True
    """Whether the detections that cannot be used are listed in a file beside the index."""


def index_field(task: IndexTask) -> FieldIndex:
    """Index a field, or read the index that an earlier start of the same run left.

    Parameters
    ----------
    task : IndexTask
        What to index.

    Returns
    -------
    FieldIndex
        One entry a tile.

    Raises
    ------
    DetectionsError
        If the detection or pairs table cannot be used.
    """
    if storage.exists(task.url, task.options):
        return read_index(task.url, task.options)
    index, owner, pairs = build_index(task)
    _write(index, owner, pairs, task.options)
    return index


def build_index(task: IndexTask) -> tuple[FieldIndex, NDArray[np.int32], Pairs]:
    """Find the pairs of a field and the tiles that own them; writes only the list of unused detections.

    Parameters
    ----------
    task : IndexTask
        What to index.

    Returns
    -------
    index : FieldIndex
        One entry a tile.
    owner : ndarray of int32, shape (n,)
        Tile of each pair, ascending.
    pairs : Pairs
        The pairs, by tile and then by blend id.

    Raises
    ------
    DetectionsError
        If the detection or pairs table cannot be used.
    """
    opened = Field.open(task.entry.field_url, task.options)
    grid = TileGrid(opened.shape_yx, task.tile_size)
    noise = () if opened.variance is not None else opened.measure_noise()
    detections, yx, counts = _load(task, opened)
    pairs, unplaced = _find(task, opened, detections, yx)
    owner = grid.owner(pairs.yx[:, 0])
    order = np.argsort(owner, kind="stable")
    tiles, starts = np.unique(owner[order], return_index=True)
    index = FieldIndex(
        task.url,
        tiles.astype(np.int32),
        tuple(task.entry.prefix + grid.name(number) for number in tiles.tolist()),
        np.append(starts, len(pairs)).astype(np.int64),
        tuple(float(value) for value in noise),
        counts,
        tuple(unplaced),
    )
    return index, owner[order].astype(np.int32), pairs[order]


def _load(task: IndexTask, opened: Field) -> tuple[Detections, NDArray[np.float64], dict[str, int]]:
    """Stream the detection table; keep what lies in or near the image, list what is not used."""
    url, near, positions = task.entry.detections_url, [], []
    ids, rejected, counts = [], [], Counter[str]()
    reach_px = max(task.pairs.max_separation / opened.pixel_scale_arcsec, task.stamp_size / 2) + 1
    shape = np.array(opened.shape_yx)
    for part in read_detections(url, task.columns, task.options):
        part, yx = _placed(part, opened)  # noqa: PLW2901
        ids.append(part.id)
        finite = np.isfinite(part.ra) & np.isfinite(part.dec)
        close = finite & ((yx > -reach_px) & (yx < shape - 1 + reach_px)).all(axis=1)
        inside = close & inside_image(yx, opened.shape_yx)
        counts.update(
            {
                "read": len(yx),
                "not_finite": int((~finite).sum()),
                "outside": int((finite & ~inside).sum()),
            }
        )
        near.append(part[close])
        positions.append(yx[close])
        if task.entry.first_of_table:
            unused = ~finite if task.entry.shared_table else ~inside
            rejected.append(_rejected_rows(part, finite, unused))
    check_unique(np.concatenate(ids) if ids else np.empty(0, np.int64), url)
    if task.keep_unused and any(len(rows) for rows in rejected):
        sink = io.BytesIO()
        pq.write_table(pa.concat_tables(rejected), sink)
        storage.write_bytes(unused_url(task.url), sink.getvalue(), task.options)
    counts["used"] = counts["read"] - counts["not_finite"] - counts["outside"]
    if task.entry.shared_table:
        # What is outside this field may be in another; the first field counts the table's rows for all.
        kept = ("read", "not_finite", "used") if task.entry.first_of_table else ("used",)
        counts = Counter({name: counts[name] for name in kept})
    return (
        Detections.concatenate(near),
        np.concatenate(positions) if positions else np.empty((0, 2)),
        dict(counts),
    )


def unused_url(index_url: str) -> str:
    """Return the URL of the list of detections that a field's index could not use."""
    return index_url.removesuffix(".parquet") + UNUSED_SUFFIX


def _rejected_rows(
    part: Detections, finite: NDArray[np.bool_], unused: NDArray[np.bool_]
) -> pa.Table:
    reason = np.where(finite[unused], "outside the image", "position is not finite")
    return pa.table({"id": part.id[unused], "reason": reason.astype(str)})


def _placed(part: Detections, opened: Field) -> tuple[Detections, NDArray[np.float64]]:
    """Give detections both kinds of positions; the sky position is the one that counts where both exist."""
    if part.yx is None:
        return part, opened.world_to_pixel(part.ra, part.dec)
    radec = opened.pixel_to_world(part.yx)
    return replace(part, ra=radec[:, 0], dec=radec[:, 1]), part.yx


def _find(
    task: IndexTask, opened: Field, detections: Detections, yx: NDArray[np.float64]
) -> tuple[Pairs, list[UnplacedPair]]:
    inside = inside_image(yx, opened.shape_yx)
    unplaced: list[UnplacedPair] = []
    if task.pairs.table is None:
        rows = match_within(detections.ra, detections.dec, task.pairs.max_separation)
        rows = order_members(rows, detections)
    else:
        rows, unplaced = _predetected(task, detections)
    lost = ~np.any(inside[rows], axis=1)
    if task.pairs.table is not None and task.entry.alone:
        unplaced += [
            UnplacedPair(int(central), int(companion), "both members are outside the image")
            for central, companion in detections.id[rows[lost]]
        ]
    rows = rows[~lost]
    if len(rows) and task.entry.earlier_overlaps:
        rows = rows[~_owned_earlier(task, detections, rows)]
    return build_pairs(rows, detections, yx, opened.shape_yx, task.stamp_size), unplaced


def _predetected(
    task: IndexTask, detections: Detections
) -> tuple[NDArray[np.int64], list[UnplacedPair]]:
    """Rows of the members of pre-detected pairs; the table says who is central."""
    table = str(task.pairs.table)
    central, companion = read_pairs_table(table, task.pairs.columns, task.options)
    order = np.argsort(detections.id)
    sorted_ids = detections.id[order]
    members = np.stack([central, companion], axis=-1)
    if len(sorted_ids) == 0:
        known = np.zeros(members.shape, bool)
        position = np.zeros(members.shape, np.int64)
    else:
        position = np.minimum(np.searchsorted(sorted_ids, members), len(sorted_ids) - 1)
        known = sorted_ids[position] == members
    placed = known.all(axis=1)
    rows = order[position[placed]] if len(order) else np.empty((0, 2), np.int64)
    if not task.entry.alone:
        return rows, []
    reason = "a member is not in the detection table, has no finite position, or is far outside the image"
    lost = [UnplacedPair(int(a), int(b), reason) for a, b in members[~placed]]
    return rows, lost


def _owned_earlier(
    task: IndexTask, detections: Detections, rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether an earlier field of the survey holds one of the members."""
    owned = np.zeros(len(rows), bool)
    for url in task.entry.earlier_overlaps:
        other = Field.open(url, task.options)
        yx = other.world_to_pixel(detections.ra, detections.dec)
        inside = inside_image(yx, other.shape_yx)
        owned |= np.any(inside[rows], axis=1)
    return owned


def _write(
    index: FieldIndex, tile: NDArray[np.int32], pairs: Pairs, options: dict[str, Any]
) -> None:
    summary = {
        "tile_names": index.tile_names,
        "noise_sigma": index.noise_sigma,
        "detections": index.detections,
        "unplaced": [asdict(pair) for pair in index.unplaced],
    }
    table = pa.table(
        {
            "tile": tile,
            "blend_id": pairs.blend_id,
            "source_id": _lists(pairs.source_id),
            "yx": _lists(pairs.yx),
            "radec": _lists(pairs.radec),
            "separation_arcsec": pairs.separation_arcsec,
            "is_primary": _lists(pairs.is_primary),
            "neighbours_yx": _lists(pairs.neighbours_yx),
            "flags": _lists(pairs.flags),
        }
    ).replace_schema_metadata({_SUMMARY: json.dumps(summary)})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=ROW_GROUP, compression="zstd")
    storage.write_bytes(index.url, sink.getvalue(), options)


def _lists(values: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), math.prod(values.shape[1:]))


def read_index(url: str, options: dict[str, Any]) -> FieldIndex:
    """Read what the driver needs of an index file: the tile column and the summary, no pairs.

    Parameters
    ----------
    url : str
        Index file.
    options : dict
        Storage options.

    Returns
    -------
    FieldIndex
        As :func:`index_field` returned it.

    Raises
    ------
    NotFoundError
        If there is no such file.
    CatalogError
        If it is damaged.
    """
    with storage.open_read(url, options) as file:
        try:
            table = pq.read_table(file, columns=["tile"])
            summary = json.loads(table.schema.metadata[_SUMMARY])
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise CatalogError(f"{url}: damaged ({reason}); remove it and run again") from error
    tiles, starts = np.unique(table["tile"].to_numpy(), return_index=True)
    return FieldIndex(
        url,
        tiles.astype(np.int32),
        tuple(summary["tile_names"]),
        np.append(starts, len(table)).astype(np.int64),
        tuple(summary["noise_sigma"]),
        summary["detections"],
        tuple(UnplacedPair(**pair) for pair in summary["unplaced"]),
    )


class IndexReader:
    """Reads the pairs of a tile from an index file; row groups are kept, since neighbours share them."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._file = pq.ParquetFile(storage.open_read(url, options))
        self._lock = threading.Lock()
        self._group = lru_cache(maxsize=4)(self._read_group)

    def _read_group(self, group: int) -> Pairs:
        return _pairs(self._file.read_row_group(group))

    def read(self, start: int, stop: int) -> Pairs:
        """Read rows ``start`` to ``stop`` (exclusive).

        Parameters
        ----------
        start, stop : int
            Rows of the file.

        Returns
        -------
        Pairs
            The pairs of a tile, by blend id.
        """
        with self._lock:
            parts = [
                self._group(group)[
                    max(start - group * ROW_GROUP, 0) : max(stop - group * ROW_GROUP, 0)
                ]
                for group in range(start // ROW_GROUP, -(-stop // ROW_GROUP))
            ]
        return parts[0] if len(parts) == 1 else _concatenate(parts)


def _concatenate(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in Pairs.__dataclass_fields__
        }
    )


def _pairs(table: pa.Table) -> Pairs:
    def lists(name: str, *shape: int) -> NDArray[Any]:
        flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.reshape(flat, (-1, *shape))

    return Pairs(
        blend_id=table["blend_id"].to_numpy(),
        source_id=lists("source_id", 2),
        yx=lists("yx", 2, 2),
        radec=lists("radec", 2, 2),
        separation_arcsec=table["separation_arcsec"].to_numpy(),
        is_primary=lists("is_primary", 2),
        neighbours_yx=lists("neighbours_yx", MAX_NEIGHBOURS, 2),
        flags=lists("flags", 2),
    )
