"""The ledger: what is finished, what is quarantined, and the state of the run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.parts import inner_name
from deblend_batch.catalog.records import (
    MAX_QUARANTINE_BYTES,
    MAX_RECORD_BYTES,
    QuarantineRecord,
    R,
    Receipt,
    RunFile,
    as_json,
    parsed,
    parsed_run,
)
from deblend_batch.errors import (
    CatalogError,
    IrregularFileError,
    NotFoundError,
    TooLargeError,
    TransientStorageError,
)

_READ_TOGETHER = 512
_TRIES = 5
_MOST_BYTES = {Receipt: MAX_RECORD_BYTES, QuarantineRecord: MAX_QUARANTINE_BYTES}
_SPARE_BYTES = 1 << 20


class Ledger:
    """What an output folder tells of its run: receipts, quarantine records, ``run.json``.

    Parameters
    ----------
    output : Output
        The folder.
    """

    def __init__(self, output: Output) -> None:
        self.output = output

    def newest_receipts(self) -> tuple[list[str], list[str]]:
        """List the tiles that have a receipt, the last written first, and those whose receipt is empty.

        An empty one, as a machine without power may leave it, counts for nothing: its tile is done again.
        """
        found = self.output.newest_receipts()
        whole = [receipt.name for receipt in found if receipt.size != 0]
        return whole, sorted(receipt.name for receipt in found if receipt.size == 0)

    def finished(self) -> set[str]:
        """Return the tiles that have both: a shard counts only with its receipt."""
        return set(self.newest_receipts()[0]) & set(self.output.shards())

    def create_shard(self, tile: str, shard: bytes) -> bytes:
        """Write a tile's shard where it has none; return the shard that stands.

        Of one that is much longer only the start comes, which is no shard.
        """
        url = self.output.shard_url(tile)
        for _ in range(_TRIES):
            if self.output.create(url, shard):
                return shard
            try:
                return self.output.read_start(url, 2 * len(shard) + _SPARE_BYTES)
            except NotFoundError:  # a retry has just taken it away
                continue
        raise TransientStorageError(f"{url}: comes and goes; is another program at work there?")

    def discard(self, tile: str) -> None:
        """Remove a tile's receipt, without which nothing of it counts, and its shard."""
        self.output.remove(self.output.receipt_url(tile))
        self.output.remove(self.output.shard_url(tile))

    def create_receipt(self, receipt: Receipt) -> bool:
        """Write a tile's receipt, which finishes it; return False if it has one, which stands."""
        url = self.output.receipt_url(receipt.tile)
        return self.output.create(url, as_json(asdict(receipt)))

    def replace_receipt(self, receipt: Receipt) -> None:
        """Write a tile's receipt in the place of another."""
        content = as_json(asdict(receipt))
        self.output.write(self.output.receipt_url(receipt.tile), content)

    def read_receipt(self, tile: str) -> Receipt:
        """Read a tile's receipt; a damaged one is a CatalogError."""
        return self._record(Receipt, self.output.receipt_url(tile))

    def read_receipts(self, tiles: Sequence[str]) -> Iterator[Receipt]:
        """Read the receipts of many tiles, in their order, with the store's own concurrency."""
        return map(_sound, self.try_receipts(tiles))

    def try_receipts(self, tiles: Sequence[str]) -> Iterator[Receipt | CatalogError]:
        """Read the receipts of many tiles; in the place of a damaged one comes the error that says so."""
        return self._try_many(Receipt, [self.output.receipt_url(tile) for tile in tiles])

    def _record(self, kind: type[R], url: str) -> R:
        (found,) = self._try_many(kind, [url])
        return _sound(found)

    def _try_many(self, kind: type[R], urls: Sequence[str]) -> Iterator[R | CatalogError]:
        for start in range(0, len(urls), _READ_TOGETHER):
            some = urls[start : start + _READ_TOGETHER]
            contents = self.output.read_many(some, _MOST_BYTES[kind])
            for url, content in zip(some, contents, strict=True):
                if not isinstance(content, bytes):
                    yield CatalogError(str(content))
                    continue
                try:
                    yield _of_name(url, parsed(kind, url, content))
                except CatalogError as error:
                    yield error

    def read_shards(
        self, receipts: Sequence[Receipt]
    ) -> Iterator[bytes | TooLargeError | IrregularFileError]:
        """Read the shards of tiles, none of them farther than its receipt says that it goes.

        Yields
        ------
        bytes, TooLargeError or IrregularFileError
            In the order of ``receipts``: the shard, or why there is none.
        """
        urls = [self.output.shard_url(receipt.tile) for receipt in receipts]
        most = [min(receipt.bytes, storage.MAX_BYTES) for receipt in receipts]
        return self.output.read_many(urls, most)

    def quarantine(self, record: QuarantineRecord) -> None:
        """Write a quarantine record."""
        self.output.write(self.output.quarantine_url(record.tile), as_json(asdict(record)))

    def read_quarantine(self, tile: str) -> QuarantineRecord:
        """Read a tile's quarantine record; a damaged one is a CatalogError."""
        return self._record(QuarantineRecord, self.output.quarantine_url(tile))

    def read_quarantines(self, tiles: Sequence[str]) -> Iterator[QuarantineRecord]:
        """Read the quarantine records of many tiles; see :meth:`read_receipts`."""
        return map(_sound, self.try_quarantines(tiles))

    def try_quarantines(self, tiles: Sequence[str]) -> Iterator[QuarantineRecord | CatalogError]:
        """Read the quarantine records of many tiles; see :meth:`try_receipts`."""
        return self._try_many(
            QuarantineRecord, [self.output.quarantine_url(tile) for tile in tiles]
        )

    def release(self, tile: str) -> None:
        """Remove a tile's quarantine record."""
        self.output.remove(self.output.quarantine_url(tile))

    def reopen(self, tile: str) -> None:
        """Make a tile with a quarantine record one that the next run takes again, all of it.

        The receipt goes first: without it nothing of the tile counts, so nothing is lost if this is cut. The
        record goes last: while it stands the tile can be found.
        """
        self.discard(tile)
        self.release(tile)

    def read_run(self) -> RunFile:
        """Read ``run.json``."""
        url = self.output.run_url
        if not self.output.exists(url):
            if self.output.receipts():
                raise CatalogError(
                    f"{url}: missing, though there are receipts in ledger/; run again with the same "
                    "config, which makes it anew"
                )
            raise CatalogError(
                f"{self.output}: not the output of a run (no run.json); check the path"
            )
        return parsed_run(url, self.output.read(url, MAX_RECORD_BYTES))

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        self.output.write(self.output.run_url, as_json(run))


def _of_name(url: str, record: R) -> R:
    """Return a record under its file's name, that of its tile: what it says decides no file that is read."""
    name = storage.name_of(url).removesuffix(".json")
    if record.tile != inner_name(name):
        raise CatalogError(f"{url}: names another tile ({record.tile!r}); remove it and run again")
    return replace(record, tile=name)


def _sound(record: R | CatalogError) -> R:
    if isinstance(record, CatalogError):
        raise record
    return record


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hash what decides the rows of a run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def differing(parts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Name the parts of a fingerprint that are not what is wanted."""
    return [name for name in wanted if name not in parts or parts[name] != wanted[name]]


_NOT_ASCII = re.compile(r"[^\x21-\x7e]")


def run_id(output: str, fingerprint: str) -> str:
    """Name a run for logs and metrics.

    Examples
    --------
    >>> run_id("s3://catalogs/cosmos-run1/", "f00")
    'cosmos-run1-beee1ebf'
    """
    url = output.rstrip("/")
    digits = hashlib.sha256(f"{url} {fingerprint}".encode()).hexdigest()[:8]
    name = _NOT_ASCII.sub("_", url.rsplit("/", 1)[-1])  # labels of metrics are ASCII
    return f"{name}-{digits}"
