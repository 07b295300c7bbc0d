"""Two replicas without Ray: this process and one more, over gloo, as Ray Train connects its workers."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch
from torch import distributed

from deblend_batch.train.config import TrainConfig
from deblend_batch.train.loop import Training
from deblend_batch.train.news import Report
from deblend_batch.train.replica import Replica


def train_in_two(config: TrainConfig, folder: Path) -> list[Report]:
    """Train to the end; return what the first replica had to say."""
    meeting = folder / "meeting"
    folder.mkdir()
    other = multiprocessing.get_context("spawn").Process(
        target=_train_replica, args=(config, folder, meeting, 1)
    )
    other.start()
    reports = _train_replica(config, folder, meeting, 0)
    other.join()
    assert other.exitcode == 0
    return reports


def _train_replica(config: TrainConfig, folder: Path, meeting: Path, rank: int) -> list[Report]:
    threads = torch.get_num_threads()
    reports: list[Report] = []
    torch.set_num_threads(config.threads or 1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=config.replicas
    )
    try:
        training = Training(config, str(folder), None, Replica(rank, config.replicas))
        training.run(config.pool.url or "", reports.append)
    finally:
        distributed.destroy_process_group()
        torch.set_num_threads(threads)
    return reports
