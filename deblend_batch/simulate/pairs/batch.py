"""A batch of blended pairs, with everything that is known about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies.population import KINDS

Encoding = Literal["gg", "ogg", "bogg"]
Images = NDArray[np.float32]
_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = True


@dataclass(frozen=True)
class PairBatch:
    """Pairs of galaxies in stamps cut around the central.

    Fluxes are in image units, positions are 0-based (y, x) pixel centres.

    Parameters
    ----------
    stamps : numpy.ndarray
        float32 (n, y, x), noisy blends.
    central_yx, companion_yx : numpy.ndarray
        float32 (n, 2), detected positions: the true ones with a centroid error.
    neighbours_yx : numpy.ndarray
        float32 (n, k, 2), detected positions of other sources in the stamp, padded with NaN.
    flux : numpy.ndarray
        float32 (n, 2), true total flux of central and companion.
    truth : numpy.ndarray
        float32 (n, 2, y, x), each member alone, without noise.
    sigma : numpy.ndarray
        float32 (n,), background rms per pixel.
    psf_fwhm_px : numpy.ndarray
        float32 (n,), width of the PSF.
    mag : numpy.ndarray
        float32 (n, 2), true AB magnitudes.
    radius_px : numpy.ndarray
        float32 (n, 2), half-light radii along the major axis, before the PSF.
    kind : numpy.ndarray
        int8 (n, 2), index into :data:`deblend_batch.simulate.galaxies.population.KINDS`; -1 where unknown.
    galaxy_id : numpy.ndarray
        int64 (n, 2), galaxies of the pool.
    true_yx : numpy.ndarray
        float32 (n, 2, 2), true positions (member, (y, x)).
    """

    stamps: Images
    central_yx: Images
    companion_yx: Images
    neighbours_yx: Images
    flux: Images
    truth: Images
    sigma: Images
    psf_fwhm_px: Images
    mag: Images
    radius_px: Images
    kind: NDArray[np.int8]
    galaxy_id: NDArray[np.int64]
    true_yx: Images

    def __len__(self) -> int:
        return int(self.stamps.shape[0])

    @property
    def separation_px(self) -> Images:
        """True distance between the members, float32 (n,)."""
        step = self.true_yx[:, 1] - self.true_yx[:, 0]
        distance: Images = np.sqrt((step * step).sum(axis=1))
        return distance

    @property
    def kind_names(self) -> NDArray[np.str_]:
        """Morphological types by name, str (n, 2); empty where unknown."""
        return np.array([*KINDS, ""])[self.kind]

    def masks(
        self, threshold: float = 1.5, *, encoding: Encoding = "ogg", connected: bool = True
    ) -> NDArray[np.bool_]:
        """Segment each member alone, as a detector would without the other.

        Parameters
        ----------
        threshold : float
            Isophote of the noise-free member, in units of the background rms.
        encoding : {"gg", "ogg", "bogg"}
            ``"gg"``: central, companion. ``"ogg"``: overlap, central, companion, where the members include
            the overlap. ``"bogg"``: exclusive background, overlap, central only, companion only.
        connected : bool
            Keep only the pixels connected (8 neighbours) to the member's brightest; faster if False.

        Returns
        -------
        numpy.ndarray
            bool (n, channel, y, x).
        """
        members = self.truth > (threshold * self.sigma)[:, None, None, None]
        if connected:
            members = _connected_to_peak(members, self.truth)
        return encode_masks(members, encoding)

    def cramer_rao(self) -> Images:
        """Return the smallest possible error of the two fluxes.

        Returns
        -------
        numpy.ndarray
            float32 (n, 2), one standard deviation in image units, for known profiles t and white noise: the
            root of the diagonal of the inverse of F_ij = sum(t_i t_j) / sigma^2 (Kay 1993, section 3.8).
        """
        profile = (
            (self.truth / self.flux[:, :, None, None]).reshape(len(self), 2, -1).astype(np.float64)
        )
        fisher = (
            profile
            @ profile.transpose(0, 2, 1)
            / (self.sigma.astype(np.float64) ** 2)[:, None, None]
        )
        determinant = fisher[:, 0, 0] * fisher[:, 1, 1] - fisher[:, 0, 1] ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = fisher[:, [1, 0], [1, 0]] / determinant[:, None]
        return np.sqrt(np.where(variance > 0, variance, np.inf)).astype(np.float32)


def encode_masks(members: NDArray[np.bool_], encoding: Encoding) -> NDArray[np.bool_]:
    """Encode the masks of two members.

    Parameters
    ----------
    members : numpy.ndarray
        bool (n, 2, y, x), central and companion, each with the overlap.
    encoding : {"gg", "ogg", "bogg"}
        See :meth:`PairBatch.masks`.

    Returns
    -------
    numpy.ndarray
        bool (n, channel, y, x).
    """
    central, companion = members[:, 0], members[:, 1]
    if encoding == "gg":
        return members
    overlap = central & companion
    if encoding == "ogg":
        return np.stack([overlap, central, companion], axis=1)
    if encoding == "bogg":
        return np.stack(
            [~(central | companion), overlap, central & ~companion, companion & ~central], axis=1
        )
    raise ConfigError(f"mask encoding {encoding!r} is unknown; use 'gg', 'ogg' or 'bogg'")


def _connected_to_peak(members: NDArray[np.bool_], truth: Images) -> NDArray[np.bool_]:
    n, _, height, width = members.shape
    labels, _ = ndimage.label(members.reshape(2 * n, height, width), structure=_IN_PLANE)
    peak = truth.reshape(2 * n, -1).argmax(axis=1)
    chosen = labels.reshape(2 * n, -1)[np.arange(2 * n), peak]
    kept = (labels == chosen[:, None, None]) & (chosen > 0)[:, None, None]
    return np.asarray(kept.reshape(members.shape))
