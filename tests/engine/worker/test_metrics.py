"""What a CPU task has read is told by one counter of its process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ray.util.metrics import Counter

from deblend_batch.arrays import stores
from deblend_batch.cluster import metrics
from deblend_batch.engine.worker.metrics import reads_counted


def test_the_tasks_of_a_run_share_a_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    counted: list[tuple[float, dict[str, str]]] = []

    class Noted(Counter):  # type: ignore[misc]  # it has no types
        def __init__(self, name: str, *args: Any) -> None:
            super().__init__(name, *args)
            made.append(name)

        def inc(self, value: float, tags: dict[str, str]) -> None:
            super().inc(value, tags)
            counted.append((value, tags))

    monkeypatch.setattr(metrics, "Counter", Noted)
    url = str(tmp_path / "a.zarr")
    zarr.create_group(url).create_array("image", data=np.ones(8, "f4"), compressors=None)
    member = stores.open_member(stores.open_group(url), url, "image")
    assert member is not None
    for run in ("one", "one", "two", "one"):
        with reads_counted(f"{tmp_path.name}-{run}"):
            assert member[...] is not None
    with reads_counted(f"{tmp_path.name}-one"):
        pass
    assert made == ["deblend_batch_read_bytes_total"] * 2
    assert [value for value, _ in counted] == [32.0] * 4
    assert [tags["run"].rpartition("-")[2] for _, tags in counted] == ["one", "one", "two", "one"]
