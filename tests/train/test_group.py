"""Replicas under Ray Train, on the session's cluster: two workers on two CPUs, over gloo."""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
import yaml
from ray.train import ControllerError, WorkerGroupError
from ray.util.state import list_actors

from deblend_batch.cli.main import main
from deblend_batch.errors import ConfigError, StorageError, UserError
from deblend_batch.models import find_card
from deblend_batch.models.weights import read_weights
from deblend_batch.simulate.galaxies.draw import draw_pool
from deblend_batch.simulate.galaxies.pool import save_pool
from deblend_batch.train import group
from deblend_batch.train.config import TrainConfig, make_train_config
from deblend_batch.train.news import News, Report
from deblend_batch.train.ray_train import Order, fit
from deblend_batch.train.ray_train import reason as reason_of
from deblend_batch.train.run import train
from tests.support import wait_until
from tests.train.replicas import train_in_two

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
class Undisturbed:
    """A training by two replicas that nothing disturbed: its weights, and what was said of it."""

    weights: dict[str, torch.Tensor]
    reports: list[Report]


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The training that Ray Train's are compared with, to the bit."""
    folder = tmp_path_factory.mktemp("two-replicas") / "out"
    reports = train_in_two(config, folder)
    return Undisturbed(weights(folder), reports)


def write_config(folder: Path, config: TrainConfig) -> str:
    url = folder / "config.yaml"
    url.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(url)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(str(folder / "blend2flux-small.safetensors")).tensors()


def actors(head: Any, kind: str) -> list[Any]:
    """Return the actors of a class that have not ended."""
    living = [("class_name", "=", kind), ("state", "!=", "DEAD")]
    return list(list_actors(head.dashboard, filters=living, detail=True))


def test_two_replicas_learn_what_one_learns(
    config: TrainConfig, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    reports: list[Report] = []
    train(config.model_copy(update={"replicas": 1}), str(tmp_path), reports.append)
    assert [one.step for one in undisturbed.reports] == [4, 8, 12, 16]
    np.testing.assert_allclose(
        [two.loss for two in undisturbed.reports], [one.loss for one in reports], rtol=1e-3
    )
    # Sums of gradients differ in their last bits, which an optimiser of steps of one length shows in full
    # where a gradient is next to nothing: the layer counts, not each of its numbers.
    for name, tensor in weights(tmp_path).items():
        apart = torch.linalg.vector_norm(undisturbed.weights[name] - tensor)
        assert apart < 5e-4 * torch.linalg.vector_norm(tensor), name


def test_a_killed_replica_costs_time_alone_and_the_training_ends_to_the_bit(
    head: Any,
    config: TrainConfig,
    undisturbed: Undisturbed,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The verb, whose flag outdoes the config; ``tests/jobs/test_submit.py`` has it as a job's script."""
    out = tmp_path / "out"
    alone = write_config(tmp_path, config.model_copy(update={"replicas": 1}))
    killed: list[int] = []

    ended = threading.Event()

    def kill_one() -> None:
        wait_until(lambda: (out / "checkpoint.safetensors").exists() or ended.is_set())
        if not ended.is_set():
            killed.append(actors(head, "RayTrainWorker")[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    code = main(["train", str(out), "--config", alone, "--replicas", "2"])
    ended.set()
    killer.join()
    said = "".join(capfd.readouterr())
    assert code == 0, said
    assert killed
    steps = re.findall(r"^step (\d+)/16  loss ", said, re.MULTILINE)
    assert steps[-3:] == ["8", "12", "16"]
    url = str(out / "blend2flux-small.safetensors")
    assert url in said
    card = find_card(url)
    assert card.training["config"]["replicas"] == 2
    assert card.test_metrics["pairs"] == 64
    expected, found = undisturbed.weights, weights(out)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_a_replica_tells_its_mistake(config: TrainConfig, tmp_path: Path) -> None:
    """In Ray Train's local mode, where this process is the only replica."""
    news = ray.remote(News).options(num_cpus=0).remote()
    (tmp_path / "pool.zarr").mkdir()
    order = Order(config.model_dump_json(), str(tmp_path), f"{tmp_path}/pool.zarr", news, None)
    with pytest.raises(UserError, match=r"pool\.zarr"):
        fit(order, 0, {"CPU": 1})
    reports, mistake = ray.get(news.take.remote())
    assert reports == []
    assert "pool.zarr" in str(mistake)


def forever() -> None:
    """Try again and again, as Ray Train does."""
    threading.Event().wait()


def test_a_mistake_ends_a_training_that_would_try_it_again() -> None:
    news = ray.remote(News).options(num_cpus=0).remote()
    tries = ray.remote(forever).options(num_cpus=0).remote()
    ray.get(news.stop.remote(StorageError("checkpoint: is a folder")))
    with pytest.raises(StorageError, match=r"^checkpoint: is a folder$"):
        group._follow(tries, news, print)
    ray.cancel(tries, force=True)


def test_ctrl_c_is_one_line_at_any_time_and_takes_ray_train_along(
    head: Any, config: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Here while the replicas start; ``test_run.py`` has it between two steps."""
    words = ["train", str(tmp_path), "--config", write_config(tmp_path, config), "--replicas", "2"]

    def press() -> None:
        wait_until(lambda: bool(actors(head, "TrainController")))
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=press)
    user.start()
    code = main(words)
    user.join()
    assert code == 130
    said = capfd.readouterr().err
    assert said.splitlines()[-1] == (
        f"error: {tmp_path}: training interrupted; run again to resume from the last checkpoint"
    )
    assert "Traceback" not in said
    wait_until(lambda: not actors(head, "TrainController"))


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
    assert reason_of(error) == reason
