"""Files are read in order, and missing ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch import storage
from deblend_batch.errors import NotFoundError


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
