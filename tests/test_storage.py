"""Files are whole or absent, and a store's refusal is one line that says what to do."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.errors import NotFoundError, StorageError, TransientStorageError

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh folder in each kind of store."""
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_what_is_written_is_read(first: bytes, second: bytes) -> None:
    url = "memory://property/file"
    storage.write_bytes(url, first)
    storage.write_bytes(url, second)
    assert storage.read_bytes(url) == second


def test_folders_are_made_and_listed_without_temporaries(folder: str) -> None:
    for name in ("b", "a"):
        storage.write_bytes(storage.join(folder, "deep", "er", name), b"x")
    assert storage.list_names(storage.join(folder, "deep", "er")) == ["a", "b"]
    assert storage.list_names(storage.join(folder, "nothing")) == []


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


def test_a_full_disk_is_one_line() -> None:
    """The kernel's own always-full device stands in for a full disk."""
    error = storage.translate("/data/x", _write_to("/dev/full"))
    assert str(error) == "/data/x: no space left on the device; free some and run again"


def _write_to(path: str) -> OSError:
    with (
        pytest.raises(OSError, match="No space left") as caught,
        open(path, "wb", buffering=0) as file,
    ):
        file.write(b"x")
    return caught.value


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (FileNotFoundError("x"), NotFoundError, "u: no such file or object"),
        (PermissionError("x"), StorageError, "u: permission denied; check the owner"),
        (OSError(errno.EDQUOT, "x"), StorageError, "u: no space left"),
        (OSError(errno.EROFS, "Read-only file system"), StorageError, "u: Read-only file system"),
        (TimeoutError("late"), TransientStorageError, "u: late; check the URL, the network"),
        (ConnectionResetError("gone\nmore"), TransientStorageError, "u: gone; check"),
    ],
    ids=["missing", "denied", "quota", "read-only", "timeout", "reset"],
)
def test_a_store_s_exceptions_become_one_line(
    raised: Exception, kind: type[Exception], message: str
) -> None:
    found = storage.translate("u", raised)
    assert type(found) is kind
    assert str(found).startswith(message)
    assert "\n" not in str(found)


def test_other_exceptions_are_left_alone() -> None:
    bug = KeyError("x")
    assert storage.translate("u", bug) is bug


@pytest.mark.parametrize("verb", [storage.read_bytes, storage.open_read, storage.identity])
def test_missing_files_are_named(verb: object, tmp_path: Path) -> None:
    assert callable(verb)
    with pytest.raises(NotFoundError, match=r"nothing.here: no such file or object; check the URL"):
        verb(str(tmp_path / "nothing.here"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gopher://x/y", "gopher://x/y: .*; use a local path, s3://"),
        ("gs://bucket/x", r"cannot open gs:// URLs here; pip install 'deblend-batch\[gcs\]'"),
    ],
)
def test_unknown_schemes_say_what_to_install_or_use(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        storage.read_bytes(url)


@needs_user
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        storage.write_bytes(str(tmp_path / "x"), b"")


def test_identity_follows_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"x" * 10)
    two.write_bytes(b"x" * 10)
    assert storage.identity(str(one)) == storage.identity(str(two))
    two.write_bytes(b"x" * 9 + b"y")
    assert storage.identity(str(one)) != storage.identity(str(two))
    for name in ("a", "b"):
        (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(name.encode())
    before = storage.identity(str(tmp_path / "folder"))
    (tmp_path / "folder" / "b").write_bytes(b"c")
    assert storage.identity(str(tmp_path / "folder")) != before


def test_globs_expand_sorted(folder: str) -> None:
    for name in ("f2.zarr", "f1.zarr", "notes"):
        storage.write_bytes(storage.join(folder, name, "zarr.json"), b"{}")
    found = storage.expand(storage.join(folder, "f*.zarr"))
    assert [storage.name_of(url) for url in found] == ["f1.zarr", "f2.zarr"]
    assert all(storage.exists(storage.join(url, "zarr.json")) for url in found)


def test_read_many_keeps_the_order(folder: str) -> None:
    urls = [storage.join(folder, name) for name in ("c", "a", "b")]
    for url in urls:
        storage.write_bytes(url, url.encode())
    assert storage.read_many(urls) == [url.encode() for url in urls]
    assert storage.read_many([]) == []


def test_remove_is_no_error_twice(folder: str) -> None:
    url = storage.join(folder, "tree", "leaf")
    storage.write_bytes(url, b"")
    storage.remove(url)
    storage.remove(url)
    storage.write_bytes(url, b"")
    storage.remove_tree(storage.join(folder, "tree"))
    storage.remove_tree(storage.join(folder, "tree"))
    assert not storage.exists(url)
