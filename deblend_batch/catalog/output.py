"""The output folder of a run: the names of its members, and their reading and writing.

Every name that a run gives to a file stands here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from deblend_batch import storage
from deblend_batch.errors import IrregularFileError, TooLargeError
from deblend_batch.storage import Options, StoredFile

RUN = "run.json"
CATALOG = "catalog"

_SHARDS, _RECEIPTS, _QUARANTINE, _INDEXES = "shards", "ledger", "quarantine", "index"
_REPORT, _MASKS = "report.html", "masks.zarr"
_PROBE = f"{storage.TEMPORARY_PREFIX}probe"
_SHARD, _RECORD, _INDEX = ".parquet", ".json", ".parquet"
_UNUSED, _OFFERS, _DEFERRED = ".unused.parquet", ".offers.parquet", ".deferred.parquet"
_BESIDE_INDEXES = (_UNUSED, _OFFERS, _DEFERRED)


@dataclass(frozen=True)
class Output:
    """The output folder of a run, and how its store is opened.

    Reading and writing go through here, so that who has an output needs no storage options beside it.

    Parameters
    ----------
    url : str
        Path or URL of the folder; slashes at its end do not count.
    options : mapping
        fsspec storage options; they may hold secrets, and are not shown.
    """

    url: str
    options: Options = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    @property
    def run_url(self) -> str:
        """URL of ``run.json``."""
        return storage.join(self.url, RUN)

    @property
    def shards_url(self) -> str:
        """URL of the folder of shards."""
        return storage.join(self.url, _SHARDS)

    @property
    def masks_url(self) -> str:
        """URL of the Zarr group of all masks."""
        return storage.join(self.url, _MASKS)

    @property
    def catalog_url(self) -> str:
        """URL of the published catalogue."""
        return storage.join(self.url, CATALOG)

    @property
    def report_url(self) -> str:
        """URL of the QA report."""
        return storage.join(self.url, _REPORT)

    @property
    def probe_url(self) -> str:
        """URL of an object that nothing reads: it is made and removed to learn what the store allows."""
        return storage.join(self.url, _PROBE)

    def shard_url(self, tile: str) -> str:
        """Return the URL of a tile's shard."""
        return storage.member(self.shards_url, tile, _SHARD)

    def receipt_url(self, tile: str) -> str:
        """Return the URL of a tile's receipt."""
        return storage.member(storage.join(self.url, _RECEIPTS), tile, _RECORD)

    def quarantine_url(self, tile: str) -> str:
        """Return the URL of a tile's quarantine record."""
        return storage.member(storage.join(self.url, _QUARANTINE), tile, _RECORD)

    def index_url(self, name: str) -> str:
        """Return the URL of a field's pair index."""
        return storage.member(storage.join(self.url, _INDEXES), name, _INDEX)

    def unused_url(self, name: str) -> str:
        """Return the URL of the list of detections that a field's index could not use."""
        return storage.member(storage.join(self.url, _INDEXES), name, _UNUSED)

    def offers_url(self, name: str) -> str:
        """Return the URL of what a field offers to neighbours with other tables."""
        return storage.member(storage.join(self.url, _INDEXES), name, _OFFERS)

    def deferred_url(self, name: str) -> str:
        """Return the URL of the list of a field's sources that belong to others."""
        return storage.member(storage.join(self.url, _INDEXES), name, _DEFERRED)

    def shards(self) -> list[str]:
        """List the tiles that have a shard."""
        return self._names(_SHARDS, _SHARD)

    def receipts(self) -> list[str]:
        """List the tiles that have a receipt."""
        return self._names(_RECEIPTS, _RECORD)

    def quarantined(self) -> list[str]:
        """List the tiles that have a quarantine record."""
        return self._names(_QUARANTINE, _RECORD)

    def newest_receipts(self) -> list[StoredFile]:
        """List the tiles that have a receipt, the last written first, with the sizes of their receipts."""
        found = storage.list_newest(storage.join(self.url, _RECEIPTS), self.options)
        return [
            StoredFile(file.name.removesuffix(_RECORD), file.size)
            for file in found
            if file.name.endswith(_RECORD)
        ]

    def indexes(self) -> list[str]:
        """List the URLs of the pair indexes, one a field that has been indexed."""
        folder = storage.join(self.url, _INDEXES)
        names = storage.list_names(folder, self.options)
        return [storage.join(folder, name) for name in names if not name.endswith(_BESIDE_INDEXES)]

    def index_files(self) -> list[str]:
        """List the names of all files in the folder of the indexes."""
        return storage.list_names(storage.join(self.url, _INDEXES), self.options)

    def index_file_url(self, name: str) -> str:
        """Return the URL of one of them."""
        return storage.member(storage.join(self.url, _INDEXES), name)

    def remove_indexes(self) -> None:
        """Remove all pair indexes, and the lists beside them."""
        self.remove_tree(storage.join(self.url, _INDEXES))

    def names(self) -> list[str]:
        """List what stands in the folder itself."""
        return storage.list_names(self.url, self.options)

    def _names(self, folder: str, suffix: str) -> list[str]:
        names = storage.list_names(storage.join(self.url, folder), self.options)
        return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))

    def exists(self, url: str) -> bool:
        """Tell whether a member is there."""
        return storage.exists(url, self.options)

    def read(self, url: str, most: int = storage.MAX_BYTES) -> bytes:
        """Read a member of at most so many bytes."""
        return storage.read_bytes(url, self.options, most=most, within=self.url)

    def read_start(self, url: str, n_bytes: int) -> bytes:
        """Read the first bytes of a member."""
        return storage.read_start(url, n_bytes, self.options)

    def read_many(
        self, urls: Sequence[str], most: int | Sequence[int]
    ) -> Iterator[bytes | TooLargeError | IrregularFileError]:
        """Read several members of at most so many bytes each, together where the store allows."""
        return storage.read_many(urls, self.options, most=most, within=self.url)

    def open_read(self, url: str) -> BinaryIO:
        """Open a member for random reads."""
        return storage.open_read(url, self.options, within=self.url)

    def write(self, url: str, content: bytes) -> None:
        """Write a whole member, in the place of an earlier one."""
        storage.write_bytes(url, content, self.options)

    def create(self, url: str, content: bytes) -> bool:
        """Write a whole member where there is none; return whether there was none."""
        return storage.create_bytes(url, content, self.options)

    def remove(self, url: str) -> None:
        """Remove a member; an absent one is no error."""
        storage.remove(url, self.options)

    def remove_tree(self, url: str) -> None:
        """Remove a member that is a folder, and all it holds."""
        storage.remove_tree(url, self.options)
