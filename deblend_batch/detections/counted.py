"""What a detection table says of how its sources came to be: counts in the metadata of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deblend_batch import storage
from deblend_batch.detections.formats.parquet import is_folder
from deblend_batch.detections.formats.scan import table_of
from deblend_batch.errors import DetectionsError
from deblend_batch.parquet.file import BoundedParquet
from deblend_batch.storage import Options

KEY = b"deblend_batch_refined"
_PARQUET = b"PAR1"
_DROPPED = "dropped: "
_MAX_COUNTS, _MAX_NAME, _MOST = 32, 100, 1 << 62


def dropped(reason: str) -> str:
    """Return the name of the count of those that were dropped for a reason."""
    return f"{_DROPPED}{reason}"


def to_metadata(counts: Mapping[str, int]) -> dict[bytes, bytes]:
    """Return the metadata of a table's file; none without counts."""
    return {KEY: json.dumps(dict(counts)).encode()} if counts else {}


def read_counts(url: str, options: Options | None = None) -> dict[str, int]:
    """Read what a detection table says of its sources; nothing where it is no Parquet file or does not.

    Parameters
    ----------
    url : str
        The table.
    options : mapping, optional
        fsspec storage options.
    """
    place, _ = table_of(url)
    if is_folder(place, options):
        return {}
    with storage.open_read(place, options) as file:
        if file.read(len(_PARQUET)) != _PARQUET:
            return {}
        metadata = BoundedParquet(storage.without_readahead(file)).schema.metadata or {}
    return _parsed(metadata[KEY], url) if KEY in metadata else {}


def _parsed(content: bytes, url: str) -> dict[str, int]:
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if (
        not isinstance(found, dict)
        or len(found) > _MAX_COUNTS
        or not all(len(name) <= _MAX_NAME and _is_count(n) for name, n in found.items())
    ):
        raise DetectionsError(
            f"{url}: its metadata '{KEY.decode()}' holds no counts; detect again, or write the table "
            "without it"
        )
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def say_counts(counts: Mapping[str, int]) -> str:
    """Say in a line what became of sources: those that were detected, added, dropped and kept."""
    reasons = {name: n for name, n in counts.items() if name.startswith(_DROPPED)}
    why = ", ".join(f"{name.removeprefix(_DROPPED)} {n:,}" for name, n in reasons.items() if n)
    return (
        f"{counts.get('detected', 0):,} detected, {counts.get('added', 0):,} added, "
        f"{sum(reasons.values()):,} dropped{f' ({why})' if why else ''}, {counts.get('kept', 0):,} kept"
    )
