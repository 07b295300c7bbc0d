"""Files are whole or absent, and are created once."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.errors import StorageError

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_what_is_written_is_read(first: bytes, second: bytes) -> None:
    url = "memory://property/file"
    storage.write_bytes(url, first)
    storage.write_bytes(url, second)
    assert storage.read_bytes(url) == second


def test_create_wins_once(folder: str) -> None:
    url = storage.join(folder, "receipt")
    assert storage.create_bytes(url, b"first")
    assert not storage.create_bytes(url, b"second")
    assert storage.read_bytes(url) == b"first"


def test_of_many_creators_exactly_one_wins(tmp_path: Path) -> None:
    url, wins = str(tmp_path / "receipt"), []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        if storage.create_bytes(url, bytes([number]) * 100_000):
            wins.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert storage.read_bytes(url) == bytes(wins) * 100_000
    assert os.listdir(tmp_path) == ["receipt"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_create_wins_once_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    url = str(tmp_path / "receipt")
    assert storage.create_bytes(url, b"first")
    assert not storage.create_bytes(url, b"second")
    assert storage.read_bytes(url) == b"first"
    assert os.listdir(tmp_path) == ["receipt"]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "shard")
    storage.write_bytes(url, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="shard: no space left on the device; free some"):
        storage.write_bytes(url, b"new")
    assert storage.read_bytes(url) == b"old"
    assert os.listdir(tmp_path) == ["shard"]


@needs_user
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        storage.write_bytes(str(tmp_path / "x"), b"")


def test_remove_is_no_error_twice(folder: str) -> None:
    url = storage.join(folder, "tree", "leaf")
    storage.write_bytes(url, b"")
    storage.remove(url)
    storage.remove(url)
    storage.write_bytes(url, b"")
    storage.remove_tree(storage.join(folder, "tree"))
    storage.remove_tree(storage.join(folder, "tree"))
    assert not storage.exists(url)
