"""Files are read in order, and missing ones are named."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deblend_batch import storage
from deblend_batch.errors import IrregularFileError, NotFoundError, TooLargeError
from tests.limited import run_limited


@pytest.mark.parametrize("verb", [storage.read_bytes, storage.open_read, storage.identity])
def test_missing_files_are_named(verb: object, tmp_path: Path) -> None:
    assert callable(verb)
    with pytest.raises(NotFoundError, match=r"nothing.here: no such file or object; check the URL"):
        verb(str(tmp_path / "nothing.here"))


def test_the_start_of_a_file_is_read(folder: str) -> None:
    url = storage.join(folder, "a")
    storage.write_bytes(url, b"start and end")
    assert storage.read_start(url, 5) == b"start"
    assert storage.read_start(url, 100) == b"start and end"


def test_read_many_keeps_the_order(folder: str) -> None:
    urls = [storage.join(folder, name) for name in ("c", "a", "b")]
    for url in urls:
        storage.write_bytes(url, url.encode())
    assert list(storage.read_many(urls)) == [url.encode() for url in urls]
    assert list(storage.read_many([])) == []


def test_a_file_beyond_its_bound_is_refused(folder: str) -> None:
    urls = [storage.join(folder, name) for name in ("a", "b", "c")]
    for url, size in zip(urls, (5, 6, 0), strict=True):
        storage.write_bytes(url, b"x" * size)
    assert storage.read_bytes(urls[0], most=5) == b"xxxxx"
    with pytest.raises(TooLargeError, match=r"/b: is larger than 5 bytes, which is no such file's"):
        storage.read_bytes(urls[1], most=5)
    first, second, third = storage.read_many(urls, most=[5, 5, 0])
    assert (first, third) == (b"xxxxx", b"")
    assert isinstance(second, TooLargeError)


def irregular(folder: Path, kind: str) -> str:
    """Make a pipe, or a link to a device that has no end."""
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return str(path)


READS: dict[str, Callable[[str], object]] = {
    "read_bytes": storage.read_bytes,
    "read_start": lambda url: storage.read_start(url, 10),
    "open_read": storage.open_read,
    "identity": storage.identity,
    "read_many": lambda url: raised(*storage.read_many([url])),
}


def raised(found: object) -> None:
    """Raise what was found."""
    assert isinstance(found, Exception)
    raise found


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("verb", READS)
def test_a_pipe_or_a_device_is_not_opened(verb: str, kind: str, tmp_path: Path) -> None:
    url = irregular(tmp_path, kind)
    with pytest.raises(IrregularFileError, match="not a regular file but a device, a pipe or a"):
        READS[verb](url)


def test_a_device_among_the_files_of_a_folder_has_no_identity(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"a")
    irregular(tmp_path, "device")
    with pytest.raises(IrregularFileError, match="device"):
        storage.identity(str(tmp_path))


@pytest.mark.parametrize("verb", ["read_bytes", "read_many", "open_read"])
def test_a_link_that_leaves_its_folder_is_refused(verb: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (out / "own").write_bytes(b"own")
    (out / "inner").symlink_to(out / "own")
    (out / "outer").symlink_to(tmp_path / "secret")
    (tmp_path / "link").symlink_to(out)

    def read(url: str) -> object:
        for within in (str(out), f"{tmp_path}/link/"):
            if verb == "read_many":
                (found,) = storage.read_many([url], within=within)
                if isinstance(found, Exception):
                    raise found
            else:
                getattr(storage, verb)(url, within=within)
        return None

    read(f"{out}/own")
    read(f"{out}/inner")
    with pytest.raises(IrregularFileError, match=r"outer: a link to a file outside of .*; put the"):
        read(f"{out}/outer")


class _Endless(BaseHTTPRequestHandler):
    """A server that knows no ranges and never ends its answer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endless() -> Iterator[str]:
    """The URL of a file that has no end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/run.json"
    server.shutdown()
    server.server_close()


def test_an_answer_without_an_end_is_left(endless: str) -> None:
    assert storage.read_start(endless, 100_000) == b"x" * 100_000
    with pytest.raises(TooLargeError, match="is larger than 1,000,000 bytes"):
        storage.read_bytes(endless, most=1_000_000)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_settings_that_are_a_device_end_at_once(kind: str, tmp_path: Path) -> None:
    url = irregular(tmp_path, kind)
    words = ["deblend-batch", "status", "s3://b/x", "--storage-options", url]
    ended = run_limited(words, memory=400_000_000)
    assert ended.code == 2
    assert ended.err == (
        f"error: {url}: not a regular file but a device, a pipe or a socket; give a file\n"
    )
