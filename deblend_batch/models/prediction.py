"""What a model says of pairs, in the caller's kind of arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblend_batch.models.staging import Array


@dataclass(frozen=True)
class Prediction:
    """What a model says of n pairs; NumPy arrays or torch tensors, as the stamps were.

    Parameters
    ----------
    flux : array of float32, shape (n, 2)
        Flux of central and companion, in the stamps' unit; NaN where a stamp is empty or not finite
        and for a member that lies outside its stamp.
    flux_err : array of float32, shape (n, 2)
        One-sigma errors of ``flux``; NaN where a flux is, and for models without an error model.
    masks : array of float32, shape (n, 3, y, x), or None
        Probabilities of [overlap, central, companion]; None for models without masks.
    """

    flux: Any
    flux_err: Any
    masks: Any


def outside(yx: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Tell which positions lie outside their stamp."""
    inside = (yx >= -0.5) & (yx <= size - 0.5)
    return ~np.asarray(inside.all(axis=1), np.bool_)


def to_numpy(rows: Array) -> NDArray[Any]:
    """Return rows in the host's memory."""
    return rows.detach().cpu().numpy() if isinstance(rows, Tensor) else rows


def to_kind(prediction: Prediction, stamps: Array) -> Prediction:
    """Return a prediction in the kind of arrays that the stamps are."""
    if not isinstance(stamps, Tensor):
        return prediction
    arrays = [getattr(prediction, each.name) for each in fields(prediction)]
    return Prediction(
        *(None if array is None else torch.from_numpy(array).to(stamps.device) for array in arrays)
    )
