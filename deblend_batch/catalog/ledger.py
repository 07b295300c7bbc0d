"""The ledger: what is finished, what is quarantined, and the state of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from deblend_batch import storage
from deblend_batch.catalog.records import QuarantineRecord, R, Receipt, as_json, parsed
from deblend_batch.errors import CatalogError, NotFoundError, TransientStorageError

_READ_TOGETHER = 512
_TRIES = 5
_SPARE_BYTES = 1 << 20
_RUN_VERSION = 1
_MEND_RUN = "remove it and run again with the same config, which makes it anew from the receipts"


class Ledger:
    """The files of an output folder, besides the index.

    Parameters
    ----------
    output : str
        URL of the output folder.
    options : dict
        Storage options.
    """

    def __init__(self, output: str, options: dict[str, Any] | None = None) -> None:
        self.output = output.rstrip("/")
        self.options = options or {}

    @property
    def run_url(self) -> str:
        """URL of ``run.json``."""
        return storage.join(self.output, "run.json")

    def shard_url(self, tile: str) -> str:
        """Return the URL of a tile's shard."""
        return storage.member(f"{self.output}/shards", tile, ".parquet")

    def receipt_url(self, tile: str) -> str:
        """Return the URL of a tile's receipt."""
        return storage.member(f"{self.output}/ledger", tile, ".json")

    def quarantine_url(self, tile: str) -> str:
        """Return the URL of a tile's quarantine record."""
        return storage.member(f"{self.output}/quarantine", tile, ".json")

    def _names(self, folder: str, suffix: str) -> list[str]:
        names = storage.list_names(storage.join(self.output, folder), self.options)
        return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]

    def shards(self) -> list[str]:
        """List the tiles that have a shard."""
        return self._names("shards", ".parquet")

    def shard_sizes(self) -> dict[str, int | None]:
        """List the tiles that have a shard, with its bytes where the store says them."""
        found = storage.list_newest(storage.join(self.output, "shards"), self.options)
        return {
            file.name.removesuffix(".parquet"): file.size
            for file in found
            if file.name.endswith(".parquet")
        }

    def receipts(self) -> list[str]:
        """List the tiles that have a receipt."""
        return self._names("ledger", ".json")

    def newest_receipts(self) -> tuple[list[str], list[str]]:
        """List the tiles that have a receipt, the last written first, and those whose receipt is empty.

        An empty one, as a machine without power may leave it, counts for nothing: its tile is done again.
        """
        found = storage.list_newest(storage.join(self.output, "ledger"), self.options)
        files = [file for file in found if file.name.endswith(".json")]
        whole = [file.name.removesuffix(".json") for file in files if file.size != 0]
        return whole, sorted(file.name.removesuffix(".json") for file in files if file.size == 0)

    def finished(self) -> set[str]:
        """Return the tiles that have both: a shard counts only with its receipt."""
        return set(self.newest_receipts()[0]) & set(self.shards())

    def quarantined(self) -> list[str]:
        """List the tiles that have a quarantine record."""
        return self._names("quarantine", ".json")

    def create_shard(self, tile: str, shard: bytes) -> bytes:
        """Write a tile's shard where it has none; return the shard that stands.

        Of one that is much longer only the start comes, which is no shard.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        url = self.shard_url(tile)
        for _ in range(_TRIES):
            if storage.create_bytes(url, shard, self.options):
                return shard
            try:
                return storage.read_start(url, 2 * len(shard) + _SPARE_BYTES, self.options)
            except NotFoundError:  # a retry has just taken it away
                continue
        raise TransientStorageError(f"{url}: comes and goes; is another program at work there?")

    def read_shard(self, receipt: Receipt) -> bytes:
        """Read the shard of a finished tile, if it has the size that its receipt says; no more is read.

        Raises
        ------
        CatalogError
            If it has another.
        NotFoundError, StorageError
            If it cannot be read.
        """
        url = self.shard_url(receipt.tile)
        content = storage.read_start(url, max(receipt.bytes, 0) + 1, self.options)
        if len(content) != receipt.bytes:
            raise CatalogError(f"{url}: damaged; see deblend-batch verify {self.output}")
        return content

    def discard(self, tile: str) -> None:
        """Remove a tile's receipt, without which nothing of it counts, and its shard."""
        storage.remove(self.receipt_url(tile), self.options)
        storage.remove(self.shard_url(tile), self.options)

    def create_receipt(self, receipt: Receipt) -> bool:
        """Write a tile's receipt where it has none; with it the tile is finished.

        Returns
        -------
        bool
            False if it has one, which stands.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        url = self.receipt_url(receipt.tile)
        return storage.create_bytes(url, as_json(asdict(receipt)), self.options)

    def replace_receipt(self, receipt: Receipt) -> None:
        """Write a tile's receipt in the place of another.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        content = as_json(asdict(receipt))
        storage.write_bytes(self.receipt_url(receipt.tile), content, self.options)

    def read_receipt(self, tile: str) -> Receipt:
        """Read a tile's receipt.

        Raises
        ------
        NotFoundError
            If the tile has none.
        CatalogError
            If it is damaged.
        """
        url = self.receipt_url(tile)
        return parsed(Receipt, url, storage.read_bytes(url, self.options))

    def read_receipts(self, tiles: Sequence[str]) -> Iterator[Receipt]:
        """Read the receipts of many tiles, with the store's own concurrency.

        Parameters
        ----------
        tiles : sequence of str
            Names.

        Yields
        ------
        Receipt
            In the order of ``tiles``.

        Raises
        ------
        NotFoundError
            If a tile has none.
        CatalogError
            If one is damaged.
        """
        return map(_sound, self.try_receipts(tiles))

    def try_receipts(self, tiles: Sequence[str]) -> Iterator[Receipt | CatalogError]:
        """Do as :meth:`read_receipts` does; one that is damaged comes as the error that says so."""
        return self._try_many(Receipt, [self.receipt_url(tile) for tile in tiles])

    def _try_many(self, kind: Callable[..., R], urls: Sequence[str]) -> Iterator[R | CatalogError]:
        for start in range(0, len(urls), _READ_TOGETHER):
            some = urls[start : start + _READ_TOGETHER]
            for url, content in zip(some, storage.read_many(some, self.options), strict=True):
                try:
                    yield parsed(kind, url, content)
                except CatalogError as error:
                    yield error

    def quarantine(self, record: QuarantineRecord) -> None:
        """Write a quarantine record.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        storage.write_bytes(self.quarantine_url(record.tile), as_json(asdict(record)), self.options)

    def read_quarantine(self, tile: str) -> QuarantineRecord:
        """Read a tile's quarantine record.

        Raises
        ------
        NotFoundError
            If the tile has none.
        CatalogError
            If it is damaged.
        """
        url = self.quarantine_url(tile)
        return parsed(QuarantineRecord, url, storage.read_bytes(url, self.options))

    def read_quarantines(self, tiles: Sequence[str]) -> Iterator[QuarantineRecord]:
        """Read the quarantine records of many tiles; see :meth:`read_receipts`."""
        return map(_sound, self.try_quarantines(tiles))

    def try_quarantines(self, tiles: Sequence[str]) -> Iterator[QuarantineRecord | CatalogError]:
        """Read the quarantine records of many tiles; see :meth:`try_receipts`."""
        return self._try_many(QuarantineRecord, [self.quarantine_url(tile) for tile in tiles])

    def release(self, tile: str) -> None:
        """Remove a tile's quarantine record."""
        storage.remove(self.quarantine_url(tile), self.options)

    def reopen(self, tile: str) -> None:
        """Make a tile with a quarantine record one that the next run takes again, all of it.

        The receipt goes first: without it nothing of the tile counts, so nothing is lost if this is cut. The
        record goes last: while it stands the tile can be found.
        """
        self.discard(tile)
        self.release(tile)

    def read_run(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises
        ------
        CatalogError
            If the folder holds no run, or ``run.json`` is damaged or of another program or release.
        """
        url = self.run_url
        if not storage.exists(url, self.options):
            if self.receipts():
                raise CatalogError(
                    f"{url}: missing, though there are receipts in ledger/; run again with the same "
                    "config, which makes it anew"
                )
            raise CatalogError(
                f"{self.output}: not the output of a run (no run.json); check the path"
            )
        try:
            run = json.loads(storage.read_bytes(url, self.options))
        except (ValueError, RecursionError) as error:
            raise CatalogError(f"{url}: damaged ({error}); {_MEND_RUN}") from error
        if not isinstance(run, dict):
            raise CatalogError(f"{url}: damaged (not a JSON object); {_MEND_RUN}")
        version = run.get("deblend_batch_run")
        if version is None:
            raise CatalogError(f"{url}: not that of deblend-batch; check the path")
        if version != _RUN_VERSION:
            raise CatalogError(
                f"{url}: written by another release (version {version!r}, not {_RUN_VERSION}); "
                "update deblend-batch"
            )
        return run

    def write_run(self, run: dict[str, Any]) -> None:
        """Write ``run.json``.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        storage.write_bytes(self.run_url, as_json(run), self.options)


def _sound(record: R | CatalogError) -> R:
    if isinstance(record, CatalogError):
        raise record
    return record


def fingerprint(parts: dict[str, Any]) -> str:
    """Hash what decides the rows of a run.

    Parameters
    ----------
    parts : dict
        JSON-able values.

    Returns
    -------
    str
        sha256, hexadecimal.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def run_id(output: str, fingerprint: str) -> str:
    """Name a run for logs and metrics.

    Parameters
    ----------
    output : str
        Its output folder.
    fingerprint : str
        Of what decides its rows.

    Returns
    -------
    str
        The folder's name and eight digits that tell it from others of that name.

    Examples
    --------
    >>> run_id("s3://catalogs/cosmos-run1/", "f00")
    'cosmos-run1-beee1ebf'
    """
    url = output.rstrip("/")
    digits = hashlib.sha256(f"{url} {fingerprint}".encode()).hexdigest()[:8]
    return f"{url.rsplit('/', 1)[-1]}-{digits}"
