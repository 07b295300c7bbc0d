"""A store's refusal is one line that says what to do."""

from __future__ import annotations

import errno

import pytest

from deblend_batch import storage
from deblend_batch.errors import NotFoundError, StorageError, TransientStorageError


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
        (OSError(errno.EROFS, "x"), StorageError, "u: the file system is read-only; write to"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), StorageError, "u: File name too long;"),
        (TimeoutError("late"), TransientStorageError, "u: late; check the URL, the network"),
        (ConnectionResetError("gone\nmore"), TransientStorageError, "u: gone; check"),
    ],
    ids=["missing", "denied", "quota", "read-only", "name", "timeout", "reset"],
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


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/a/b", "/a/b: nothing can be created here; write to another path"),
        (
            "s3://b/x",
            "s3://b/x: nothing can be created here (no such bucket); write to another path",
        ),
    ],
)
def test_a_refused_creation_is_no_missing_file(url: str, message: str) -> None:
    found = storage.translate(url, FileNotFoundError("no such bucket"), writing=True)
    assert type(found) is StorageError
    assert str(found) == message


@pytest.mark.parametrize("write", [storage.write_bytes, storage.create_bytes])
def test_a_special_file_system_refuses_in_one_line(write: object) -> None:
    assert callable(write)
    with pytest.raises(StorageError, match=r"^/proc/x: nothing can be created here; write to"):
        write("/proc/x", b"")


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_kwargs": 3},
        {"config_kwargs": 3},
        {"config_kwargs": {"zork": 1}},
        {"client_kwargs": {"endpoint_url": 3}},
    ],
    ids=["kind", "kind of config", "name", "value"],
)
def test_a_wrong_storage_option_is_one_line_without_its_value(wrong: dict[str, object]) -> None:
    pytest.importorskip("s3fs")
    options = {"key": "me", "secret": "hunter2", "endpoint_url": "http://127.0.0.1:9", **wrong}
    with pytest.raises(StorageError) as caught:
        storage.read_bytes("s3://b/x", options)
    assert str(caught.value) == (
        "s3://b/x: its storage options have an unknown name or a value of the wrong kind; check them"
    )
