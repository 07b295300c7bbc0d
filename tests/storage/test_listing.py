"""Names and globs come sorted, without temporary files."""

from __future__ import annotations

from deblend_batch import storage


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
