"""Which options a URL is opened with: those of the longest prefix that it lies under."""

from __future__ import annotations

from typing import Any

import pytest

from deblend_batch import storage
from deblend_batch.errors import StorageError

OPTIONS: dict[str, Any] = {
    "profile": "mine",
    "s3://public": {"anon": True},
    "s3://public/private/": {"key": "k"},
    "gs://": {"token": "anon"},
}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://public", {"anon": True}),
        ("s3://public/field.zarr", {"anon": True}),
        ("s3://public/private", {"key": "k"}),
        ("s3://public/private/x", {"key": "k"}),
        ("s3://public/privateer", {"anon": True}),
        ("s3://public-too/x", {"profile": "mine"}),
        ("gs://bucket/x", {"token": "anon"}),
        ("az://bucket/x", {"profile": "mine"}),
        ("/a/path", {}),
        ("file:///a/path", {}),
    ],
)
def test_the_longest_prefix_gives_all_options(url: str, expected: dict[str, Any]) -> None:
    assert storage.options_of(url, OPTIONS) == expected


def test_without_options_there_are_none() -> None:
    assert storage.options_of("s3://b/x", None) == storage.options_of("s3://b/x", {}) == {}


def test_a_prefix_without_a_section_is_refused_without_its_value() -> None:
    with pytest.raises(
        StorageError, match=r"^storage_options: 's3://b' must be a section"
    ) as caught:
        storage.read_bytes("s3://b/x", {"s3://b": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "url", "options", "attribute", "value"),
    [
        ("gcsfs", "gs://bucket/x", {"token": "anon", "project": "mine"}, "project", "mine"),
        (
            "adlfs",
            "az://container/x",
            {"account_name": "mine", "anon": True},
            "account_name",
            "mine",
        ),
    ],
)
def test_options_reach_the_clients_of_other_clouds(
    package: str, url: str, options: dict[str, Any], attribute: str, value: str
) -> None:
    pytest.importorskip(package)
    fs, _ = storage.filesystem(url, {f"{storage.scheme_of(url)}://": options})
    assert getattr(fs, attribute) == value
