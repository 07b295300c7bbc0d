"""Keys that repeat are found wherever they stand, with few of them in memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.detections import unique
from deblend_batch.detections.unique import Repeated, UniqueKeys, find_repeated
from tests.limited import run_limited

keys = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-50, 400))
MILLIONS = """
import numpy as np
from deblend_batch.detections.unique import UniqueKeys
rng = np.random.default_rng(0)
with UniqueKeys() as ids:
    for number in range({parts}):
        assert ids.add({keys}) is None
    found = ids.finish()
print(found)
"""


def found_in(parts: list[np.ndarray]) -> Repeated | None:
    with UniqueKeys() as taken:
        for part in parts:
            if (found := taken.add(part)) is not None:
                return found
        return taken.finish()


@settings(deadline=None)
@given(
    values=st.lists(keys, max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    held=st.sampled_from([1, 7, 40, 10_000]),
)
def test_what_repeats_is_found(values: list[int], cuts: list[int], held: int) -> None:
    times = Counter(values)
    repeated = {value for value, n in times.items() if n > 1}
    parts = np.split(np.array(values, np.int64), sorted(min(cut, len(values)) for cut in cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unique, "HELD", held)
        patch.setattr(unique, "_FRAME", 3)
        found = found_in(parts)
    assert (found is not None) == bool(repeated)
    if found is not None:
        assert found.first in repeated
        assert 1 <= found.n <= len(repeated)
        assert found.n == len(repeated) or not found.all_counted


def test_of_a_short_table_all_are_counted_and_the_first_is_named() -> None:
    parts = [np.array([9, 7, 5]), np.array([3, 5, 9])]
    assert found_in(parts) == find_repeated(np.concatenate(parts)) == Repeated(2, 9)


def test_a_part_that_repeats_ends_a_table_that_goes_on() -> None:
    with UniqueKeys() as taken:
        assert taken.add(np.array([4, 4])) is None
        assert taken.add(np.array([5])) == Repeated(1, 4, all_counted=False)


@pytest.mark.parametrize(
    ("made", "disk"),
    [
        ("rng.integers(0, 1 << 62, 1 << 20)", 1 << 28),
        ("np.arange(1 << 20) + (number << 20)", 1 << 20),
    ],
    ids=["of chance", "counting"],
)
def test_many_take_little_memory_and_no_more_disk_than_they_say(made: str, disk: int) -> None:
    program = MILLIONS.format(parts=12, keys=made)
    ended = run_limited(
        ["python", "-c", program], memory=450_000_000, disk=disk, cwd=Path(__file__).parents[2]
    )
    assert (ended.code, ended.out, ended.err) == (0, "None\n", "")
