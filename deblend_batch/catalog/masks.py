"""Masks of a run's pairs: a Zarr group a tile beside its shard, written only where the config asks for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from deblend_batch import storage
from deblend_batch.field import stores

CHANNELS = ("overlap", "central", "companion")
_FOLDER = "masks.zarr"
_PAIRS_PER_CHUNK = 256


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

    Each tile owns a group of its name with two arrays, whose rows are the pairs of its shard in the same
    order: ``masks``, uint8 (pair, 3, y, x), and ``blend_id``, int64 (pair,). What stands there counts only
    with the tile's receipt, which is written later.

    Parameters
    ----------
    output : str
        The run's output folder.
    options : mapping, optional
        fsspec storage options.
    """

    def __init__(self, output: str, options: storage.Options | None = None) -> None:
        self.url = storage.join(output, _FOLDER)
        self._options = options

    def create(self) -> None:
        """Make the group above all tiles, unless it is there.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        if not storage.exists(storage.join(self.url, "zarr.json"), self._options):
            stores.create_group(self.url, self._options, {"channels": CHANNELS, "scale": 1 / 255})

    def write(self, tile: str, blend_id: NDArray[np.int64], masks: NDArray[np.uint8]) -> None:
        """Write a tile's masks, in the place of earlier ones.

        Parameters
        ----------
        tile : str
            The tile's name.
        blend_id : ndarray of int64, shape (pair,)
            The pairs.
        masks : ndarray of uint8, shape (pair, 3, y, x)
            Result of :func:`quantise`; the stamps' pixels, channels as in :data:`CHANNELS`.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        url = storage.member(self.url, tile)
        group = stores.create_group(url, self._options, {"channels": CHANNELS, "scale": 1 / 255})
        try:
            for name, values, axes in (
                ("masks", masks, ("pair", "channel", "y", "x")),
                ("blend_id", blend_id, ("pair",)),
            ):
                group.create_array(
                    name,
                    data=values,
                    chunks=(min(_PAIRS_PER_CHUNK, len(values)), *values.shape[1:]),
                    compressors=ZstdCodec(level=1),
                    dimension_names=axes,
                )
        except Exception as error:
            raise storage.translate(url, error, writing=True) from error

    def tiles(self) -> list[str]:
        """Return the names of the tiles whose masks are there.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        return [name for name in storage.list_names(self.url, self._options) if name != "zarr.json"]
