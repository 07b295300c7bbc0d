"""Networks, their weights and cards: stamps in, fluxes, errors and masks out.

Listing models needs no torch: what does is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deblend_batch.models.card import Domain, ModelCard
from deblend_batch.models.registry import find_card, list_models, load_model

if TYPE_CHECKING:
    from deblend_batch.models.model import Model, Prediction

__all__ = ["Domain", "Model", "ModelCard", "Prediction", "find_card", "list_models", "load_model"]


def __getattr__(name: str) -> Any:
    if name in {"Model", "Prediction"}:
        from deblend_batch.models import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
