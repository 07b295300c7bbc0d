"""The index: the blends of one field, sorted by tile, as a file that workers read by row groups.

It keeps the driver small (it holds one number a tile, no blends) and makes a resumed run start at once.
"""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.parts import prefix_of
from deblend_batch.catalog.typed import Id, Line, Number, Word, loads, typed
from deblend_batch.engine.inputs.index.carried import PREFIX
from deblend_batch.errors import CatalogError
from deblend_batch.parquet.file import Allowance, BoundedParquet
from deblend_batch.text import cause
from deblend_batch.tiling.blends import MEMBER_COLUMNS, MOST_MEMBERS, Blends

ROW_GROUP = 8192
_SUMMARY = b"deblend_batch_index"
_WRONG = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading raises of a file that is no index."""


@dataclass(frozen=True)
class UnplacedPair:
    """A pre-detected pair that no tile can hold, and why."""

    central_id: Id
    companion_id: Id
    reason: Line


class _Summary(TypedDict):
    """What an index file says of itself, beside its rows."""

    tiles: list[Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]]
    tile_names: list[Word]
    noise_sigma: list[float]
    detections: dict[Word, Number]
    unplaced: list[UnplacedPair]
    nearest_arcsec: float | None
    said: list[Line]
    deferred: dict[Word, Number]
    refined: dict[Word, Number]
    field: Word
    complete: bool


_SUMMARY_TYPE = TypeAdapter(_Summary)


@dataclass(frozen=True)
class FieldIndex:
    """What the driver knows of a field's blends: pairs, where the run's model takes pairs.

    Parameters
    ----------
    url : str
        The index file.
    tiles : ndarray of int32, shape (t,)
        For each unit of work the number of its tile, ascending; a crowded tile has several units.
    tile_names : tuple of str, length t
        Names of the units, unique in the run: those of their tiles, with a number where there are several.
    starts : ndarray of int64, shape (t + 1,)
        First row of each unit in the file; the last entry is the number of blends.
    noise_sigma : tuple of float
        Background rms per band, image units; empty where the field has a variance plane.
    detections : dict
        Counts: ``read``, ``used``, and one for each reason why rows were not used.
    unplaced : tuple of UnplacedPair
        Pre-detected pairs that no tile holds.
    nearest_arcsec : float, optional
        Where pairs were looked for and none was found: the least distance between two detections, one of
        them in the image.
    said : tuple of str
        How the detections compare with the pixels, and with other tables, a line each.
    deferred : dict of str to int
        Sources in the image that belong to other fields, by the name of the field.
    refined : dict of str to int
        What the detection table says of how its sources came to be; nothing where another field with the
        same table says it.
    field : str
        Name of this field in its run; empty where it is the only one.
    complete : bool
        Whether every source that is used has a row of its own in the catalogue.
    """

    url: str
    tiles: NDArray[np.int32]
    tile_names: tuple[str, ...]
    starts: NDArray[np.int64]
    noise_sigma: tuple[float, ...]
    detections: dict[str, int]
    unplaced: tuple[UnplacedPair, ...] = ()
    nearest_arcsec: float | None = None
    said: tuple[str, ...] = ()
    deferred: dict[str, int] = dataclass_field(default_factory=dict)
    refined: dict[str, int] = dataclass_field(default_factory=dict)
    field: str = ""
    complete: bool = False

    @property
    def name(self) -> str:
        """Name of the index, which the files beside it have, too."""
        return storage.name_of(self.url).removesuffix(".parquet")

    @property
    def n_blends(self) -> int:
        """Number of blends that tiles hold."""
        return int(self.starts[-1])

    @property
    def n_unused(self) -> int:
        """Number of detections that the file beside the index lists, because they cannot be used."""
        return sum(self.detections.get(reason, 0) for reason in ("not_finite", "outside", "copies"))


def count_missing(run: Mapping[str, Any], urls: Sequence[str]) -> int:
    """Count the fields of a run that have no index file."""
    return max(len(run["fingerprint_of"]["fields"]) - len(urls), 0)


def say_lost(n_lost: int) -> str:
    """Say in one line that index files were lost, and that they can be made again."""
    of = "" if n_lost == 1 else f" of {n_lost:,} fields"
    return (
        f"index/: the index{of} is missing, and without it nothing says which tiles there should be; "
        "run again with the same config, which makes it anew (remove nothing)"
    )


def write_index(
    output: Output,
    index: FieldIndex,
    blends: Blends,
    beside: Sequence[tuple[pa.Field, pa.Array]] = (),
) -> None:
    """Write an index file.

    Parameters
    ----------
    output : Output
        Of the run.
    index : FieldIndex
        What the driver is to know of it; its ``url`` says where.
    blends : Blends
        The blends, unit by unit.
    beside : sequence of pyarrow.Field, pyarrow.Array
        Columns that stand beside them: see :mod:`deblend_batch.engine.inputs.index.carried`.
    """
    units = np.repeat(np.arange(len(index.tiles), dtype=np.int32), np.diff(index.starts))
    summary = {
        "tiles": index.tiles.tolist(),
        "tile_names": index.tile_names,
        "noise_sigma": index.noise_sigma,
        "detections": index.detections,
        "unplaced": [asdict(pair) for pair in index.unplaced],
        "nearest_arcsec": index.nearest_arcsec,
        "said": index.said,
        "deferred": index.deferred,
        "refined": index.refined,
        "field": index.field,
        "complete": index.complete,
    }
    columns = {name: _column(getattr(blends, name)) for name in Blends.__dataclass_fields__}
    table = pa.table({"unit": units, **columns})
    for field, values in beside:
        table = table.append_column(field, values)
    table = table.replace_schema_metadata({_SUMMARY: json.dumps(summary)})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=ROW_GROUP, compression="zstd")
    output.write(index.url, sink.getvalue())


def _column(values: NDArray[Any]) -> pa.Array:
    flat = pa.array(values.ravel())
    if values.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))


def read_index(output: Output, url: str) -> FieldIndex:
    """Read what the driver needs of an index file: the unit column and the summary, no blends."""
    with output.open_read(url) as file, _damage(url):
        index = BoundedParquet(file)
        summary = typed(_SUMMARY_TYPE, loads(index.schema.metadata[_SUMMARY]))
        return _field_index(url, _starts(index, len(summary["tiles"])), summary)


@contextmanager
def _damage(url: str) -> Iterator[None]:
    """Say in one line that an index is not what we write; a remote store's failures are its own."""
    try:
        yield
    except _WRONG as error:
        if isinstance(error, OSError) and not storage.is_local(url):
            raise storage.translate(url, error) from error
        raise CatalogError(f"{url}: damaged ({cause(error)}); remove it and run again") from error


def _starts(index: BoundedParquet, n_units: int) -> NDArray[np.int64]:
    """Count the rows of each unit, and return where each begins; no more is held than a part of the rows."""
    counts, last = np.zeros(n_units, np.int64), 0
    for part in index.batches(["unit"], Allowance()):
        units = part["unit"].to_numpy()
        if not len(units):
            continue
        if units[0] < last or (np.diff(units) < 0).any() or units[-1] >= n_units:
            raise ValueError("its rows are not those of its units, in their order")
        last = units[-1]
        counts += np.bincount(units, minlength=n_units)
    if not counts.all():
        raise ValueError("a unit has no rows")
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _field_index(url: str, starts: NDArray[np.int64], summary: _Summary) -> FieldIndex:
    if len(summary["tile_names"]) != len(summary["tiles"]):
        raise ValueError("it has not one name a unit")
    prefix = prefix_of(storage.name_of(url))
    return FieldIndex(
        url,
        np.array(summary["tiles"], np.int32),
        tuple(f"{prefix}{name}" for name in summary["tile_names"]),
        starts,
        tuple(summary["noise_sigma"]),
        summary["detections"],
        tuple(summary["unplaced"]),
        summary["nearest_arcsec"],
        tuple(summary["said"]),
        summary["deferred"],
        summary["refined"],
        summary["field"],
        summary["complete"],
    )


class IndexReader:
    """Reads the blends of a tile from an index file; row groups are kept, since neighbours share them."""

    def __init__(self, output: Output, url: str) -> None:
        self._url = url
        with _damage(url):
            self._file = BoundedParquet(output.open_read(url))
            if max(self._file.group_rows, default=0) > ROW_GROUP:
                raise ValueError(f"row groups of more than {ROW_GROUP:,} blends")
        self._lock = threading.Lock()
        self._group = lru_cache(maxsize=4)(self._read_group)

    def _read_group(self, group: int) -> tuple[Blends, pa.Table]:
        with _damage(self._url):
            table = self._file.read_group(group)
            beside = [name for name in table.column_names if name.startswith(PREFIX)]
            return _blends(table), table.select(beside)

    def read(self, start: int, stop: int) -> Blends:
        """Read rows ``start`` to ``stop`` (exclusive)."""
        parts = [blends[rows] for blends, _, rows in self._parts(start, stop)]
        return parts[0] if len(parts) == 1 else Blends.concatenate(parts)

    def read_beside(self, start: int, stop: int) -> pa.Table:
        """Read what stands beside the same rows: columns of the detection table, or none."""
        return pa.concat_tables([beside[rows] for _, beside, rows in self._parts(start, stop)])

    def _parts(self, start: int, stop: int) -> list[tuple[Blends, pa.Table, slice]]:
        """Return the row groups that hold some rows, and which of each they are."""
        with self._lock:
            return [
                (
                    *self._group(group),
                    slice(max(start - group * ROW_GROUP, 0), max(stop - group * ROW_GROUP, 0)),
                )
                for group in range(start // ROW_GROUP, -(-stop // ROW_GROUP))
            ]


def _blends(table: pa.Table) -> Blends:
    width = table.schema.field("source_id").type.list_size
    if not 0 < width <= MOST_MEMBERS:
        raise ValueError(f"room for {width} members")
    columns = {}
    for name in Blends.__dataclass_fields__:
        column = table[name].combine_chunks()
        if isinstance(column.type, pa.FixedSizeListType):
            column = column.flatten()
        columns[name] = np.reshape(
            column.to_numpy(zero_copy_only=False), (len(table), *_shape(name, width))
        )
    return Blends(**columns)


def _shape(name: str, width: int) -> tuple[int, ...]:
    """Return the shape of one row of a column of blends."""
    if name == "others_yx":
        return (-1, 2)
    if name == "psf_fwhm_arcsec":
        return (-1,)
    members = (width,) if name in MEMBER_COLUMNS else ()
    return (*members, 2) if name in {"yx", "radec", "centre_yx"} else members
