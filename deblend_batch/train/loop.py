"""The training loop: the same alone on a CPU and in each of several replicas; resumable at any validation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch

from deblend_batch import storage
from deblend_batch.errors import ConfigError
from deblend_batch.models.networks.architectures import ARCHITECTURES
from deblend_batch.models.weights import read_weights, write_weights
from deblend_batch.train.checkpoint import load_checkpoint, save_checkpoint
from deblend_batch.train.config import TrainConfig
from deblend_batch.train.data import Batches, PairSource
from deblend_batch.train.heldout import HeldOut
from deblend_batch.train.news import Report
from deblend_batch.train.replica import Replica
from deblend_batch.train.result import make_card
from deblend_batch.train.step import Objective, Schedule, Stepper, update_average
from deblend_batch.train.trainee import build_trainee, find_recipe

_NO_INFLUENCE: Any = {
    "name": True,
    "device": True,
    "replicas": True,
    "threads": True,
    "workers": True,
    "pool": {"processes": True},
}
"""Keys that may change between a training and its resumption."""
_DRAW_SECONDS = 30.0
"""Between pictures of a training under way: one takes as long as many steps of a small network."""


class Training:
    """A training, begun or resumed, as one replica holds it.

    All replicas hold the same weights, moments and averages, bit by bit; the first one alone validates.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    folder : str
        Path or URL of the output.
    options : mapping, optional
        fsspec ``storage_options``.
    replica : Replica
        Which of the copies that train together this is.

    Raises
    ------
    ConfigError
        If the model is unknown, or the initial weights are of another network.
    OutputConflictError
        If the folder holds the checkpoint of another training.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: str,
        options: storage.Options | None,
        replica: Replica,
    ) -> None:
        self._config, self._folder, self._options = config, folder, options
        self._replica = replica
        self._recipe = find_recipe(config.model)
        self._kind = ARCHITECTURES[self._recipe.architecture]
        self._trainee = build_trainee(config, replica.device, options)
        self._checkpoint = storage.join(folder, "checkpoint.safetensors")
        self._drawn = time.monotonic()
        self.progress = load_checkpoint(
            self._checkpoint, self._trainee, _fingerprint(config), options
        )

    @property
    def weights_url(self) -> str:
        """Path or URL of the weights file that the training ends with."""
        name = self._config.name or self._config.model
        return storage.join(self._folder, f"{name}.safetensors")

    def run(self, pool_url: str, report: Callable[[Report], None]) -> None:
        """Make the steps that are left, and write the weights file."""
        self._check_common_start()
        rules = self._config.pairs.rules(self._recipe.network.stamp_size)
        source = PairSource(pool_url, rules, self._config.seed, options=self._options)
        validation = self._held_out(source, "validation") if self._replica.leads else None
        self._make_steps(source, validation, report)
        if validation is not None:
            self._finish(source, validation)

    def _check_common_start(self) -> None:
        first = self._replica.agree(self.progress.step)
        if first != self.progress.step:
            raise ConfigError(
                f"{self._folder}: one node sees a checkpoint of step {first} here, another of step "
                f"{self.progress.step}; give a folder or URL that all nodes share"
            )

    def _make_steps(
        self, source: PairSource, validation: HeldOut | None, report: Callable[[Report], None]
    ) -> None:
        config, device = self._config, self._replica.device
        stepper = self._stepper()
        schedule = Schedule(config.learning_rate, config.steps, config.warmup)
        losses: list[torch.Tensor] = []
        since, started = self.progress.step, time.monotonic()
        rows = self._replica.rows(config.batch_size)
        batches = Batches(
            source, config.batch_size, with_masks=self._kind.has_masks, rows=rows
        ).stream(since, config.steps, config.workers)
        while self.progress.step < config.steps and not self._exhausted():
            step = self.progress.step
            batch = {name: column.to(device) for name, column in next(batches).items()}
            self._seed_dropout(step)
            losses.append(stepper.step(batch, schedule.at(step)))
            update_average(self._trainee.average, self._trainee.network, step, config.ema_decay)
            self.progress.step += 1
            if self.progress.step % config.evaluate_every == 0 or step + 1 == config.steps:
                elapsed = time.monotonic() - started
                rate = (self.progress.step - since) * config.batch_size / elapsed
                self._review(torch.stack(losses).mean(), validation)
                if validation is not None:
                    report(self._report(rate))
                losses, since, started = [], self.progress.step, time.monotonic()

    def _seed_dropout(self, step: int) -> None:
        """Drop alike after a resume, but other features in each replica."""
        own = step + self._replica.rank * self._config.steps
        torch.manual_seed((self._config.seed << 32) + own)

    def _stepper(self) -> Stepper:
        weight = self._config.mask_weight if self._kind.has_masks else 0.0
        return Stepper(
            self._trainee.network.train(),
            self._trainee.optimizer,
            self._recipe.preprocess,
            Objective(weight, flux=self._kind.has_flux),
            clip_norm=self._config.clip_norm,
            bfloat16=self._config.precision == "bfloat16",
            replica=self._replica,
        )

    def _held_out(self, source: PairSource, split: Literal["validation", "test"]) -> HeldOut:
        config = self._config
        number = config.validation_pairs if split == "validation" else config.test_pairs
        return HeldOut(source, split, number, with_masks=self._kind.has_masks)

    def _review(self, loss: torch.Tensor, validation: HeldOut | None) -> None:
        """Validate and save where this replica leads; then all know how far the training has come."""
        mean = self._replica.mean(loss)
        if validation is not None:
            self._validate(mean, validation)
            self._save()
        self.progress = self._replica.agree(self.progress)

    def _validate(self, loss: float, validation: HeldOut) -> None:
        progress, trainee = self.progress, self._trainee
        outcome = validation.outcome(trainee.average, self._recipe.preprocess)
        progress.losses.append(loss)
        progress.validations.append({"step": progress.step, **outcome.metrics()})
        scores = [self._score(entry) for entry in progress.validations]
        if progress.best < 0 or scores[-1] < scores[progress.best]:
            progress.best = len(scores) - 1
            trainee.best.load_state_dict(trainee.average.state_dict())

    def _score(self, validation: dict[str, float]) -> float:
        """Return what early stopping lowers: the flux error or, without a flux aim, the masks' misses."""
        return validation["flux_mape"] if self._kind.has_flux else 1 - validation["iou"]

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
        if time.monotonic() - self._drawn > _DRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        """Draw the curves as far as they go."""
        # Here, for one replica alone draws, and matplotlib takes a second to import.
        from deblend_batch.train.curves import learning_curves

        self._drawn = time.monotonic()
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

    def _finish(self, source: PairSource, validation: HeldOut) -> None:
        """Draw the curves; calibrate the best average, test it and write the weights file."""
        self._draw()
        config, best = self._config, self._trainee.best
        test = self._held_out(source, "test")
        initial = read_weights(config.initial, self._options).card if config.initial else None
        card = make_card(config, self._recipe, best, validation, test, self.progress, initial)
        write_weights(self.weights_url, card, best.state_dict(), self._options)


def _fingerprint(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=_NO_INFLUENCE)
