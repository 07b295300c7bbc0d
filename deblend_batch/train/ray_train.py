"""What runs on the cluster when several replicas train: Ray Train, and the loop in each of its workers.

Ray Train starts processes of its own beside the workers. Each imports this module, and only a worker needs
torch and GalSim, which take seconds: they are imported there, and the config travels as text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deblend_batch import storage
from deblend_batch.errors import RunStoppedError, TransientStorageError, UserError
from deblend_batch.failure import one_line

_RESTARTS = 3


@dataclass(frozen=True)
class Order:
    """What every replica must know; the config as JSON."""

    config: str
    folder: str
    pool_url: str
    news: Any
    options: storage.Options | None = field(repr=False)


def fit(order: Order, replicas: int, share: Mapping[str, float]) -> None:
    """Run Ray Train to its end; each replica asks for its share of the cluster."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    scaling = ScalingConfig(
        num_workers=replicas, use_gpu="GPU" in share, resources_per_worker=dict(share)
    )
    # Checkpoints are our own; what Ray Train itself notes down nobody reads.
    with tempfile.TemporaryDirectory() as notes:
        run = RunConfig(storage_path=notes, failure_config=FailureConfig(max_failures=_RESTARTS))
        trainer = TorchTrainer(
            train_replica,
            train_loop_config={"order": order},
            scaling_config=scaling,
            run_config=run,
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise RunStoppedError(
                f"{order.folder}: training failed in spite of restarts: {reason(error)}; mend the cause, "
                "then run again to resume from the last checkpoint"
            ) from None


def reason(error: Any) -> str:
    """Say why Ray Train gave up: what a replica raised, or what kept them from starting."""
    failures = getattr(error, "worker_failures", None)
    cause = failures[min(failures)] if failures else getattr(error, "controller_failure", error)
    return one_line(cause)


def train_replica(loop_config: dict[str, Order]) -> None:
    """Run the loop in a worker of Ray Train."""
    import ray.train.torch
    import torch

    from deblend_batch.models.device import open_device
    from deblend_batch.train.config import TrainConfig
    from deblend_batch.train.loop import Training
    from deblend_batch.train.replica import Replica

    order, context = loop_config["order"], ray.train.get_context()
    config = TrainConfig.model_validate_json(order.config)
    torch.set_num_threads(config.threads or 1)
    try:
        open_device(config.device)
        device = str(ray.train.torch.get_device())
        replica = Replica(context.get_world_rank(), context.get_world_size(), device)
        training = Training(config, order.folder, order.options, replica)
        training.run(order.pool_url, lambda report: ray.get(order.news.tell.remote(report)))
    except TransientStorageError:
        raise
    except UserError as mistake:
        # Without its cause: exceptions of libraries need not survive being sent.
        ray.get(order.news.stop.remote(type(mistake)(*mistake.args)))
        raise
