"""The memory of a network on its way, counted without running it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deblend_batch.models import ModelCard, list_models
from deblend_batch.models.networks.activations import count_activations

NETWORKS = [card for card in list_models() if card.takes_pairs]


@pytest.mark.parametrize("card", NETWORKS, ids=lambda card: card.name)
def test_the_cards_tell_the_memory_of_their_networks(card: ModelCard) -> None:
    assert card.activation_bytes == count_activations(card)


def test_larger_stamps_take_more() -> None:
    card = next(card for card in list_models() if card.architecture == "unet")
    larger = replace(card, stamp_size=128, network={**card.network, "stamp_size": 128})
    assert count_activations(larger) == 4 * count_activations(card)
