"""Simulated pairs as torch batches: batch number k is the same in any process and after any restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deblend_batch import storage
from deblend_batch.cluster.workers import open_workers
from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.simulate.galaxies.pool import GalaxyPool, Split, load_pool, save_pool
from deblend_batch.simulate.pairs.batch import PairBatch
from deblend_batch.simulate.pairs.blending import PairSampler
from deblend_batch.simulate.pairs.rules import PairRules
from deblend_batch.train.config import TrainConfig

Batch = dict[str, Tensor]
_COLUMNS = ("stamps", "central_yx", "companion_yx", "neighbours_yx", "flux", "sigma")


@dataclass(frozen=True)
class PairSource:
    """Where pairs come from; small enough to be sent to another process.

    Parameters
    ----------
    pool_url : str
        The galaxy pool.
    rules : PairRules
        How pairs are made.
    seed : int
        Seed of the pairs.
    split : {"train", "validation", "test"}
        Which galaxies.
    options : mapping, optional
        fsspec ``storage_options`` of the pool.
    """

    pool_url: str
    rules: PairRules
    seed: int
    split: Split = "train"
    options: storage.Options | None = None

    def sampler(self) -> PairSampler:
        """Open the pool and return the sampler of its pairs."""
        return PairSampler(
            load_pool(self.pool_url, self.options), self.split, self.seed, self.rules
        )

    def of(self, split: Split) -> PairSource:
        """Return the source of another split."""
        return replace(self, split=split)


class Batches(Dataset[Batch]):
    """Training batches by number; the pool is opened in the process that uses it.

    Parameters
    ----------
    source : PairSource
        The pairs.
    batch_size : int
        Pairs in a batch.
    with_masks : bool
        Whether batches hold the true masks.
    rows : range, optional
        The part of each batch that is wanted; all of it by default.
    """

    def __init__(
        self, source: PairSource, batch_size: int, *, with_masks: bool, rows: range | None = None
    ) -> None:
        self._source = source
        self._batch_size = batch_size
        self._with_masks = with_masks
        self._rows = rows or range(batch_size)
        self._sampler: PairSampler | None = None

    def __getitem__(self, number: int) -> Batch:
        if self._sampler is None:
            self._sampler = self._source.sampler()
        start = number * self._batch_size
        pairs = self._sampler.draw_range(start + self._rows.start, start + self._rows.stop)
        return to_tensors(pairs, with_masks=self._with_masks)

    def stream(self, first: int, stop: int, workers: int) -> Iterator[Batch]:
        """Yield batches in order."""
        loader: DataLoader[Any] = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, stop),
            num_workers=workers,
            prefetch_factor=8 if workers else None,
            multiprocessing_context="spawn" if workers else None,
        )
        return iter(loader)


def to_tensors(pairs: PairBatch, *, with_masks: bool) -> Batch:
    """Turn simulated pairs into tensors.

    Parameters
    ----------
    pairs : PairBatch
        The pairs.
    with_masks : bool
        Whether to add ``masks``, bool, shape (n, 3, y, x): [overlap, central, companion].
    """
    batch = {name: torch.from_numpy(getattr(pairs, name)) for name in _COLUMNS}
    if with_masks:
        batch["masks"] = torch.from_numpy(pairs.masks(encoding="ogg"))
    return batch


def ensure_pool(config: TrainConfig, folder: str, options: storage.Options | None = None) -> str:
    """Return the galaxy pool of a config; draw it unless the output folder or the config has one.

    Parameters
    ----------
    config : TrainConfig
        The config.
    folder : str
        Output folder.
    options : mapping, optional
        fsspec ``storage_options``.
    """
    if config.pool.url is not None:
        preset = load_pool(config.pool.url, options).preset
        if preset != config.preset:
            raise ConfigError(
                f"pool.url: {config.pool.url} was drawn for preset {preset!r}, not {config.preset!r}; "
                "give another pool or that preset"
            )
        return config.pool.url
    url = storage.join(folder, "pool.zarr")
    try:
        load_pool(url, options)
    except (ConfigError, NotFoundError):  # none, or one whose drawing was cut short
        save_pool(url, _draw(config), options)
    return url


def _draw(config: TrainConfig) -> GalaxyPool:
    from deblend_batch.simulate.galaxies.draw import draw_pool  # GalSim takes seconds

    pool = config.pool
    with open_workers(pool.processes) as workers:
        return draw_pool(
            config.preset, pool.size, pool.seed, variation=pool.variation, workers=workers
        )


def prepare_folder(config: TrainConfig, folder: str, options: storage.Options | None = None) -> str:
    """Write the config into the output folder, and draw the galaxies unless they are there.

    Parameters
    ----------
    config : TrainConfig
        The config.
    folder : str
        Path or URL.
    options : mapping, optional
        fsspec ``storage_options``.
    """
    settled = config.model_dump_json(indent=2).encode()
    storage.write_bytes(storage.join(folder, "config.json"), settled, options)
    return ensure_pool(config, folder, options)
