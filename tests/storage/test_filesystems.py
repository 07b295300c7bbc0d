"""Which stores a URL may name: a short list, in one spelling, and no chain; whatever else fsspec knows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.config import make_config
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.inputs.survey import open_fields
from deblend_batch.errors import StorageError, UserError
from deblend_batch.models import find_card

LISTED = {
    *("file", "local", "memory", "http", "https"),
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"),
}
OTHERS = sorted(set(fsspec.available_protocols()) - LISTED)
ODD = [
    "gopher://x/y",
    "reference::memory://x",
    "zip://x.csv::http://127.0.0.1:9/a.zip",
    "simplecache::s3://bucket/x",
    "filecache::file:///etc/passwd",
    "dir::memory://x",
    "S3://bucket/x",
    "HTTP://127.0.0.1/x",
    "File:///etc/passwd",
    "s3:/bucket/x",
    "http:/127.0.0.1/x",
    "data:text/plain;base64,aWQ=",
    "data:,x",
    " s3://bucket/x",
    "/data/s3://bucket/x",
    "://x",
]


@pytest.mark.parametrize("url", [*(f"{scheme}://x/y" for scheme in OTHERS), *ODD])
def test_no_store_is_opened_but_those_listed(url: str) -> None:
    assert OTHERS
    for use in (storage.filesystem, storage.read_bytes, storage.exists, storage.list_names):
        with pytest.raises(
            StorageError, match=rf"^{re.escape(url)}: unknown protocol; use a local"
        ):
            use(url)
    with pytest.raises(StorageError, match=r"unknown protocol|is read-only"):
        storage.write_bytes(url, b"")


@pytest.mark.parametrize("scheme", ["reference", "simplecache", "github", "zip"])
def test_they_are_refused_wherever_a_url_is_given(scheme: str) -> None:
    url = f"{scheme}://x/y.zarr"
    uses: list[Callable[[], object]] = [
        lambda: read_status(Output(url)),
        lambda: find_card(url),
        lambda: storage.identity(url),
        lambda: storage.expand(f"{url}/*"),
        lambda: storage.remove_tree(url),
        lambda: storage.check_apart(url),
        lambda: open_fields(make_config({"field": url, "detections": "d", "output": "o"})),
    ]
    for use in uses:
        with pytest.raises(UserError, match="unknown protocol") as caught:
            use()
        assert "\n" not in str(caught.value)


def test_what_a_package_registers_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = known_implementations["memory"]
    monkeypatch.setitem(known_implementations, "mine", memory)
    assert "mine" in fsspec.available_protocols()
    with pytest.raises(StorageError, match="unknown protocol"):
        storage.read_bytes("mine://x")


@pytest.mark.parametrize("name", ["protocol", "target_protocol", "target_options", "fo"])
def test_no_option_names_another_store(name: str) -> None:
    with pytest.raises(StorageError, match=rf"^storage_options: '{name}' would open another store"):
        storage.read_bytes("memory://x", {"memory://": {name: "reference"}})


@pytest.mark.parametrize("name", ["a::b", "zip::c", "C:\\x", "12:30", "a b?c", "simplecache::d"])
@pytest.mark.parametrize("prefix", ["", "file://", "local://", "file:"])
def test_a_local_name_is_taken_as_it_is(name: str, prefix: str, tmp_path: Path) -> None:
    url = f"{prefix}{tmp_path}/{name}"
    storage.write_bytes(url, b"content")
    assert (tmp_path / name).read_bytes() == b"content"
    assert storage.read_bytes(url) == b"content"


@pytest.mark.parametrize("url", ["", "a\0b", "\ud800"])
def test_what_is_no_name_at_all_is_one_line(url: str) -> None:
    with pytest.raises(StorageError, match="cannot be the name of a file"):
        storage.read_bytes(url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_is_written_to_a_web_server(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:9/x"
    uses: list[Callable[[], object]] = [
        lambda: storage.write_bytes(url, b""),
        lambda: storage.create_bytes(url, b""),
        lambda: storage.remove(url),
        lambda: storage.remove_tree(url),
        lambda: storage.check_apart(url),
    ]
    for use in uses:
        with pytest.raises(StorageError, match=r"http\(s\):// is read-only; write to a local path"):
            use()


@pytest.mark.parametrize(
    ("url", "missing", "message"),
    [
        (
            "gs://bucket/x",
            ("gs", "gcsfs"),
            r"cannot open gs:// URLs here; pip install 'deblend-batch\[gcs\]'",
        ),
        (
            "abfss://bucket/x",
            ("abfss", "adlfs"),
            r"cannot open abfss:// URLs here; pip install 'deblend-batch\[azure\]'",
        ),
    ],
)
def test_a_store_whose_package_is_missing_says_what_to_install(
    url: str, missing: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    with pytest.raises(StorageError, match=message):
        storage.read_bytes(url)
