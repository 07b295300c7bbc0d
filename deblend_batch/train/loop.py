"""The training loop: from a config to a weights file, resumable at every validation."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from deblend_batch import storage
from deblend_batch.errors import ConfigError, InterruptedRunError
from deblend_batch.models.architectures import ARCHITECTURES, RECIPES, Recipe
from deblend_batch.models.device import open_device
from deblend_batch.models.weights import read_weights, write_weights
from deblend_batch.train.checkpoint import Trainee, load_checkpoint, save_checkpoint
from deblend_batch.train.config import TrainConfig
from deblend_batch.train.curves import learning_curves
from deblend_batch.train.data import Batches, PairSource, ensure_pool
from deblend_batch.train.heldout import HeldOut
from deblend_batch.train.result import make_card
from deblend_batch.train.step import Objective, Schedule, Stepper, update_average

_NO_INFLUENCE: Any = {
    "name": True,
    "device": True,
    "threads": True,
    "workers": True,
    "pool": {"processes": True},
}
"""Keys that may change between a training and its resumption."""


@dataclass(frozen=True)
class Report:
    """News of a training, after each validation.

    Parameters
    ----------
    step, steps : int
        Steps made, and to make at most.
    loss : float
        Mean training loss since the last validation.
    pairs_per_s : float
        Pairs trained on per second since then.
    validation : dict of str to float
        Metrics on unseen galaxies.
    """

    step: int
    steps: int
    loss: float
    pairs_per_s: float
    validation: dict[str, float]

    def __str__(self) -> str:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.validation.items())
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.4f}  "
            f"{self.pairs_per_s:,.0f} pairs/s  {metrics}"
        )


def train(
    config: TrainConfig,
    output_folder: str,
    progress: Callable[[Report], None] | None = None,
    options: storage.Options | None = None,
) -> str:
    """Train a model; run again with the same arguments to resume one that was stopped.

    The folder also receives the config, the galaxy pool, the checkpoint and the learning curves.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    output_folder : str
        Path or URL.
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
        If the model or the preset is unknown.
    ModelError
        If the device cannot be used.
    OutputConflictError
        If the folder holds the checkpoint of another training.
    InterruptedRunError
        If it was interrupted; the checkpoint holds everything up to the last validation.
    """
    open_device(config.device)  # before hours of drawing galaxies
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        training = _Training(config, output_folder, options)
        training.run(progress or (lambda _: None))
        return training.finish()
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"{output_folder}: training interrupted; run again to resume from the last checkpoint"
        ) from error


class _Training:
    """What a training holds while it runs."""

    def __init__(self, config: TrainConfig, folder: str, options: storage.Options | None) -> None:
        self._config, self._folder, self._options = config, folder, options
        self._recipe = _recipe(config.model)
        self._trainee = _trainee(config, self._recipe, options)
        self._checkpoint = storage.join(folder, "checkpoint.safetensors")
        self.progress = load_checkpoint(
            self._checkpoint, self._trainee, _fingerprint(config), options
        )
        # Also tells, before hours of drawing, whether the folder can be written.
        settled = config.model_dump_json(indent=2).encode()
        storage.write_bytes(storage.join(folder, "config.json"), settled, options)
        known = ARCHITECTURES[self._recipe.architecture]
        rules = config.pairs.rules(self._recipe.network.stamp_size)
        source = PairSource(
            ensure_pool(config, folder, options), rules, config.seed, options=options
        )
        self._batches = Batches(source, config.batch_size, with_masks=known.has_masks)
        self._source = source
        self._validation = HeldOut(
            source, "validation", config.validation_pairs, with_masks=known.has_masks
        )

    def run(self, report: Callable[[Report], None]) -> None:
        """Make the steps that are left."""
        config, progress = self._config, self.progress
        stepper = self._stepper()
        schedule = Schedule(config.learning_rate, config.steps, config.warmup)
        losses: list[torch.Tensor] = []
        since, started = progress.step, time.monotonic()
        batches = self._batches.stream(progress.step, config.steps, config.workers)
        while progress.step < config.steps and not self._exhausted():
            batch = {name: column.to(config.device) for name, column in next(batches).items()}
            torch.manual_seed((config.seed << 32) + progress.step)  # dropout, alike after a resume
            losses.append(stepper.step(batch, schedule.at(progress.step)))
            update_average(
                self._trainee.average, self._trainee.network, progress.step, config.ema_decay
            )
            progress.step += 1
            if progress.step % config.evaluate_every == 0 or progress.step == config.steps:
                elapsed = time.monotonic() - started
                rate = (progress.step - since) * config.batch_size / elapsed
                self._validate(float(torch.stack(losses).mean()))
                self._save()
                report(self._report(rate))
                losses, since, started = [], progress.step, time.monotonic()

    def _stepper(self) -> Stepper:
        known = ARCHITECTURES[self._recipe.architecture]
        return Stepper(
            self._trainee.network.train(),
            self._trainee.optimizer,
            self._recipe.preprocess,
            Objective(self._config.mask_weight if known.has_masks else 0.0, flux=known.has_flux),
            clip_norm=self._config.clip_norm,
            bfloat16=self._config.precision == "bfloat16",
        )

    def _validate(self, loss: float) -> None:
        progress, trainee = self.progress, self._trainee
        outcome = self._validation.outcome(trainee.average, self._recipe.preprocess)
        progress.losses.append(loss)
        progress.validations.append({"step": progress.step, **outcome.metrics()})
        scores = [self._score(entry) for entry in progress.validations]
        if progress.best < 0 or scores[-1] < scores[progress.best]:
            progress.best = len(scores) - 1
            trainee.best.load_state_dict(trainee.average.state_dict())

    def _score(self, validation: dict[str, float]) -> float:
        """Return what early stopping lowers: the flux error or, without a flux aim, the masks' misses."""
        if ARCHITECTURES[self._recipe.architecture].has_flux:
            return validation["flux_mape"]
        return 1 - validation["iou"]

    def _exhausted(self) -> bool:
        waited = len(self.progress.validations) - 1 - self.progress.best
        return self._config.patience is not None and waited >= self._config.patience

    def _save(self) -> None:
        save_checkpoint(
            self._checkpoint,
            self._trainee,
            self.progress,
            _fingerprint(self._config),
            self._options,
        )
        picture = learning_curves(self.progress, self._config.name or self._config.model)
        storage.write_bytes(
            storage.join(self._folder, "learning_curves.png"), picture, self._options
        )

    def _report(self, pairs_per_s: float) -> Report:
        progress = self.progress
        return Report(
            progress.step,
            self._config.steps,
            progress.losses[-1],
            pairs_per_s,
            progress.validations[-1],
        )

    def finish(self) -> str:
        """Calibrate the best average, test it and write the weights file; return its URL."""
        config, recipe, best = self._config, self._recipe, self._trainee.best
        known = ARCHITECTURES[recipe.architecture]
        test = HeldOut(self._source, "test", config.test_pairs, with_masks=known.has_masks)
        initial = read_weights(config.initial, self._options).card if config.initial else None
        card = make_card(config, recipe, best, self._validation, test, self.progress, initial)
        url = storage.join(self._folder, f"{card.name}.safetensors")
        write_weights(url, card, best.state_dict(), self._options)
        return url


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise ConfigError(f"model: unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def _trainee(config: TrainConfig, recipe: Recipe, options: storage.Options | None) -> Trainee:
    torch.manual_seed(config.seed)
    network: nn.Module = ARCHITECTURES[recipe.architecture].build(recipe.network)
    if config.initial is not None:
        _start_from(network, config.initial, options)
    network = network.to(memory_format=torch.channels_last).to(config.device)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    return Trainee(network, average, copy.deepcopy(average), optimizer)


def _start_from(network: nn.Module, url: str, options: storage.Options | None) -> None:
    own = network.state_dict()
    given = read_weights(url, options).tensors()
    alike = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape
    }
    if not alike:
        raise ConfigError(
            f"initial: {url} has no tensor of this network's names and shapes; give weights of the "
            "same architecture and size, or of the U-Net inside it"
        )
    network.load_state_dict(alike, strict=False)


def _fingerprint(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=_NO_INFLUENCE)
