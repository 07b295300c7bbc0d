"""Rows of any length become batches of one fixed shape on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any] | Tensor
"""What callers give rows of stamps and positions as."""


class Staging:
    """Cuts arrays into batches that all have the same shape; the last one is padded with NaN.

    Rows on the host go through reused buffers, which also takes care of their dtype and of
    read-only arrays. On CUDA the buffers are pinned, there are two of each, and copies have a stream
    of their own, so that a batch is filled and copied while the one before is computed.

    Parameters
    ----------
    arrays : mapping of str to ndarray or Tensor
        Arrays with the same first axis, on the host or on ``device``.
    batch_size : int
        Rows of a batch.
    device : torch.device
        Where the batches are needed.
    """

    def __init__(self, arrays: Mapping[str, Array], batch_size: int, device: torch.device) -> None:
        self._arrays = arrays
        self._batch_size = batch_size
        self._device = device
        self._cuda = device.type == "cuda"
        self._slots = [self._buffers() for _ in range(2 if self._cuda else 1)]
        self._copied: list[torch.cuda.Event] = []
        self._stream: torch.cuda.Stream | None = None
        if self._cuda:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._copied = [torch.cuda.Event() for _ in self._slots]  # type: ignore[no-untyped-call]

    def _buffers(self) -> dict[str, Tensor]:
        return {
            name: torch.empty((self._batch_size, *rows.shape[1:]), pin_memory=self._cuda)
            for name, rows in self._arrays.items()
            if not _on_device(rows)
        }

    def __iter__(self) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        n = len(next(iter(self._arrays.values())))
        for number, start in enumerate(range(0, n, self._batch_size)):
            rows = slice(start, min(start + self._batch_size, n))
            yield rows, self._batch(rows, number % len(self._slots))

    def _batch(self, rows: slice, slot: int) -> dict[str, Tensor]:
        if self._cuda:
            self._copied[slot].synchronize()
        for name, buffer in self._slots[slot].items():
            _fill(buffer, self._arrays[name][rows])
        with torch.cuda.stream(self._stream):  # None: nothing, where there is no GPU
            batch = {
                name: buffer.to(self._device, non_blocking=True)
                for name, buffer in self._slots[slot].items()
            }
        if self._stream is not None:
            self._copied[slot].record(self._stream)
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(self._copied[slot])
            for copy in batch.values():
                copy.record_stream(computing)  # else its memory might be used again too early
        for name, array in self._arrays.items():
            if isinstance(array, Tensor) and _on_device(array):
                batch[name] = _padded(array[rows], self._batch_size).to(self._device)
        return batch


def _on_device(rows: Array) -> bool:
    return isinstance(rows, Tensor) and rows.device.type != "cpu"


def _fill(buffer: Tensor, rows: Array) -> None:
    source = rows.detach().numpy() if isinstance(rows, Tensor) else rows
    target = buffer.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        target[: len(source)] = source
    target[len(source) :] = np.nan


def _padded(rows: Tensor, batch_size: int) -> Tensor:
    padding = rows.new_full(
        (batch_size - len(rows), *rows.shape[1:]), torch.nan, dtype=torch.float32
    )
    return torch.cat([rows.detach().float(), padding])
