"""Members that were divided in two for a trial, and which of them are two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deblend_batch.refine.rules import HalfRules


@dataclass(frozen=True)
class Halves:
    """Members that were divided in two for a trial, each alone.

    Parameters
    ----------
    source_id : ndarray of int64, shape (k,)
        The members.
    yx : ndarray of float64, shape (k, 2, 2)
        Positions of the two halves, px.
    flux : ndarray of float64, shape (k, 2)
        In the band of the detection, nJy.
    radius_px : ndarray of float64, shape (k, 2)
        Half-light radii.
    snr, shared : ndarray of float64, shape (k, 2)
        As of members.
    gain, gain_share : ndarray of float64, shape (k,)
        By how much the blend's sum of squares became less, and by what share of it.
    """

    source_id: NDArray[np.int64]
    yx: NDArray[np.float64]
    flux: NDArray[np.float64]
    radius_px: NDArray[np.float64]
    snr: NDArray[np.float64]
    shared: NDArray[np.float64]
    gain: NDArray[np.float64]
    gain_share: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: list[Halves]) -> Halves:
        """Put halves end to end."""
        return cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )

    def are_two(self, psf_fwhm_px: float, rules: Sequence[HalfRules]) -> NDArray[np.bool_]:
        """Tell which are two sources by one of the rules.

        Parameters
        ----------
        psf_fwhm_px : float
            Full width at half maximum of the PSF.
        rules : sequence of HalfRules
            What they must show.
        """
        found = np.zeros(len(self.source_id), bool)
        for each in rules:
            found |= self._show(psf_fwhm_px, each)
        return found

    def apart_fwhm(self, psf_fwhm_px: float) -> NDArray[np.float64]:
        """Return how far apart the two are, in PSF widths."""
        apart = np.linalg.norm(self.yx[:, 0] - self.yx[:, 1], axis=1)
        return np.asarray(apart / psf_fwhm_px)

    def apart_radii(self, psf_fwhm_px: float) -> NDArray[np.float64]:
        """Return how far apart the two are, over the sum of their half-light radii as they are seen."""
        seen = np.hypot(self.radius_px, 0.5 * psf_fwhm_px).sum(axis=1)
        return np.asarray(psf_fwhm_px * self.apart_fwhm(psf_fwhm_px) / seen)

    def _show(self, psf_fwhm_px: float, rules: HalfRules) -> NDArray[np.bool_]:
        apart, (low, high) = self.apart_fwhm(psf_fwhm_px), rules.apart_fwhm
        stand = (self.snr > rules.snr).all(axis=1) & (self.shared < rules.shared).all(axis=1)
        far = (apart > low) & (apart < high)
        far &= self.apart_radii(psf_fwhm_px) > rules.apart_radii
        explain = (self.gain > rules.gain) & (self.gain_share > rules.gain_share)
        return np.asarray(stand & far & explain)
