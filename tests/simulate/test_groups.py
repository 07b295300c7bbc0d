from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import zarr

from deblend_batch.errors import ConfigError, NotFoundError, OutputConflictError
from deblend_batch.simulate.groups import check_free, create_group, finish_group, open_group

MARKER = "a_marker"


def make(url: str, *, finished: bool, marker: str = MARKER) -> None:
    group = create_group(url, marker, {"n": 1}, None, overwrite=False)
    if finished:
        finish_group(group, marker)


def test_a_finished_group_opens_with_its_attributes(tmp_path: Path) -> None:
    url = str(tmp_path / "group.zarr")
    make(url, finished=True)
    assert open_group(url, MARKER, "thing", "make one").attrs["n"] == 1


@pytest.mark.parametrize(
    ("prepared", "error", "message"),
    [
        ("nothing", NotFoundError, r"group\.zarr: no thing here; make one"),
        (
            "unfinished",
            ConfigError,
            r"group\.zarr: not a complete thing \(attribute 'a_marker'\); make one",
        ),
        ("foreign", ConfigError, r"group\.zarr: not a complete thing"),
    ],
)
def test_anything_else_does_not_open(
    tmp_path: Path, prepared: str, error: type[Exception], message: str
) -> None:
    url = str(tmp_path / "group.zarr")
    if prepared != "nothing":
        make(
            url, finished=prepared == "foreign", marker="other" if prepared == "foreign" else MARKER
        )
    with pytest.raises(error, match=message):
        open_group(url, MARKER, "thing", "make one")


@pytest.mark.parametrize("prepared", ["empty folder", "unfinished"])
def test_what_may_be_replaced_without_asking(tmp_path: Path, prepared: str) -> None:
    url = tmp_path / "group.zarr"
    if prepared == "empty folder":
        url.mkdir()
    else:
        make(str(url), finished=False)
    create_group(str(url), MARKER, {}, None, overwrite=False)


@pytest.mark.parametrize("prepared", ["file", "array", "other group", "folder of files"])
def test_what_is_never_replaced(tmp_path: Path, prepared: str) -> None:
    url = tmp_path / "group.zarr"
    if prepared == "file":
        url.write_text("mine")
    elif prepared == "array":
        zarr.create_array(str(url), shape=(2,), dtype="f4")
    elif prepared == "other group":
        make(str(url), finished=True, marker="other")
    else:
        url.mkdir()
        (url / "mine.txt").write_text("mine")
    with pytest.raises(
        OutputConflictError, match=r"group\.zarr: holds something else; choose another URL"
    ):
        create_group(str(url), MARKER, {}, None, overwrite=True)
    assert url.exists()


@pytest.mark.parametrize(
    ("finished", "overwrite", "refused"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_a_taken_place_is_known_beforehand(
    tmp_path: Path, finished: bool, overwrite: bool, refused: bool
) -> None:
    url = str(tmp_path / "group.zarr")
    make(url, finished=finished)
    expected: Any = pytest.raises(OutputConflictError, match="exists already; choose another URL")
    with expected if refused else nullcontext():
        check_free(url, MARKER, None, overwrite=overwrite)
    assert (tmp_path / "group.zarr").exists()
