"""The ledger: what is finished, what is quarantined, and the state of the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from deblend_batch import storage
from deblend_batch.catalog.records import QuarantineRecord, R, Receipt, as_json, parsed
from deblend_batch.errors import CatalogError, OutputConflictError

_READ_TOGETHER = 512
_RUN_VERSION = 1


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

    def receipts(self) -> list[str]:
        """List the tiles that have a receipt."""
        return self._names("ledger", ".json")

    def newest_receipts(self) -> list[str]:
        """List the tiles that have a receipt, the last written first."""
        names = storage.list_newest(storage.join(self.output, "ledger"), self.options)
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def finished(self) -> set[str]:
        """Return the tiles that have both: a shard counts only with its receipt."""
        return set(self.receipts()) & set(self.shards())

    def quarantined(self) -> list[str]:
        """List the tiles that have a quarantine record."""
        return self._names("quarantine", ".json")

    def create_shard(self, tile: str, shard: bytes) -> bytes:
        """Write a tile's shard where it has none; return the shard that stands.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        url = self.shard_url(tile)
        if storage.create_bytes(url, shard, self.options):
            return shard
        return storage.read_bytes(url, self.options)

    def replace_shard(self, tile: str, shard: bytes) -> None:
        """Write a tile's shard in the place of another.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        storage.write_bytes(self.shard_url(tile), shard, self.options)

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
        return self._read_many(Receipt, [self.receipt_url(tile) for tile in tiles])

    def _read_many(self, kind: Callable[..., R], urls: Sequence[str]) -> Iterator[R]:
        for start in range(0, len(urls), _READ_TOGETHER):
            some = urls[start : start + _READ_TOGETHER]
            for url, content in zip(some, storage.read_many(some, self.options), strict=True):
                yield parsed(kind, url, content)

    def quarantine(self, record: QuarantineRecord) -> None:
        """Write a quarantine record.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        storage.write_bytes(self.quarantine_url(record.tile), as_json(asdict(record)), self.options)

    def create_quarantine(self, record: QuarantineRecord) -> bool:
        """Write a quarantine record where there is none; False where there is one, which stands.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        url = self.quarantine_url(record.tile)
        return storage.create_bytes(url, as_json(asdict(record)), self.options)

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
        return self._read_many(QuarantineRecord, [self.quarantine_url(tile) for tile in tiles])

    def release(self, tile: str) -> None:
        """Remove a tile's quarantine record."""
        storage.remove(self.quarantine_url(tile), self.options)

    def reopen(self, tile: str) -> None:
        """Make a tile with a quarantine record one that the next run takes again, all of it.

        The receipt goes first: without it nothing of the tile counts, so nothing is lost if this is cut. The
        record goes last: while it stands the tile can be found.
        """
        storage.remove(self.receipt_url(tile), self.options)
        storage.remove(self.shard_url(tile), self.options)
        self.release(tile)

    def read_run(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises
        ------
        CatalogError
            If the folder holds no run, or ``run.json`` is damaged or of another program or release.
        """
        url = storage.join(self.output, "run.json")
        if not storage.exists(url, self.options):
            raise CatalogError(
                f"{self.output}: not the output of a run (no run.json); check the path"
            )
        try:
            run = json.loads(storage.read_bytes(url, self.options))
        except ValueError as error:
            raise CatalogError(
                f"{url}: damaged ({error}); restore it or start a new output"
            ) from error
        if not isinstance(run, dict):
            raise CatalogError(
                f"{url}: damaged (not a JSON object); restore it or start a new output"
            )
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
        storage.write_bytes(storage.join(self.output, "run.json"), as_json(run), self.options)

    def _is_barren(self) -> bool:
        """Tell whether the run has ended without a shard, a receipt or a quarantine record."""
        state = self.read_run().get("state")
        return state == "failed" and not (self.shards() or self.receipts() or self.quarantined())

    def claim(self, run: dict[str, Any]) -> dict[str, Any]:
        """Take the output for a run, or take up the run that is there.

        Parameters
        ----------
        run : dict
            The content of a new ``run.json``.

        Returns
        -------
        dict
            ``run``, or what an earlier start of the same run has written.

        Raises
        ------
        OutputConflictError
            If the output belongs to another run, or holds files of something else.
        StorageError
            If the store refuses.
        """
        url = storage.join(self.output, "run.json")
        if not storage.exists(url, self.options):
            names = storage.list_names(self.output, self.options)
            if names and "run.json" not in names:  # which another driver may just have made
                raise OutputConflictError(
                    f"{self.output}: not empty ({names[0]} is there) and not the output of a run; "
                    "give another output"
                )
            if storage.create_bytes(url, as_json(run), self.options):
                return run
        found = self.read_run()
        if found.get("fingerprint") != run["fingerprint"] and self._is_barren():
            # An earlier start failed on its inputs before it made anything: nothing of it is worth keeping.
            storage.remove_tree(storage.join(self.output, "index"), self.options)
            self.write_run(run)
            return run
        self._check_same(found, run)
        return found

    def check_claim(self, run: dict[str, Any]) -> None:
        """Check that :meth:`claim` would take up the run that is there, if there is one. Writes nothing.

        Parameters
        ----------
        run : dict
            The content of a new ``run.json``.

        Raises
        ------
        OutputConflictError
            If the output belongs to another run.
        """
        url = storage.join(self.output, "run.json")
        if storage.exists(url, self.options) and not self._is_barren():
            self._check_same(self.read_run(), run)

    def _check_same(self, found: dict[str, Any], run: dict[str, Any]) -> None:
        if found.get("fingerprint") != run["fingerprint"]:
            raise OutputConflictError(f"{self.output}: {_conflict(found, run)}")


def _conflict(found: dict[str, Any], run: dict[str, Any]) -> str:
    """Say how the run that is there differs, and what can be done."""
    parts, wanted = found.get("fingerprint_of", {}), run["fingerprint_of"]
    changed = [key for key in wanted if parts.get(key) != wanted[key]]
    if "release" in changed:
        theirs, ours = (each["versions"]["deblend_batch"] for each in (found, run))
        return (
            f"begun by deblend-batch {theirs}, and this is {ours}, whose rows may differ; "
            f"give another output, or finish it with {theirs}"
        )
    return (
        f"belongs to another run ({', '.join(changed) or 'fingerprint'} differs); "
        "give another output, or the config and inputs it was started with"
    )


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
