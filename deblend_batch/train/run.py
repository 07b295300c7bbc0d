"""A training from beginning to end: from a config to a weights file."""

from __future__ import annotations

from collections.abc import Callable

import torch

from deblend_batch import storage
from deblend_batch.config import absolute_url
from deblend_batch.errors import InterruptedRunError
from deblend_batch.models.device import open_device
from deblend_batch.train.config import TrainConfig
from deblend_batch.train.data import prepare_folder
from deblend_batch.train.loop import Training
from deblend_batch.train.news import Report
from deblend_batch.train.replica import Replica


def train(
    config: TrainConfig,
    output_folder: str,
    progress: Callable[[Report], None] | None = None,
    options: storage.Options | None = None,
) -> str:
    """Train a model; run again with the same arguments to resume one that was stopped.

    The folder also receives the config, the galaxy pool, the checkpoint and the learning curves. With one
    replica all happens in this process; with several, Ray Train runs the same loop in each.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    output_folder : str
        Path or URL; with several replicas one that every node sees.
    progress : callable, optional
        Called with a :class:`Report` after each validation.
    options : mapping, optional
        fsspec ``storage_options``.

    Returns
    -------
    str
        Path or URL of the weights file.

    Raises
    ------
    ConfigError
        If the model or the preset is unknown, the replicas do not fit the batch or the cluster, or the folder
        is a relative path inside a Ray job.
    ModelError
        If the device cannot be used.
    OutputConflictError
        If the folder holds the checkpoint of another training, or lies in a field or in a run's output.
    RunStoppedError
        If replicas fail again and again.
    InterruptedRunError
        If it was interrupted; the checkpoint holds everything up to the last validation.
    """
    report = progress or (lambda _: None)
    folder = absolute_url("output", output_folder)
    storage.check_apart(folder, options=options)
    try:
        if config.replicas > 1:
            from deblend_batch.train.group import train_together

            return train_together(config, folder, report, options)
        return _train_alone(config, folder, report, options)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"{output_folder}: training interrupted; run again to resume from the last checkpoint"
        ) from error


def _train_alone(
    config: TrainConfig,
    folder: str,
    report: Callable[[Report], None],
    options: storage.Options | None,
) -> str:
    open_device(config.device)  # before hours of drawing galaxies
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    training = Training(config, folder, options, Replica(device=config.device))
    training.run(prepare_folder(config, folder, options), report)
    return training.weights_url
