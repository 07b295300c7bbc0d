"""Networks, their weights and cards: stamps in, fluxes, errors and masks out.

Listing models needs no torch: what does is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deblend_batch.models.card import Domain, ModelCard
from deblend_batch.models.registry import find_card, list_models, load_model

if TYPE_CHECKING:
    from deblend_batch.models.model import Model
    from deblend_batch.models.prediction import Prediction
    from deblend_batch.models.profile_fit.model import ProfileFit

__all__ = [
    "Domain",
    "Model",
    "ModelCard",
    "Prediction",
    "ProfileFit",
    "find_card",
    "list_models",
    "load_model",
]
_LAZY = {
    "Model": "deblend_batch.models.model",
    "Prediction": "deblend_batch.models.prediction",
    "ProfileFit": "deblend_batch.models.profile_fit.model",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
