"""Several replicas at once, under Ray Train: one per GPU, or per share of the cluster's CPUs.

Ray Train runs in a task of its own (``ray_train.py``), and the driver looks every half second for what the
first replica has to say. So Ctrl-C reaches the driver at any time, and the end of the task takes everything
below it along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray

from deblend_batch import storage
from deblend_batch.cluster.connection import connected
from deblend_batch.cluster.failure import ask
from deblend_batch.cluster.workers import shared_url
from deblend_batch.errors import ConfigError
from deblend_batch.train.config import TrainConfig
from deblend_batch.train.data import prepare_folder
from deblend_batch.train.loop import Training
from deblend_batch.train.news import News, Report
from deblend_batch.train.ray_train import Order, fit
from deblend_batch.train.replica import Replica

_POLL_SECONDS = 0.5


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
        order = Order(config.model_dump_json(), folder, pool_url, news, options)
        task = ray.remote(fit).options(num_cpus=0, max_retries=0)
        fitting = task.remote(order, config.replicas, _share(config, gpu=gpu))
        try:
            _follow(fitting, news, report)
        finally:
            ray.cancel(fitting)
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


def _follow(fitting: Any, news: Any, report: Callable[[Report], None]) -> None:
    """Pass reports on until the training ends."""
    done: list[Any] = []
    while not done:
        done, _ = ray.wait([fitting], timeout=_POLL_SECONDS)
        reports, mistake = ray.get(news.take.remote())
        for one in reports:
            report(one)
        if mistake is not None:
            raise mistake
    ask(fitting)
