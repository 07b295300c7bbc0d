"""Checkpoints: all that a killed training needs to go on as if nothing had happened, as one safetensors file.

What is not here follows from the step number: the learning rate, the pairs, the dropped features.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from typing_extensions import TypedDict

from deblend_batch import storage
from deblend_batch.catalog.typed import Id, Number, Values, Word, loads, typed
from deblend_batch.errors import ModelError, NotFoundError, OutputConflictError
from deblend_batch.text import cause
from deblend_batch.train.trainee import Trainee

_KEY = "deblend_batch_checkpoint"


@dataclass
class Progress:
    """How far a training has come.

    Parameters
    ----------
    step : int
        Steps made.
    losses : list of float
        Mean training loss between validations.
    validations : list of dict
        Metrics of each validation, with its ``step``.
    best : int
        Position in ``validations`` of the best one, -1 before the first.
    """

    step: Number = 0
    losses: list[float] = field(default_factory=list)
    validations: list[dict[Word, int | float]] = field(default_factory=list)
    best: Id = -1


class _Stored(TypedDict):
    progress: Progress
    fingerprint: Values


_STORED = TypeAdapter(_Stored)


def save_checkpoint(
    url: str,
    trainee: Trainee,
    progress: Progress,
    fingerprint: dict[str, Any],
    options: storage.Options | None = None,
) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    url : str
        Where.
    trainee : Trainee
        What is trained.
    progress : Progress
        How far.
    fingerprint : dict
        JSON-able; a checkpoint is only resumed with the same.
    options : mapping, optional
        fsspec ``storage_options``.
    """
    tensors = _moments(trainee)
    for part in ("network", "average", "best"):
        state = getattr(trainee, part).state_dict()
        tensors |= {f"{part}.{name}": tensor for name, tensor in state.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"progress": asdict(progress), "fingerprint": fingerprint}, sort_keys=True)
    storage.write_bytes(url, save(tensors, metadata={_KEY: text}), options)


def load_checkpoint(
    url: str,
    trainee: Trainee,
    fingerprint: dict[str, Any],
    options: storage.Options | None = None,
) -> Progress:
    """Continue from a checkpoint, if there is one.

    Parameters
    ----------
    url : str
        Where it would be.
    trainee : Trainee
        Set to the checkpoint's state.
    fingerprint : dict
        What this training is.
    options : mapping, optional
        fsspec ``storage_options``.
    """
    try:
        content = storage.read_bytes(url, options)
    except NotFoundError:
        return Progress()
    try:
        stored, tensors = _stored(content), load(content)
    except (ValueError, SafetensorError) as error:
        raise _damaged(url, error) from error
    if stored["fingerprint"] != fingerprint:
        keys = [key for key in fingerprint if stored["fingerprint"].get(key) != fingerprint[key]]
        raise OutputConflictError(
            f"{url}: belongs to a training with another {', '.join(keys) or 'config'}; "
            "give another output folder, or the same config to resume"
        )
    progress = stored["progress"]
    try:
        for part in ("network", "average", "best"):
            getattr(trainee, part).load_state_dict(_below(tensors, part))
        _restore_moments(trainee, tensors, progress.step)
    except (RuntimeError, LookupError) as error:  # tensors are missing, or of another shape
        raise _damaged(url, error) from error
    return progress


def _damaged(url: str, error: Exception) -> ModelError:
    return ModelError(f"{url}: damaged ({cause(error)}); remove it to train from the start")


def _stored(content: bytes) -> _Stored:
    """Read what a checkpoint says of itself, in the header of the file."""
    length = int.from_bytes(content[:8], "little")
    header = loads(content[8 : 8 + length])
    try:
        text = header["__metadata__"][_KEY]
    except (LookupError, TypeError) as error:
        raise ValueError("not a checkpoint") from error
    return typed(_STORED, loads(str(text).encode(), nan=True))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def _moments(trainee: Trainee) -> dict[str, Tensor]:
    """AdamW's two running moments by the names of the weights."""
    moments = {}
    for name, parameter in trainee.network.named_parameters():
        state = trainee.optimizer.state.get(parameter, {})
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in state:
                moments[f"{moment}.{name}"] = state[moment]
    return moments


def _restore_moments(trainee: Trainee, tensors: dict[str, Tensor], step: int) -> None:
    state = trainee.optimizer.state_dict()
    names = [name for name, _ in trainee.network.named_parameters()]
    first, second = _below(tensors, "exp_avg"), _below(tensors, "exp_avg_sq")
    state["state"] = {
        number: {
            "step": Tensor([step])[0],
            "exp_avg": first[name],
            "exp_avg_sq": second[name],
        }
        for number, name in enumerate(names)
        if name in first
    }
    trainee.optimizer.load_state_dict(state)
