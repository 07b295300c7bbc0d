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
from deblend_batch.models.weights import WeightsFile, read_weights

if TYPE_CHECKING:
    from deblend_batch.models.model import Model
    from deblend_batch.models.profile_fit.model import ProfileFit

SHIPPED = os.path.join(os.path.dirname(__file__), "shipped")
_SUFFIX = ".safetensors"


def shipped_digests() -> dict[str, str]:
    """Return the sha256 of each shipped model, by name; ``sha256sum -c SHA256SUMS`` checks the same."""
    with open(os.path.join(SHIPPED, "SHA256SUMS"), encoding="ascii") as file:
        pairs = [line.split() for line in file]
    return {name.removesuffix(_SUFFIX): digest for digest, name in pairs}


def list_models() -> list[ModelCard]:
    """List the shipped models; needs no torch.

    Returns
    -------
    list of ModelCard
        Sorted by name; exactly one has ``default`` set.
    """
    cards = [find_card(name) for name in _shipped_names()]
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


def find_card(
    name_or_url: str, options: storage.Options | None = None, sha256: str | None = None
) -> ModelCard:
    """Read the card of a model without loading it; needs no torch.

    Parameters
    ----------
    name_or_url : str
        Name of a shipped model, or path or URL of a weights file.
    options : mapping, optional
        fsspec ``storage_options`` for a remote file.
    sha256 : str, optional
        What the file must have; of a shipped model it is known.

    Returns
    -------
    ModelCard
        The card, with the sha256 of the file.

    Raises
    ------
    ModelError
        If the name is unknown, or the file is another than ``sha256`` says or no usable weights file.
    NotFoundError, StorageError
        If the file cannot be read.
    """
    return _read(name_or_url, options, sha256).card


def load_model(
    name_or_url: str,
    options: storage.Options | None = None,
    device: str = "cpu",
    sha256: str | None = None,
) -> Model | ProfileFit:
    """Load a model.

    Parameters
    ----------
    name_or_url : str
        Name of a shipped model, or path or URL of a weights file.
    options : mapping, optional
        fsspec ``storage_options`` for a remote file.
    device : str
        Torch device, such as ``"cpu"`` or ``"cuda:0"``.
    sha256 : str, optional
        What the file must have; of a shipped model it is known.

    Returns
    -------
    Model or ProfileFit
        A network or the fit, ready to predict.

    Raises
    ------
    ModelError
        If the name is unknown, the file is another than ``sha256`` says or no usable weights file, or the
        device does not exist.
    NotFoundError, StorageError
        If the file cannot be read.
    """
    weights = _read(name_or_url, options, sha256)
    if not weights.card.takes_pairs:
        from deblend_batch.models.profile_fit.model import ProfileFit

        return ProfileFit(weights.card, device)
    from deblend_batch.models.model import Model

    return Model.from_weights(weights, resolve(name_or_url), device)


def _read(name_or_url: str, options: storage.Options | None, sha256: str | None) -> WeightsFile:
    url = resolve(name_or_url)
    return read_weights(url, options, sha256 or shipped_digests().get(name_or_url))


def _shipped_names() -> list[str]:
    return sorted(
        name.removesuffix(_SUFFIX) for name in os.listdir(SHIPPED) if name.endswith(_SUFFIX)
    )


def _shipped_path(name: str) -> str:
    return os.path.join(SHIPPED, name + _SUFFIX)
