"""The ledger: what is finished, what is quarantined, and the state of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from deblend_batch.catalog.output import LAYOUT_KEY, LAYOUT_VERSION, Output
from deblend_batch.catalog.records import QuarantineRecord, R, Receipt, as_json, parsed
from deblend_batch.errors import CatalogError, NotFoundError, TransientStorageError

_READ_TOGETHER = 512
_TRIES = 5
_MEND_RUN = "remove it and run again with the same config, which makes it anew from the receipts"


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
        """Write a tile's shard where it has none; return the shard that stands."""
        url = self.output.shard_url(tile)
        for _ in range(_TRIES):
            if self.output.create(url, shard):
                return shard
            try:
                return self.output.read(url)
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
        url = self.output.receipt_url(tile)
        return parsed(Receipt, url, self.output.read(url))

    def read_receipts(self, tiles: Sequence[str]) -> Iterator[Receipt]:
        """Read the receipts of many tiles, in their order, with the store's own concurrency."""
        return map(_sound, self.try_receipts(tiles))

    def try_receipts(self, tiles: Sequence[str]) -> Iterator[Receipt | CatalogError]:
        """Read the receipts of many tiles; in the place of a damaged one comes the error that says so."""
        return self._try_many(Receipt, [self.output.receipt_url(tile) for tile in tiles])

    def _try_many(self, kind: Callable[..., R], urls: Sequence[str]) -> Iterator[R | CatalogError]:
        for start in range(0, len(urls), _READ_TOGETHER):
            some = urls[start : start + _READ_TOGETHER]
            for url, content in zip(some, self.output.read_many(some), strict=True):
                try:
                    yield parsed(kind, url, content)
                except CatalogError as error:
                    yield error

    def quarantine(self, record: QuarantineRecord) -> None:
        """Write a quarantine record."""
        self.output.write(self.output.quarantine_url(record.tile), as_json(asdict(record)))

    def read_quarantine(self, tile: str) -> QuarantineRecord:
        """Read a tile's quarantine record; a damaged one is a CatalogError."""
        url = self.output.quarantine_url(tile)
        return parsed(QuarantineRecord, url, self.output.read(url))

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

    def read_run(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises
        ------
        CatalogError
            If the folder holds no run, or ``run.json`` is damaged or of another program or release.
        """
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
        try:
            run = json.loads(self.output.read(url))
        except (ValueError, RecursionError) as error:
            raise CatalogError(f"{url}: damaged ({error}); {_MEND_RUN}") from error
        if not isinstance(run, dict):
            raise CatalogError(f"{url}: damaged (not a JSON object); {_MEND_RUN}")
        version = run.get(LAYOUT_KEY)
        if version is None:
            raise CatalogError(f"{url}: not that of deblend-batch; check the path")
        if version != LAYOUT_VERSION:
            raise CatalogError(
                f"{url}: written by another release (version {version!r}, not {LAYOUT_VERSION}); "
                "update deblend-batch"
            )
        return run

    def write_run(self, run: dict[str, Any]) -> None:
        """Write ``run.json``."""
        self.output.write(self.output.run_url, as_json(run))


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
