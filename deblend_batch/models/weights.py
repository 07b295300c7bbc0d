"""Weights files: safetensors with a model card in the metadata, read with suspicion.

Only safetensors are read, told by content and not by name: a pickle can run code. Nothing is read
beyond what a checked header announces. Reading a card needs no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from deblend_batch import storage
from deblend_batch.errors import ModelError
from deblend_batch.models.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_HEADER = 1 << 20
_LARGEST_FILE = 1 << 30
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_REMEDY = "give a file that 'deblend-batch train' wrote"


@dataclass(frozen=True)
class WeightsFile:
    """A weights file, whole and checked.

    Parameters
    ----------
    card : ModelCard
        The card, with ``parameters`` and ``sha256`` filled in.
    content : bytes
        The file.
    """

    card: ModelCard
    content: bytes

    def tensors(self) -> dict[str, Tensor]:
        """Decode the weights.

        Returns
        -------
        dict of str to Tensor of float32
            The network's state.
        """
        from safetensors.torch import load

        tensors: dict[str, Tensor] = load(self.content)
        return tensors


def read_weights(
    url: str, options: storage.Options | None = None, sha256: str | None = None
) -> WeightsFile:
    """Read a weights file.

    Parameters
    ----------
    url : str
        Path or URL.
    options : mapping, optional
        fsspec ``storage_options``.
    sha256 : str, optional
        What the file must have; it is compared before anything is made of the file.

    Raises
    ------
    NotFoundError, StorageError
        If it cannot be read.
    ModelError
        If it is another file than ``sha256`` says, no safetensors file, has no usable card, or is larger
        than 1 GiB, truncated or damaged.
    """
    try:
        with _opened(url, options, sha256) as file:
            start, header = _read_header(file, url)
            announced = _announced_bytes(header, url)
            content = start + file.read(announced + 1)
    except (OSError, TimeoutError) as error:
        raise storage.translate(url, error) from error
    if len(content) != len(start) + announced:
        raise ModelError(
            f"{url}: its header announces {announced} bytes of weights but others follow; the "
            "file is damaged or truncated, copy it again"
        )
    card = ModelCard.from_metadata(header.pop("__metadata__", None) or {}, url)
    counted = dataclasses.replace(
        card,
        parameters=sum(math.prod(tensor["shape"]) for tensor in header.values()),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return WeightsFile(counted, content)


def write_weights(
    url: str, card: ModelCard, state: Mapping[str, Tensor], options: storage.Options | None = None
) -> None:
    """Write a weights file, whole or not at all.

    Parameters
    ----------
    url : str
        Path or URL.
    card : ModelCard
        What travels with the weights; ``activation_bytes`` is filled in.
    state : mapping of str to Tensor of float32
        The network's state.
    options : mapping, optional
        fsspec ``storage_options``.
    """
    from safetensors.torch import save

    from deblend_batch.models.networks.activations import count_activations

    counted = dataclasses.replace(card, activation_bytes=count_activations(card))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    storage.write_bytes(url, save(tensors, metadata=counted.to_metadata()), options)


def _opened(url: str, options: storage.Options | None, sha256: str | None) -> BinaryIO:
    """Open a file; of a pinned one, only after all of it has been read and is what it should be."""
    file = storage.open_read(url, options)
    if sha256 is None:
        return file
    with file:
        content = file.read(8 + _LARGEST_HEADER + _LARGEST_FILE)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise ModelError(
            f"{url}: these weights have sha256 {found}, not {sha256.lower()} as asked for; "
            "get the file that was meant, or change 'model_sha256' if this one is"
        )
    return io.BytesIO(content)


def _read_header(file: BinaryIO, url: str) -> tuple[bytes, dict[str, Any]]:
    """Read the length and the JSON header; refuse what is not safetensors."""
    start = file.read(8)
    if start.startswith(_PICKLE_STARTS):
        raise ModelError(f"{url}: a pickle, which can run code when it is read; {_REMEDY}")
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= _LARGEST_HEADER:
        raise ModelError(f"{url}: not a safetensors file; {_REMEDY}")
    text = file.read(length)
    try:
        header = json.loads(text)
        for name, tensor in header.items():
            if name != "__metadata__":
                _check_tensor(tensor)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{url}: not a safetensors file of float32 weights; {_REMEDY}") from error
    return start + text, header


def _check_tensor(tensor: Any) -> None:
    low, high = tensor["data_offsets"]
    shape = [int(edge) for edge in tensor["shape"]]
    if tensor["dtype"] != "F32" or min(shape, default=1) < 0 or high - low != 4 * math.prod(shape):
        raise ValueError("not float32, or of another size than its shape says")


def _announced_bytes(header: Mapping[str, Any], url: str) -> int:
    ranges = sorted(
        tensor["data_offsets"] for name, tensor in header.items() if name != "__metadata__"
    )
    end = 0
    for low, high in ranges:
        if low != end:
            raise ModelError(f"{url}: its tensors overlap or leave gaps; {_REMEDY}")
        end = high
    if end > _LARGEST_FILE:
        raise ModelError(
            f"{url}: announces {end} bytes of weights, more than the limit of {_LARGEST_FILE}; "
            + _REMEDY
        )
    return end
