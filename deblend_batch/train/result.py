"""What a finished training says of its weights: the card."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import metadata
from typing import Any

import torch
from torch import nn

from deblend_batch.evaluation.metrics import measure
from deblend_batch.models.card import ModelCard
from deblend_batch.models.networks.architectures import ARCHITECTURES, Recipe
from deblend_batch.models.uncertainty import ErrorModel
from deblend_batch.train.calibrate import fit_error_model
from deblend_batch.train.checkpoint import Progress
from deblend_batch.train.config import TrainConfig
from deblend_batch.train.heldout import HeldOut, Outcome
from deblend_batch.version import __version__

_DIGITS = 5


def make_card(
    config: TrainConfig,
    recipe: Recipe,
    network: nn.Module,
    validation: HeldOut,
    test: HeldOut,
    progress: Progress,
    initial: ModelCard | None = None,
) -> ModelCard:
    """Calibrate a network's errors on the validation pairs, test both, and write it all on a card.

    Parameters
    ----------
    config : TrainConfig
        What was asked for.
    recipe : Recipe
        What was built.
    network : torch.nn.Module
        The trained network.
    validation, test : HeldOut
        Pairs of unseen galaxies.
    progress : Progress
        How the training went.
    initial : ModelCard, optional
        Of the weights that it began with.
    """
    held_out = validation.outcome(network, recipe.preprocess)
    errors = fit_error_model(held_out.evidence, held_out.true_flux)
    tested = test.outcome(network, recipe.preprocess)
    return ModelCard(
        name=config.name or config.model,
        architecture=recipe.architecture,
        stamp_size=recipe.network.stamp_size,
        has_masks=ARCHITECTURES[recipe.architecture].has_masks,
        network=_json(recipe.network),
        preprocess=_json(recipe.preprocess),
        domain=test.domain(),
        trained_on=_training_set(config, progress, initial),
        test_metrics=_test_metrics(tested, errors),
        uncertainty=_json(errors),
        training=_provenance(config, progress, initial),
    )


def _test_metrics(tested: Outcome, errors: ErrorModel) -> dict[str, float]:
    flux_err = errors.flux_err(tested.evidence)
    coverage = measure(tested.flux.ravel(), tested.true_flux.ravel(), flux_err=flux_err.ravel())
    found = {**tested.metrics(), "coverage": coverage.coverage, "pairs": len(tested.flux)}
    return {name: round(float(value), _DIGITS) for name, value in found.items()}


def _provenance(
    config: TrainConfig, progress: Progress, initial: ModelCard | None
) -> dict[str, Any]:
    began_with = initial and {
        "name": initial.name,
        "sha256": initial.sha256,
        "training": initial.training,
    }
    return {
        "config": config.model_dump(mode="json", exclude={"initial": True, "pool": {"url": True}}),
        "initial": began_with,
        "steps": progress.step,
        "best_step": progress.validations[progress.best]["step"],
        "versions": {
            "deblend-batch": __version__,
            "torch": torch.__version__,
            "galsim": metadata.version("galsim"),
        },
    }


def _training_set(config: TrainConfig, progress: Progress, initial: ModelCard | None) -> str:
    pairs = progress.step * config.batch_size
    before = f"; before that, {initial.trained_on}" if initial else ""
    return (
        f"{pairs:,} simulated {config.preset} pairs of {config.pool.size:,} galaxies, noise x "
        f"{config.pairs.noise_factor[0]:g}-{config.pairs.noise_factor[1]:g}, third galaxies{before}"
    )


def _json(record: Any) -> dict[str, Any]:
    """Return a dataclass as JSON would give it back, so that a card equals the one read from its file."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(record)))
    return values
