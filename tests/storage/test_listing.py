"""Names and globs come sorted, without temporary files."""

from __future__ import annotations

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deblend_batch import storage
from deblend_batch.errors import StorageError, TransientStorageError


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_folders_are_made_and_listed_without_temporaries(folder: str) -> None:
    for name in ("b", "a"):
        storage.write_bytes(storage.join(folder, "deep", "er", name), b"x")
    assert storage.list_names(storage.join(folder, "deep", "er")) == ["a", "b"]
    assert storage.list_names(storage.join(folder, "nothing")) == []


def test_globs_expand_sorted(folder: str) -> None:
    for name in ("f2.zarr", "f1.zarr", "notes"):
        storage.write_bytes(storage.join(folder, name, "zarr.json"), b"{}")
    found = storage.expand(storage.join(folder, "f*.zarr"))
    assert [storage.name_of(url) for url in found] == ["f1.zarr", "f2.zarr"]
    assert all(storage.exists(storage.join(url, "zarr.json")) for url in found)


def test_the_last_modified_comes_first(tmp_path: Path) -> None:
    for age, name in enumerate(("b", "c", "a")):
        (tmp_path / name).write_bytes(b"x" * age)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / ".tmp-x").touch()
    assert storage.list_newest(str(tmp_path)) == [
        storage.StoredFile(name, age) for age, name in enumerate(("b", "c", "a"))
    ]
    assert storage.list_newest(str(tmp_path / "nothing")) == []


def test_every_store_lists_the_newest(folder: str) -> None:
    for name in ("b", "a", ""):
        storage.write_bytes(storage.join(folder, f"_{name}"), name.encode())
    found = {each.name: each.size for each in storage.list_newest(folder)}
    assert found == {"_": 0, "_a": 1, "_b": 1}


def test_a_folder_under_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "d.csv").touch()
    with pytest.raises(StorageError, match=r"d.csv/out: is under a file; give another path$"):
        storage.list_names(str(tmp_path / "d.csv" / "out"))


def test_a_server_tells_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        found = [storage.exists(f"{address}/{name}") for name in ("a", "b")]
        server.shutdown()
    assert found == [True, False]


def test_a_server_that_cannot_be_reached_is_not_one_without_the_file() -> None:
    with pytest.raises(
        TransientStorageError, match=r"^http://127.0.0.1:9/d.parquet: Cannot connect .*; check the"
    ):
        storage.exists("http://127.0.0.1:9/d.parquet")
