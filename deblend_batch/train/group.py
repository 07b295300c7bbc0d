"""Several replicas at once, under Ray Train: one per GPU, or per share of the cluster's CPUs.

Ray Train runs in a task of its own, and the driver looks every half second for what the first replica has to
say. So Ctrl-C reaches the driver at any time, and the end of the task takes everything below it along.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import torch

from deblend_batch import storage
from deblend_batch.cluster.connection import connected
from deblend_batch.cluster.failure import ask
from deblend_batch.cluster.workers import shared_url
from deblend_batch.errors import ConfigError, RunStoppedError, TransientStorageError, UserError
from deblend_batch.failure import one_line
from deblend_batch.models.device import open_device
from deblend_batch.train.config import TrainConfig
from deblend_batch.train.data import prepare_folder
from deblend_batch.train.loop import Training
from deblend_batch.train.news import News, Report
from deblend_batch.train.replica import Replica

_RESTARTS = 3
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Order:
    """What every replica must know."""

    config: TrainConfig
    folder: str
    pool_url: str
    news: Any
    options: storage.Options | None = field(repr=False)


def train_together(
    config: TrainConfig,
    folder: str,
    report: Callable[[Report], None],
    options: storage.Options | None = None,
) -> str:
    """Train with several replicas; a group that loses one is started again from the checkpoint, a few times.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    folder : str
        Path or URL that every node sees.
    report : callable
        Called after each validation, in this process.
    options : mapping, optional
        fsspec ``storage_options``.
    """
    gpu = _on_gpus(config)
    folder = shared_url("output", folder)
    with connected() as resources:
        _check_room(config, gpu=gpu, resources=resources)
        training = Training(config, folder, options, Replica())  # mistakes cost no galaxies
        pool_url = shared_url("pool.url", prepare_folder(config, folder, options))
        news = ray.remote(News).options(num_cpus=0).remote()
        order = _Order(config, folder, pool_url, news, options)
        fit = ray.remote(_fit).options(num_cpus=0, max_retries=0).remote(order, gpu=gpu)
        try:
            _follow(fit, news, report)
        finally:
            ray.cancel(fit)
            ray.kill(news)
    return training.weights_url


def _on_gpus(config: TrainConfig) -> bool:
    """Tell whether replicas are to have GPUs; refuse what they cannot share."""
    if config.batch_size % config.replicas:
        raise ConfigError(
            f"replicas: {config.replicas} cannot share a batch of {config.batch_size} pairs equally; "
            "give a divisor of batch_size"
        )
    if config.device not in {"cpu", "cuda"}:
        raise ConfigError(
            f"device: {config.device!r} with {config.replicas} replicas; give cpu, or cuda for one GPU each"
        )
    return config.device == "cuda"


def _share(config: TrainConfig, *, gpu: bool) -> dict[str, float]:
    """Return what a replica asks of the cluster: a core a thread and one a simulating process."""
    cpus: dict[str, float] = {"CPU": (config.threads or 1) + config.workers}
    return cpus | ({"GPU": 1} if gpu else {})


def _check_room(config: TrainConfig, *, gpu: bool, resources: Mapping[str, float]) -> None:
    for kind, each in _share(config, gpu=gpu).items():
        if each * config.replicas > resources.get(kind, 0):
            raise ConfigError(
                f"replicas: {config.replicas} need {each * config.replicas:g} {kind}s ({each:g} each), and "
                f"the cluster has {resources.get(kind, 0):g}; give fewer replicas, workers or threads"
            )


def _follow(fit: Any, news: Any, report: Callable[[Report], None]) -> None:
    """Pass reports on until the training ends."""
    done: list[Any] = []
    while not done:
        done, _ = ray.wait([fit], timeout=_POLL_SECONDS)
        reports, mistake = ray.get(news.take.remote())
        for one in reports:
            report(one)
        if mistake is not None:
            raise mistake
    ask(fit)


def _fit(order: _Order, *, gpu: bool) -> None:
    """Run Ray Train to its end."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    scaling = ScalingConfig(
        num_workers=order.config.replicas,
        use_gpu=gpu,
        resources_per_worker=_share(order.config, gpu=gpu),
    )
    # Checkpoints are our own; what Ray Train itself notes down nobody reads.
    with tempfile.TemporaryDirectory() as notes:
        run = RunConfig(storage_path=notes, failure_config=FailureConfig(max_failures=_RESTARTS))
        trainer = TorchTrainer(
            _train_replica,
            train_loop_config={"order": order},
            scaling_config=scaling,
            run_config=run,
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise RunStoppedError(
                f"{order.folder}: training failed in spite of restarts: {_reason(error)}; mend the cause, "
                "then run again to resume from the last checkpoint"
            ) from None


def _reason(error: Any) -> str:
    """Say why Ray Train gave up: what a replica raised, or what kept them from starting."""
    failures = getattr(error, "worker_failures", None)
    cause = failures[min(failures)] if failures else getattr(error, "controller_failure", error)
    return one_line(cause)


def _train_replica(loop_config: dict[str, _Order]) -> None:
    """Run the loop in a worker of Ray Train."""
    import ray.train
    import ray.train.torch

    order, context = loop_config["order"], ray.train.get_context()
    torch.set_num_threads(order.config.threads or 1)
    try:
        open_device(order.config.device)
        device = str(ray.train.torch.get_device())
        replica = Replica(context.get_world_rank(), context.get_world_size(), device)
        training = Training(order.config, order.folder, order.options, replica)
        training.run(order.pool_url, lambda report: ray.get(order.news.tell.remote(report)))
    except TransientStorageError:
        raise
    except UserError as mistake:
        ray.get(order.news.stop.remote(mistake))
        raise
