"""The models shipped inside the package, and any other weights file by its URL."""

from __future__ import annotations

import dataclasses
import difflib
import os
from typing import TYPE_CHECKING

from deblend_batch import storage
from deblend_batch.config import DEFAULT_MODEL
from deblend_batch.errors import ModelError
from deblend_batch.models.card import ModelCard
from deblend_batch.models.weights import read_weights

if TYPE_CHECKING:
    from deblend_batch.models.model import Model

SHIPPED = os.path.join(os.path.dirname(__file__), "shipped")
_SUFFIX = ".safetensors"


def list_models() -> list[ModelCard]:
    """List the shipped models; needs no torch.

    Returns
    -------
    list of ModelCard
        Sorted by name; exactly one has ``default`` set.
    """
    cards = [read_weights(_shipped_path(name)).card for name in _shipped_names()]
    return [dataclasses.replace(card, default=card.name == DEFAULT_MODEL) for card in cards]


def resolve(name_or_url: str) -> str:
    """Return the URL of a weights file.

    Parameters
    ----------
    name_or_url : str
        Name of a shipped model, or path or URL of a weights file.

    Returns
    -------
    str
        Path or URL; it is not opened.

    Raises
    ------
    ModelError
        If it is neither; the nearest name and all names are given.
    """
    names = _shipped_names()
    if name_or_url in names:
        return _shipped_path(name_or_url)
    if "/" in name_or_url or os.sep in name_or_url or name_or_url.endswith(_SUFFIX):
        return name_or_url
    close = difflib.get_close_matches(name_or_url, names, n=1, cutoff=0.4)
    nearest = f"did you mean {close[0]!r}? " if close else ""
    raise ModelError(
        f"unknown model {name_or_url!r}; {nearest}shipped: {', '.join(names)}; "
        f"or give the path or URL of a {_SUFFIX} file"
    )


def find_card(name_or_url: str, options: storage.Options | None = None) -> ModelCard:
    """Read the card of a model without loading it; needs no torch.

    Parameters
    ----------
    name_or_url : str
        Name of a shipped model, or path or URL of a weights file.
    options : mapping, optional
        fsspec ``storage_options`` for a remote file.

    Returns
    -------
    ModelCard
        The card, with the sha256 of the file.

    Raises
    ------
    ModelError
        If the name is unknown or the file is no usable weights file.
    NotFoundError, StorageError
        If the file cannot be read.
    """
    return read_weights(resolve(name_or_url), options).card


def load_model(
    name_or_url: str, options: storage.Options | None = None, device: str = "cpu"
) -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_url : str
        Name of a shipped model, or path or URL of a weights file.
    options : mapping, optional
        fsspec ``storage_options`` for a remote file.
    device : str
        Torch device, such as ``"cpu"`` or ``"cuda:0"``.

    Returns
    -------
    Model
        Ready to predict.

    Raises
    ------
    ModelError
        If the name is unknown, the file is no usable weights file, or the device does not exist.
    NotFoundError, StorageError
        If the file cannot be read.
    """
    from deblend_batch.models.model import Model

    url = resolve(name_or_url)
    return Model.from_weights(read_weights(url, options), url, device)


def _shipped_names() -> list[str]:
    return sorted(
        name.removesuffix(_SUFFIX) for name in os.listdir(SHIPPED) if name.endswith(_SUFFIX)
    )


def _shipped_path(name: str) -> str:
    return os.path.join(SHIPPED, name + _SUFFIX)
