"""Writes the shipped card of the fit: ``python -m deblend_batch.models.profile_fit.make_card FILE``.

A weights file like those of networks, with the fit's settings on its card and no tensor.
"""

from __future__ import annotations

import sys

from pydantic import TypeAdapter
from safetensors.torch import save

from deblend_batch import storage
from deblend_batch.models.card import PROFILE_FIT, ModelCard
from deblend_batch.models.profile_fit.search.config import FitConfig

_STAMP_PX = 128
_BYTES_OF_BLEND = (
    2_100_000  # measured in batches of 16 and more: eight members, largest stamp, one band
)


def make_card() -> ModelCard:
    """Make the card of the fit with its own settings."""
    return ModelCard(
        name=PROFILE_FIT,
        architecture=PROFILE_FIT,
        stamp_size=_STAMP_PX,
        has_masks=False,
        network=TypeAdapter(FitConfig).dump_python(FitConfig(), mode="json"),
        preprocess={},
        domain=None,
        trained_on="no images; its priors are the shipped population's sizes and shapes by magnitude",
        activation_bytes=_BYTES_OF_BLEND,
    )


if __name__ == "__main__":
    storage.write_bytes(sys.argv[1], save({}, metadata=make_card().to_metadata()))
