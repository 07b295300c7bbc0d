"""A mask plane of a file: its bits, and which pixels are bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import ConfigError
from deblend_batch.field.mask_bits import MaskBits, bad_pixels
from deblend_batch.ingest.files.plane import Plane

UNOBSERVED = "UNOBSERVED"
"""Name of the bit of pixels that are bad for another reason: no weight, no value in the mask, padding."""


@dataclass(frozen=True)
class MaskPlane:
    """An open mask.

    Parameters
    ----------
    plane : Plane
        Its pixels.
    bits : MaskBits, optional
        What its bits mean; None where any bit is bad.
    covers : bool
        Whether it has no bits, and is positive where there are data.
    """

    plane: Plane
    bits: MaskBits | None
    covers: bool = False

    def read(
        self, rows: slice, columns: slice
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Read a window.

        Parameters
        ----------
        rows, columns : slice
            The window, px.

        Returns
        -------
        bits : ndarray of uint64, shape (y, x)
            Those that have a name.
        bad : ndarray of bool, shape (y, x)
            Whether one of them makes the pixel bad.
        unknown : ndarray of bool, shape (y, x)
            Where the mask has no value.
        """
        if self.covers:
            with np.errstate(invalid="ignore"):
                empty = ~(self.plane.values(rows, columns) > 0)
            return np.zeros(empty.shape, np.uint64), np.zeros(empty.shape, bool), empty
        bits, unknown = self.plane.read_bits(rows, columns)
        if self.bits is None:
            return bits, bits != 0, unknown
        named = np.uint64(sum(1 << bit for bit in self.bits.bits.values()))
        return bits & named, bad_pixels(bits, self.bits), unknown


def common_bits(masks: Sequence[MaskPlane | None]) -> MaskBits | None:
    """Return the names of the bits of a field's mask, in which all bands have theirs.

    Parameters
    ----------
    masks : sequence of MaskPlane or None
        Of each band.
    """
    named = [mask.bits for mask in masks if mask is not None and mask.bits is not None]
    if not named:
        return None
    if len(named) < sum(mask is not None for mask in masks):
        raise ConfigError(
            "--mask-bits: the masks of some bands name their bits, those of others do not; say which are bad"
        )
    bits: dict[str, int] = {}
    for each in named:
        for name, bit in each.bits.items():
            if bits.setdefault(name, bit) != bit:
                raise ConfigError(
                    f"--mask-bits: {name} is bit {bits[name]} in one band and {bit} in another; ingest masks "
                    "of one kind"
                )
    if len(set(bits.values())) < len(bits):
        raise ConfigError(
            "--mask-bits: one bit has two names in the masks of the bands; ingest masks of one kind"
        )
    free = next((bit for bit in range(64) if bit not in bits.values()), None)
    if free is None:
        raise ConfigError("--mask-bits: all 64 bits of the mask have names, and one must be free")
    bad = dict.fromkeys(name for each in named for name in each.bad)
    return MaskBits({**bits, UNOBSERVED: free}, (*bad, UNOBSERVED))
