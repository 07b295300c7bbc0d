"""Names that others wrote become files of one folder, or are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.errors import StorageError

ESCAPES = {
    "up": "../../x",
    "dots": "..",
    "one dot": ".",
    "hidden": ".tmp-x",
    "nothing": "",
    "absolute": "/etc/passwd",
    "below": "a/b",
    "other URL": "s3://bucket/x",
    "chain": "memory::x",
    "drive": "C:x",
    "backslash": "..\\x",
    "NUL": "a\0b",
    "line end": "a\n",
    "escape": "a\x1b[2J",
    "pattern": "*",
    "one of": "[a-z]",
    "query": "a?b",
    "fragment": "a#b",
    "percent": "%2e%2e%2fx",
    "long": "y" * 201,
    "long in bytes": "é" * 101,
    "fullwidth slash": "a\uff0fb",
    "fullwidth dots": "\uff0e\uff0e",
    "two dots in one": "a\u2025b",
    "fraction slash": "a\u2044b",
    "division slash": "a\u2215b",
    "fullwidth letter": "\uff41",
    "other direction": "a\u202eb",
    "no width": "a\u200bb",
    "accent apart": "e\u0301",
    "half a character": "a\udc80",
}


@pytest.mark.parametrize("name", ESCAPES.values(), ids=ESCAPES.keys())
def test_what_is_no_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(
        StorageError, match=r"^/out/shards: .* cannot be the name of a file here"
    ) as caught:
        storage.member("/out/shards", name, ".parquet")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["y0001x0002", "f0001-y0001x0002-3", "unplaced", "a copy (1)", "é"]
)
def test_a_name_is_a_file_of_the_folder(name: str) -> None:
    assert storage.member("s3://b/out/", name, ".json") == f"s3://b/out/{name}.json"


@given(st.text())
def test_no_name_leaves_the_folder(name: str) -> None:
    try:
        url = storage.member("/out/shards", name)
    except StorageError:
        return
    assert storage.filesystem(url)[1].rsplit("/", 1) == ["/out/shards", name]
