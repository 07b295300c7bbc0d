"""What fuzzing has found stays mended, and the valid files that it starts from are read."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import BYTES, FITS, JSON, TEXT, altered
from tests.fuzz.targets import TARGETS, execute
from tests.fuzz.worker import MOST_SECONDS

CORPUS = sorted(Path(__file__).with_name("corpus").glob("*.bin"))


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    for content in TARGETS[name].seeds(tmp_path):
        assert execute(name, content, tmp_path)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_found_is_refused_in_one_line_or_read(path: Path, tmp_path: Path) -> None:
    name = path.stem.rpartition("-")[0]
    TARGETS[name].seeds(tmp_path)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the command line shows none
        execute(name, path.read_bytes(), tmp_path)
    assert time.monotonic() - started < MOST_SECONDS


@pytest.mark.parametrize("mutations", [BYTES, TEXT, FITS, JSON])
@settings(max_examples=30)
@given(data=st.data())
def test_alterations_alter_and_never_fail(
    mutations: tuple[object, ...], data: st.DataObject
) -> None:
    seeds = (b'{"a": [1, {"b": 2.5}]}', b"SIMPLE  =                    T".ljust(80), b"")
    content = data.draw(altered(seeds, mutations))  # type: ignore[arg-type]
    assert isinstance(content, bytes)
