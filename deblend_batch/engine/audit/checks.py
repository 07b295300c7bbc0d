"""Whether a shard is what its receipt says, and holds the pairs that it should: pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.parts import inner_name
from deblend_batch.catalog.records import Receipt
from deblend_batch.catalog.tables import read_table
from deblend_batch.errors import IrregularFileError, TooLargeError
from deblend_batch.tiling.blends import Blends

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Expected:
    """What the index says of a tile.

    Parameters
    ----------
    blend_id : ndarray of int64, shape (n,)
        Its blends.
    row_blend_id, row_source_id : ndarray of int64, shape (k,)
        Of each row that they should have in the catalogue.
    """

    blend_id: Ids
    row_blend_id: Ids
    row_source_id: Ids

    @classmethod
    def of(cls, blends: Blends) -> Expected:
        """Take what is needed of the blends of a tile."""
        measured = blends.is_measured
        rows = np.repeat(blends.blend_id, measured.sum(axis=1))
        return cls(blends.blend_id, rows, blends.source_id[measured])

    def __len__(self) -> int:
        return len(self.blend_id)


def read_shard(
    expected: Expected,
    tile: str,
    receipt: Receipt,
    content: bytes | TooLargeError | IrregularFileError,
) -> tuple[Ids | None, list[str]]:
    """Read the blend ids of a shard, if it is what its receipt says.

    Parameters
    ----------
    expected : Expected
        What the index says of the tile.
    tile : str
        The name under which both were found.
    receipt : Receipt
        Its receipt.
    content : bytes, TooLargeError or IrregularFileError
        The shard, or why it was not read.

    Returns
    -------
    blends : ndarray of int64, shape (n,), or None
        Each once; None where nothing of the shard can be trusted.
    problems : list of str
        One line each.
    """
    if isinstance(content, IrregularFileError):
        return None, [f"shard {tile}: {content}; remove it and its receipt, and run again"]
    if isinstance(content, TooLargeError):
        how = f"altered or truncated (more than the {receipt.bytes} bytes written)"
        return None, [f"shard {tile}: {how}; remove it and its receipt, and run again"]
    if hashlib.sha256(content).hexdigest() != receipt.sha256:
        return None, [altered(tile, receipt, len(content))]
    try:
        table = read_table(content, columns=["blend_id", "source_id", "tile", "flags"])
        counted = flags.count(table["flags"].to_numpy())
    except (pa.ArrowException, OSError, KeyError, TypeError, TooLargeError) as error:
        reason = str(error).splitlines()[0]
        return None, [
            f"shard {tile}: not a shard ({reason}); remove it and its receipt, and run again"
        ]
    problems = []
    if others := set(table["tile"].unique().to_pylist()) - {inner_name(tile)}:
        problems.append(
            f"shard {tile}: rows of another tile ({min(others)}); remove it and its receipt, and run again"
        )
    blends, sources = (table[name].to_numpy() for name in ("blend_id", "source_id"))
    if len(blends) != receipt.rows or not _are_rows_of(expected, blends, sources):
        problems.append(f"shard {tile}: {len(blends)} rows for {receipt.pairs} pairs")
    if counted != receipt.flags:
        problems.append(f"shard {tile}: its receipt counts other flags; remove both, and run again")
    return blends[np.diff(blends, prepend=blends[:1] - 1) != 0], problems


def _are_rows_of(expected: Expected, blends: Ids, sources: Ids) -> bool:
    """Tell whether those of the rows that are of a tile's blends are theirs, each source once, in order."""
    wanted = np.isin(expected.row_blend_id, blends)
    mine = np.isin(blends, expected.blend_id)
    return np.array_equal(blends[mine], expected.row_blend_id[wanted]) and np.array_equal(
        sources[mine], expected.row_source_id[wanted]
    )


def altered(tile: str, receipt: Receipt, n_bytes: int) -> str:
    """Say in one line that a shard is not the one of its receipt."""
    how = f"altered or truncated ({n_bytes} bytes, {receipt.bytes} written)"
    return f"shard {tile}: {how}; remove it and its receipt, and run again"


def compare_pairs(tile: str, expected: Ids, counted: int, shard: Ids, held: Ids) -> list[str]:
    """Compare the pairs of a tile with where they are.

    Parameters
    ----------
    tile : str
        The tile's name.
    expected : ndarray of int64
        Blend ids of its pairs in the index.
    counted : int
        Pairs in the shard, as the receipt has it.
    shard, held : ndarray of int64
        Blend ids of the pairs in the shard and in the quarantine record.
    """
    found = np.concatenate([shard, held])
    missing, foreign = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
    unique, times = np.unique(found, return_counts=True)
    problems = [
        f"tile {tile}: {_some(blends)} {what}"
        for blends, what in (
            (
                missing,
                "neither in its shard nor in quarantine; remove shard and receipt, and run again",
            ),
            (foreign, "of no pair of this tile; remove shard and receipt, and run again"),
            (unique[times > 1], "more than once in its shard and quarantine record"),
        )
        if len(blends)
    ]
    if counted + len(held) != len(expected):
        problems.append(
            f"tile {tile}: {len(expected)} pairs expected, {counted} written + {len(held)} quarantined"
        )
    return problems


def _some(blends: Ids) -> str:
    more = f" and {len(blends) - 1} more" if len(blends) > 1 else ""
    return f"blend {blends[0]}{more}"


def twice(blends: Sequence[Ids]) -> list[str]:
    """Find pairs that several shards hold.

    Parameters
    ----------
    blends : sequence of ndarray of int64
        Blend ids of each shard.
    """
    every = np.concatenate(blends) if blends else np.empty(0, np.int64)
    unique, times = np.unique(every, return_counts=True)
    return [f"{_some(unique[times > 1])}: in several places"] if (times > 1).any() else []
