"""The JSON files of an output: receipts of finished tiles, quarantine records, and ``run.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NotRequired,  # pydantic knows no other before Python 3.12
    TypeVar,
)

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from deblend_batch.catalog.typed import (
    Id,
    Line,
    Moment,
    Number,
    Seconds,
    Values,
    Word,
    check_plain,
    loads,
    typed,
)
from deblend_batch.errors import CatalogError

RUN_VERSION: Literal[1] = 1
"""Of the layout of ``run.json``."""
MAX_RECORD_BYTES = 1 << 25
"""Size of ``run.json``, of 80,000 fields, and of a receipt."""
MAX_QUARANTINE_BYTES = 1 << 27
"""Size of a quarantine record, of 1.6 million pairs."""
_MEND_RUN = "remove it and run again with the same config, which makes it anew from the receipts"
_STRICT = ConfigDict(extra="forbid")

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
        Pairs (or blends) measured, and rows written.
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

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    tile: Word
    pairs: Number
    rows: Number
    bytes: Number
    sha256: Word
    fingerprint: Word
    model_sha256: Word
    flags: dict[Word, Number]
    seconds: dict[Word, Seconds]
    worker: Values
    written_at: Moment
    left_out: Sequence[Id] = field(default_factory=list)
    masks_sha256: Word | None = None

    def agrees(self, record: QuarantineRecord) -> bool:
        """Tell whether a quarantine record lists the pairs that the shard does not hold, and no other."""
        return set(self.left_out) == {blend for blend, *_ in record.pairs}


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
        (blend id, central id, companion id) of each pair it holds; of a blend of any number of members the id
        and those of the members that it measures, central first.
    written_at : str
        UTC, ISO 8601.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    tile: Word
    reason: Line
    error: Word
    attempts: Number
    pairs: Sequence[Annotated[tuple[Id, ...], Field(min_length=2)]]
    written_at: Moment = field(default_factory=now)


State = Literal["running", "interrupted", "failed", "complete", "complete_with_quarantine"]


class Counts(TypedDict):
    """Pairs, or tiles, by what has become of them."""

    expected: Number
    written: Number
    quarantined: Number
    pending: Id


class Totals(TypedDict):
    """What a run has counted."""

    pairs: Counts
    rows: Number
    tiles: Counts
    detections: dict[Word, Number]
    deferred: NotRequired[dict[Word, Number]]
    refined: NotRequired[dict[Word, Number]]
    retries: dict[Word, Number]
    flags: dict[Word, Number]
    flagged_tiles: Number


class FingerprintParts(TypedDict):
    """What decides the rows of a run, as far as others look at it; options are kept as they are."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    release: Word
    fields: list[Word]
    detections: list[Word]
    model: Word


class RunPart(TypedDict):
    """What the ``run.json`` of a merged catalogue keeps of that of a part."""

    run: Word
    state: State
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    fingerprint_of: Annotated[FingerprintParts, AfterValidator(check_plain)]
    config: Values
    versions: dict[Word, Word]
    created_at: Moment
    updated_at: Moment
    totals: Totals


class RunFile(TypedDict):
    """The content of ``run.json``."""

    deblend_batch_run: Literal[1]
    run: Word
    state: State
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    fingerprint_of: Annotated[FingerprintParts, AfterValidator(check_plain)]
    config: Values
    versions: dict[Word, Word]
    earlier_versions: list[dict[Word, Word]]
    created_at: Moment
    updated_at: Moment
    totals: Totals
    workers: list[Values]
    memory: Values | None
    error: Line | None
    parts: NotRequired[list[RunPart]]


R = TypeVar("R", Receipt, QuarantineRecord)
_KINDS: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (Receipt, QuarantineRecord, RunFile)
}


def parsed(kind: type[R], url: str, content: bytes) -> R:
    """Read the record that a file holds.

    Parameters
    ----------
    kind : {Receipt, QuarantineRecord}
        What it must be.
    url : str
        Of the file.
    content : bytes
        Of the file.
    """
    if not content:
        raise CatalogError(f"{url}: empty; run again to make it anew")
    try:
        record: R = typed(_KINDS[kind], loads(content))
    except ValueError as error:
        raise CatalogError(f"{url}: damaged ({error}); remove it and run again") from error
    return record


def parsed_run(url: str, content: bytes) -> RunFile:
    """Read what ``run.json`` holds.

    Parameters
    ----------
    url : str
        Of the file.
    content : bytes
        Of the file.
    """
    try:
        run = loads(content)
    except ValueError as error:
        raise CatalogError(f"{url}: damaged ({error}); {_MEND_RUN}") from error
    if not isinstance(run, dict):
        raise CatalogError(f"{url}: damaged (not a JSON object); {_MEND_RUN}")
    version = run.get("deblend_batch_run")
    if version is None:
        raise CatalogError(f"{url}: not that of deblend-batch; check the path")
    if isinstance(version, int) and version > RUN_VERSION:
        raise CatalogError(
            f"{url}: written by another release (version {version}, not {RUN_VERSION}); "
            "update deblend-batch"
        )
    try:
        found: RunFile = typed(_KINDS[RunFile], run)
    except ValueError as error:
        raise CatalogError(f"{url}: damaged ({error}); {_MEND_RUN}") from error
    return found


def as_json(value: Mapping[str, Any]) -> bytes:
    """Return what to write for a JSON object: indented, UTF-8, one line feed at its end."""
    return (json.dumps(value, indent=1) + "\n").encode()
