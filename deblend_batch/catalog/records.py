"""The small JSON files of a ledger: receipts of finished tiles, and quarantine records."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from deblend_batch import storage
from deblend_batch.errors import CatalogError

UNPLACED = "unplaced"
"""Name of the quarantine record of pairs that no tile holds."""


def now() -> str:
    """Return the time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Receipt:
    """What a finished tile leaves in the ledger, after its shard.

    Parameters
    ----------
    tile : str
        The tile's name.
    pairs, rows : int
        Pairs measured and rows written.
    bytes : int
        Size of the shard.
    sha256 : str
        Of the shard.
    fingerprint, model_sha256 : str
        Of the run and its weights.
    flags : dict
        Rows with each flag.
    seconds : dict
        Wall time of ``cut`` (read and cut) and ``infer`` (waiting for the model).
    worker : dict
        Where it was made: ``node``, ``pid``, ``device``, ``gpu_ids``, ``cuda_visible_devices``; and how long
        since its first tile that process has been up (``up_seconds``), and its model has computed
        (``busy_seconds``).
    written_at : str
        UTC, ISO 8601.
    left_out : sequence of int
        Blend ids of the tile's pairs that the shard does not hold: they are in the quarantine.
    masks_sha256 : str, optional
        Of the tile's masks, where the run keeps them: see :func:`deblend_batch.catalog.masks.digest`.
    """

    tile: str
    pairs: int
    rows: int
    bytes: int
    sha256: str
    fingerprint: str
    model_sha256: str
    flags: dict[str, int]
    seconds: dict[str, float]
    worker: dict[str, Any]
    written_at: str
    left_out: Sequence[int] = field(default_factory=list)
    masks_sha256: str | None = None

    def agrees(self, record: QuarantineRecord) -> bool:
        """Tell whether a quarantine record lists the pairs that the shard does not hold, and no other."""
        return set(self.left_out) == {blend for blend, _, _ in record.pairs}


@dataclass(frozen=True)
class QuarantineRecord:
    """Why a tile, or pairs that no tile holds, could not be processed.

    Parameters
    ----------
    tile : str
        The tile's name.
    reason : str
        One line.
    error : str
        Class of the error.
    attempts : int
        How often it was tried.
    pairs : sequence of tuple
        (blend id, central id, companion id) of each pair it holds.
    written_at : str
        UTC, ISO 8601.
    """

    tile: str
    reason: str
    error: str
    attempts: int
    pairs: Sequence[tuple[int, int, int]]
    written_at: str = field(default_factory=now)


R = TypeVar("R", Receipt, QuarantineRecord)


def parsed(kind: Callable[..., R], url: str, content: bytes) -> R:
    """Read the record that a file holds.

    Parameters
    ----------
    kind : {Receipt, QuarantineRecord}
        What it must be.
    url : str
        Of the file, whose name must be that of the record's tile.
    content : bytes
        Of the file.

    Returns
    -------
    Receipt or QuarantineRecord
        What it says.

    Raises
    ------
    CatalogError
        If it is damaged.
    """
    if not content:
        raise CatalogError(f"{url}: empty; run again to make it anew")
    try:
        record = kind(**json.loads(content))
        _check_types(record)
    except (ValueError, TypeError, RecursionError) as error:
        raise CatalogError(f"{url}: damaged ({error}); remove it and run again") from error
    # What it says must not decide which file is read or removed.
    if record.tile != storage.name_of(url).removesuffix(".json"):
        raise CatalogError(f"{url}: names another tile ({record.tile!r}); remove it and run again")
    return record


def _check_types(record: Receipt | QuarantineRecord) -> None:
    """Refuse what JSON allows and the sequences of a record do not."""
    if isinstance(record, Receipt):
        counts = (record.pairs, record.rows, record.bytes)
        sound = isinstance(record.left_out, list) and all(
            isinstance(number, int) for number in (*counts, *record.left_out)
        )
    else:
        sound = isinstance(record.pairs, list) and all(
            isinstance(pair, list)
            and len(pair) == 3
            and all(isinstance(each, int) for each in pair)
            for pair in record.pairs
        )
    if not sound:
        raise TypeError("its counts are no numbers, or left_out or pairs no lists of ids")


def as_json(value: dict[str, Any]) -> bytes:
    """Return what to write for a JSON object: indented, UTF-8, one line feed at its end."""
    return (json.dumps(value, indent=1) + "\n").encode()
