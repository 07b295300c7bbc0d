"""An output lies apart from all that is read, from other outputs, and from the system's own folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.errors import OutputConflictError


@pytest.mark.parametrize(
    ("target", "read", "how"),
    [
        ("{}/f.zarr", "{}/f.zarr", "is"),
        ("{}/f.zarr/", "file://{}//f.zarr", "is"),
        ("{}/f.zarr/out", "{}/f.zarr", "lies in"),
        ("{}/sub/../f.zarr/image", "{}/f.zarr", "lies in"),
        ("{}/link/out", "{}/f.zarr", "lies in"),
        ("{}/out", "{}/out/f.zarr", "would hold"),
        ("s3://b/f.zarr/out", "s3a://b/f.zarr", "lies in"),
        ("gs://b", "gcs://b/f.zarr", "would hold"),
        ("abfs://c@account.dfs.core.windows.net/x", "az://c/x", "is"),
        ("memory:///a/b", "memory://a", "lies in"),
    ],
)
def test_an_output_and_an_input_do_not_overlap(
    target: str, read: str, how: str, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "f.zarr").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "f.zarr")
    with pytest.raises(OutputConflictError, match=rf"^output: .* {how} .*, which is read; give"):
        storage.check_apart(target.format(tmp_path), [read.format(tmp_path)], alone=False)


names = st.lists(st.sampled_from(["a", "b", "c.zarr"]), min_size=1, max_size=4)


@given(names, names)
def test_places_overlap_where_one_path_begins_the_other(one: list[str], other: list[str]) -> None:
    n = min(len(one), len(other))
    target, read = f"s3://x/{'/'.join(one)}", f"s3://x/{'/'.join(other)}"
    if one[:n] == other[:n]:
        with pytest.raises(OutputConflictError):
            storage.check_apart(target, [read], alone=False)
    else:
        storage.check_apart(target, [read], alone=False)


@pytest.mark.parametrize("target", ["/proc/x", "/sys/x", "/dev/x", "/proc/self/root/sys/x", "/dev"])
def test_the_system_s_own_folders_are_no_place(target: str) -> None:
    with pytest.raises(OutputConflictError, match="which holds the system itself and no files"):
        storage.check_apart(target)


def test_a_path_through_the_system_is_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it leads depends on the process that asks."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputConflictError, match="/proc/self/cwd/x is in /proc"):
        storage.check_apart("/proc/self/cwd/x")


def test_a_link_to_the_system_is_no_place_and_shared_memory_is(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    with pytest.raises(OutputConflictError, match="is in /proc"):
        storage.check_apart(f"{tmp_path}/link/x")
    storage.check_apart("/dev/shm/x")


@pytest.mark.parametrize("scheme", ["", "memory://"])
@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("run.json", {"deblend_batch_run": 1}, "the output of a run"),
        ("zarr.json", {"attributes": {"deblend_batch_field": 1}}, "a field"),
        (".zattrs", {"deblend_batch_field": 1}, "a field"),
    ],
)
def test_nothing_is_written_into_another_output_or_field(
    scheme: str, name: str, content: object, what: str, tmp_path: Path
) -> None:
    whole = f"{scheme}{tmp_path}/whole"
    storage.write_bytes(f"{whole}/{name}", json.dumps(content).encode())
    for inner in ("out", "shards/deep/out"):
        with pytest.raises(OutputConflictError, match=rf"lies in {what} \(.*/whole\)"):
            storage.check_apart(f"{whole}/{inner}")
        storage.check_apart(f"{whole}/{inner}", alone=False)
    storage.check_apart(whole)
    storage.check_apart(f"{whole}-2")


def test_others_documents_are_no_outputs(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"by": "another program"}')
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    storage.check_apart(f"{tmp_path}/out")
