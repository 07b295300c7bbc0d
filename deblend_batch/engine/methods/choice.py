"""The method of a run's model."""

from __future__ import annotations

from typing import Any

from deblend_batch.engine.methods.method import Method
from deblend_batch.engine.methods.network import NetworkMethod


def method_of(model: Any, *, keep_masks: bool = False) -> Method:
    """Return how a model measures.

    Parameters
    ----------
    model : Model or ProfileFit
        The model, on its device.
    keep_masks : bool
        Whether the run writes masks.
    """
    if model.card.takes_pairs:
        return NetworkMethod(model, keep_masks=keep_masks)
    from deblend_batch.engine.methods.fit import FitMethod  # torch, which the driver does without

    return FitMethod(model)
