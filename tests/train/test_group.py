"""Replicas under Ray Train, on the session's cluster: two workers on two CPUs, over gloo."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ray.train import ControllerError, WorkerGroupError
from ray.util.state import list_actors

from deblend_batch.errors import ConfigError, StorageError
from deblend_batch.models import find_card
from deblend_batch.models.weights import read_weights
from deblend_batch.simulate.galaxies.draw import draw_pool
from deblend_batch.simulate.galaxies.pool import save_pool
from deblend_batch.train.config import TrainConfig, make_train_config
from deblend_batch.train.group import _reason
from deblend_batch.train.news import Report
from deblend_batch.train.run import train
from tests.jobs.test_submit import submit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    url = str(tmp_path_factory.mktemp("pool") / "pool.zarr")
    save_pool(url, draw_pool("candels-h", 128, 1))
    return make_train_config(
        {
            "model": "blend2flux-small",
            "pool": {"url": url},
            "steps": 16,
            "evaluate_every": 4,
            "batch_size": 32,
            "replicas": 2,
            "workers": 0,
            "threads": 1,
            "validation_pairs": 64,
            "test_pairs": 64,
        }
    )


@dataclass(frozen=True)
class Job:
    """A training that was submitted: its folder, and what it printed."""

    folder: Path
    said: str


@pytest.fixture(scope="module")
def undisturbed(head: Any, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A training by two replicas, as a cluster's user starts it."""
    folder = tmp_path_factory.mktemp("two-replicas")
    written = write_config(folder, config.model_copy(update={"replicas": 1}))
    words = [str(folder / "out"), "--config", written, "--replicas", "2"]
    ended = submit(head, "jobs/train_model.py", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Job(folder / "out", ended.stdout)


def write_config(folder: Path, config: TrainConfig) -> str:
    url = folder / "config.yaml"
    url.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(url)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(str(folder / "blend2flux-small.safetensors")).tensors()


def test_a_submitted_job_trains_with_two_replicas(undisturbed: Job) -> None:
    for step in (4, 8, 12, 16):
        assert f"step {step}/16  loss " in undisturbed.said
    url = str(undisturbed.folder / "blend2flux-small.safetensors")
    assert url in undisturbed.said
    card = find_card(url)
    assert card.training["config"]["replicas"] == 2
    assert card.test_metrics["pairs"] == 64


def test_two_replicas_learn_what_one_learns(
    config: TrainConfig, undisturbed: Job, tmp_path: Path
) -> None:
    reports: list[Report] = []
    train(config.model_copy(update={"replicas": 1}), str(tmp_path), reports.append)
    losses = re.findall(r"^step \d+/16  loss (\S+)", undisturbed.said, re.MULTILINE)
    np.testing.assert_allclose(
        [float(loss) for loss in losses], [one.loss for one in reports], rtol=1e-3
    )
    expected = weights(undisturbed.folder)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(expected[name], tensor, rtol=1e-3, atol=1e-5)


def kill_a_replica(dashboard: str, reports: list[Report]) -> Callable[[Report], None]:
    """Return a listener that keeps the reports, and kills one of the replicas after the first."""

    def listen(report: Report) -> None:
        reports.append(report)
        if len(reports) == 1:
            alive = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
            os.kill(list_actors(dashboard, filters=alive, detail=True)[0].pid, signal.SIGKILL)

    return listen


@pytest.mark.timeout(600)  # of three groups of processes, one after the other
def test_ctrl_c_is_one_line_and_the_training_goes_on_to_the_bit_though_a_replica_is_killed(
    head: Any, config: TrainConfig, undisturbed: Job, tmp_path: Path
) -> None:
    words = ["train", str(tmp_path), "--config", write_config(tmp_path, config), "--replicas", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deblend_batch", *words],
        env=head.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = [process.stderr.readline()]
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130, said
    assert said[0].startswith("step 4/16  loss "), said
    assert said[-1] == (
        f"error: {tmp_path}: training interrupted; run again to resume from the last checkpoint"
    )
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "blend2flux-small.safetensors").exists()
    reports: list[Report] = []
    train(config, str(tmp_path), kill_a_replica(head.dashboard, reports))
    assert reports[0].step > 4
    expected, found = weights(undisturbed.folder), weights(tmp_path)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_a_mistake_met_by_a_replica_ends_the_training_at_once(
    config: TrainConfig, tmp_path: Path
) -> None:
    def spoil(_: Report) -> None:
        (tmp_path / "checkpoint.safetensors").unlink()
        (tmp_path / "checkpoint.safetensors").mkdir()

    started = time.monotonic()
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors: "):
        train(config.model_copy(update={"steps": 400}), str(tmp_path), spoil)
    assert time.monotonic() - started < 100
    shutil.rmtree(tmp_path / "checkpoint.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 3}, "replicas: 3 cannot share a batch of 32 pairs equally; give a divisor"),
        ({"device": "cuda:1"}, r"device: 'cuda:1' with 2 replicas; give cpu, or cuda for one GPU"),
        ({"workers": 1}, r"replicas: 2 need 4 CPUs \(2 each\), and the cluster has 2; give fewer"),
        ({"device": "cuda", "replicas": 4}, "replicas: 4 need 4 CPUs .*, and the cluster has 2"),
        ({"model": "unet-smal"}, "model: unknown recipe 'unet-smal'"),
    ],
)
def test_what_replicas_cannot_do_is_refused_before_they_start(
    config: TrainConfig, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config.model_copy(update=changes), str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_an_output_in_memory_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="output: memory://out lives in one process, and several"):
        train(config, "memory://out")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (WorkerGroupError("both", {1: ValueError("late"), 0: ValueError("first\nmore")}), "first"),
        (ControllerError(RuntimeError("no NCCL here")), "no NCCL here"),
    ],
)
def test_the_reason_is_what_a_replica_raised(error: Exception, reason: str) -> None:
    assert _reason(error) == reason
