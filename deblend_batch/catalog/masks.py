"""Masks of a run's pairs: a Zarr group a tile beside its shard, written only where the config asks for it."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.errors import ContainsArrayError

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.arrays.bounds import bounded
from deblend_batch.catalog.output import Output
from deblend_batch.errors import CatalogError, StorageError

CHANNELS = ("overlap", "central", "companion")
_ATTRIBUTES = {"channels": CHANNELS, "scale": 1 / 255}
_DIGITS = 16
_PAIRS_PER_CHUNK = 256
_MAX_PAIR_BYTES = 1 << 20
"""Three masks of 590 x 590 pixels."""


def quantise(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn probabilities into bytes; 255 is certainty.

    Parameters
    ----------
    probabilities : ndarray of float32
        From 0 to 1.

    Returns
    -------
    ndarray of uint8, same shape
        Within 1/510 of the probability.
    """
    values: NDArray[np.uint8] = np.rint(probabilities * np.float32(255)).astype(np.uint8)
    return values


class MaskStore:
    """The ``masks.zarr`` of a run.

    A tile's masks are a group ``<tile>-<first digits of their sha256>`` with two arrays, whose rows are the
    pairs of its shard in the same order: ``masks``, uint8 (pair, 3, y, x), and ``blend_id``, int64 (pair,).
    By that name writers that do not agree keep out of each other's way; the tile's receipt says whose count.

    Parameters
    ----------
    output : Output
        The run's output folder.
    """

    def __init__(self, output: Output) -> None:
        self.url = output.masks_url
        self._output = output

    def create(self) -> None:
        """Make the group above all tiles, unless it is there."""
        stores.require_group(self.url, self._output.options, _ATTRIBUTES)

    def _url(self, tile: str, sha256: str) -> str:
        return storage.member(self.url, f"{tile}-{sha256[:_DIGITS]}")

    def write(self, tile: str, blend_id: NDArray[np.int64], masks: NDArray[np.uint8]) -> str:
        """Write masks of a tile's pairs; others may write the same, or other ones, at this moment.

        Parameters
        ----------
        tile : str
            The tile's name.
        blend_id : ndarray of int64, shape (pair,)
            The pairs.
        masks : ndarray of uint8, shape (pair, 3, y, x)
            Result of :func:`quantise`; the stamps' pixels, channels as in :data:`CHANNELS`.
        """
        sha256 = digest(blend_id, masks)
        url = self._url(tile, sha256)
        group = stores.require_group(url, self._output.options, _ATTRIBUTES)
        try:
            _put(group, "masks", masks, ("pair", "channel", "y", "x"))
            _put(group, "blend_id", blend_id, ("pair",))
        except Exception as error:
            raise storage.translate(url, error, writing=True) from error
        return sha256

    def copy(self, tile: str, sha256: str, to: MaskStore, name: str) -> None:
        """Copy a tile's masks, byte for byte, to another store, under another name of the tile."""
        source, target = self._url(tile, sha256), to._url(name, sha256)
        for path in storage.list_tree(source, self._output.options):
            content = self._output.read(storage.join(source, path))
            to._output.write(storage.join(target, path), content)

    def remove(self, tile: str, sha256: str) -> None:
        """Remove masks of a tile; absent ones are no error."""
        self._output.remove_tree(self._url(tile, sha256))

    def check(self, tile: str, sha256: str, n_pairs: int) -> None:
        """Read a tile's masks, a chunk of pairs at a time, and compare them with what its receipt says."""
        url = self._url(tile, sha256)
        try:
            blend_id, masks = self._open(url, n_pairs)
            content = hashlib.sha256(np.asarray(blend_id).data)
            for start in range(0, blend_id.shape[0], _PAIRS_PER_CHUNK):
                rows = np.ascontiguousarray(masks[start : start + _PAIRS_PER_CHUNK])
                content.update(rows.data)
        except StorageError:
            raise
        except Exception as error:
            meaning = storage.translate(url, error)
            if isinstance(meaning, StorageError):
                raise meaning from error
            raise CatalogError(
                f"{url}: masks missing or damaged; remove this and the tile's receipt, and run again"
            ) from error
        if content.hexdigest() != sha256:
            raise CatalogError(
                f"{url}: masks altered; remove this and the tile's receipt, and run again"
            )

    def read(
        self, tile: str, sha256: str, n_pairs: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Read a tile's masks.

        Returns
        -------
        blend_id : ndarray of int64, shape (pair,)
            The pairs.
        masks : ndarray of uint8, shape (pair, 3, y, x)
            Of these; 255 is certainty.
        """
        self.check(tile, sha256, n_pairs)
        blend_id, masks = self._open(self._url(tile, sha256), n_pairs)
        return np.asarray(blend_id), np.asarray(masks)

    def _open(self, url: str, n_pairs: int) -> tuple[zarr.Array[Any], zarr.Array[Any]]:
        """Open a tile's two arrays; refuse what :meth:`write` cannot have made, before any of it is read."""
        group = stores.open_group(url, self._output.options)
        return _member(group, url, "blend_id", n_pairs), _member(group, url, "masks", n_pairs)


def _member(group: zarr.Group, url: str, name: str, n_pairs: int) -> zarr.Array[Any]:
    array = stores.open_member(group, url, name)
    if array is None or array.shape[:1] != (n_pairs,) or array.nbytes > n_pairs * _MAX_PAIR_BYTES:
        raise ValueError(f"{name} is missing, or not that of {n_pairs} pairs")
    return bounded(array, url, name)


def digest(blend_id: NDArray[np.int64], masks: NDArray[np.uint8]) -> str:
    """Return the sha256, hexadecimal, of the masks of a tile: their pairs' ids, then the masks."""
    content = hashlib.sha256(np.ascontiguousarray(blend_id).data)
    content.update(np.ascontiguousarray(masks).data)
    return content.hexdigest()


def _put(
    group: zarr.Group, name: str, values: NDArray[Any], dimension_names: tuple[str, ...]
) -> None:
    """Write an array; what is there of its name is a part or the whole of the same."""
    require = partial(
        group.require_array,
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(min(_PAIRS_PER_CHUNK, len(values)), *values.shape[1:]),
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=dimension_names,
    )
    try:
        array = require()
    except ContainsArrayError:  # somebody has made it since it was looked for
        array = require()
    array[...] = values
