"""Where a run is: what is asked for, else the cluster that is named, else what the work is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deblend_batch.cluster import naming
from deblend_batch.config import EngineConfig
from deblend_batch.engine.crew.where import named_place, worth_ray
from deblend_batch.engine.needs import machine
from deblend_batch.engine.needs.machine import this_machine, visible_gpus
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.errors import ConfigError


@pytest.mark.parametrize(
    ("engine", "environment", "joined", "where"),
    [
        ({}, {}, False, None),
        ({}, {"RAY_ADDRESS": "auto"}, False, "ray"),
        ({}, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, False, "ray"),
        ({}, {}, True, "ray"),
        ({"autoscale": True, "actors": 4}, {}, False, "ray"),
        ({"where": "ray"}, {}, False, "ray"),
        ({"where": "local"}, {"RAY_ADDRESS": "auto"}, True, "local"),
    ],
    ids=["nothing named", "address", "job", "joined", "autoscale", "ray", "local"],
)
def test_the_place_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
    engine: dict[str, Any],
    environment: dict[str, str],
    joined: bool,
    where: str | None,
) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(naming, "has_joined", lambda: joined)
    assert named_place(EngineConfig(**engine)) == where


def test_this_machine_alone_does_not_grow() -> None:
    with pytest.raises(ConfigError, match=r"engine.autoscale: .* give engine.where: ray"):
        named_place(EngineConfig(where="local", autoscale=True, actors=4))


@pytest.mark.parametrize(
    ("pool", "minutes"), [(ActorPool(2, 0.0, 1.0), 11.2), (ActorPool(4, 0.25, 1.0), 11.2)]
)
def test_work_of_ten_minutes_is_worth_ray(pool: ActorPool, minutes: float) -> None:
    rate = 20_000 * 0.25 * 4 if pool.gpus else 400 * 2
    assert worth_ray(int(60 * minutes * rate), pool)
    assert not worth_ray(int(60 * 10 * rate), pool)


@pytest.mark.parametrize(
    ("present", "chosen", "visible"),
    [
        ((), None, []),
        ((), "0", []),
        (("0", "1"), None, ["0", "1"]),
        (("0", "1"), "1", ["1"]),
        (("0", "1"), "GPU-ab, GPU-cd", ["GPU-ab", "GPU-cd"]),
        (("0", "1"), "", []),
        (("0", "1"), "-1", []),
    ],
)
def test_gpus_are_counted_without_torch(
    monkeypatch: pytest.MonkeyPatch,
    present: tuple[str, ...],
    chosen: str | None,
    visible: list[str],
) -> None:
    monkeypatch.setattr(machine, "_present_gpus", lambda: present)
    if chosen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == visible
    assert this_machine().gpus == len(visible)


def test_a_container_s_limits_are_this_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CONTROL_GROUP", str(tmp_path))
    free = this_machine()
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    bound = this_machine()
    assert (bound.cpus, bound.memory) == (1, int(0.7 * 2_000_000))
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert this_machine().cpus == free.cpus
    assert this_machine().memory > 2_000_000
