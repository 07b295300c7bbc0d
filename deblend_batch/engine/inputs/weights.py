"""The weights of a run, looked at before any work."""

from __future__ import annotations

from deblend_batch.config import RunConfig
from deblend_batch.errors import ConfigError
from deblend_batch.models import ModelCard, find_card


def find_run_card(config: RunConfig) -> ModelCard:
    """Read the card of a run's model, and check that it can do what the config asks of it."""
    card = find_card(config.model, config.storage_options, config.model_sha256)
    if config.masks and not card.has_masks:
        raise ConfigError(
            f"masks: {config.model} predicts no masks; choose a model that does "
            "('deblend-batch models' lists them), or leave 'masks' out"
        )
    return card
