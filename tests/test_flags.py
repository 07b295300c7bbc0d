"""The flag registry: one bit a flag, one definition for code and documentation."""

from __future__ import annotations

import re
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import flags
from deblend_batch.flags import REGISTRY, Flag, add_counts, count, decode

DOCS = Path(__file__).parents[1] / "docs" / "flags.md"

columns = st.lists(st.integers(0, 2 ** len(REGISTRY) - 1), max_size=50).map(
    lambda values: np.array(values, np.int32)
)


def test_the_documentation_s_table_is_the_registry() -> None:
    row = r"^\| (\d+) \| (\d+) \| (\w+) \| ([^|]+) \| ([^|]+) \|$"
    rows = re.findall(row, DOCS.read_text(), re.MULTILINE)
    expected = [(str(f.bit), str(f.value), f.name, f.description, f.advice) for f in REGISTRY]
    assert rows == expected


def test_bits_and_names_are_unique_and_fit_the_column() -> None:
    assert [flag.bit for flag in REGISTRY] == list(range(len(REGISTRY)))
    assert len({flag.name for flag in REGISTRY}) == len(REGISTRY)
    assert max(flag.value for flag in REGISTRY) <= np.iinfo(np.int32).max


def test_every_flag_of_the_module_is_registered_under_its_own_name() -> None:
    found = {name: value for name, value in vars(flags).items() if isinstance(value, Flag)}
    assert found == {flag.name: flag for flag in REGISTRY}


@pytest.mark.parametrize("flag", REGISTRY, ids=lambda flag: flag.name)
def test_a_flag_is_set_where_its_condition_holds(flag: Flag) -> None:
    bits = flag.where(np.array([True, False, True]))
    assert bits.dtype == np.int32
    assert bits.tolist() == [flag.value, 0, flag.value]
    assert decode(flag.value) == [flag.name]


@pytest.mark.parametrize(
    ("value", "names"),
    [(0, []), (1, ["EDGE"]), (9, ["EDGE", "CROWDED"]), (1 << 30, [])],
    ids=["none", "one", "two", "of the future"],
)
def test_decode(value: int, names: list[str]) -> None:
    assert decode(value) == names


@given(st.sets(st.sampled_from(REGISTRY)))
def test_decode_names_what_was_set(chosen: set[Flag]) -> None:
    value = reduce(or_, (flag.value for flag in chosen), 0)
    assert decode(value) == [flag.name for flag in REGISTRY if flag in chosen]


@given(columns)
def test_count_counts_rows_of_the_flags_that_occur(column: np.ndarray) -> None:
    expected: dict[str, int] = {}
    for value in column.tolist():
        for name in decode(value):
            expected[name] = expected.get(name, 0) + 1
    found = count(column)
    assert found == expected
    assert list(found) == [flag.name for flag in REGISTRY if flag.name in found]


@given(st.lists(columns, max_size=5))
def test_counts_of_parts_add_up_to_the_count_of_the_whole(parts: list[np.ndarray]) -> None:
    whole = np.concatenate([np.empty(0, np.int32), *parts])
    assert add_counts(map(count, parts)) == count(whole)
