"""How likely a detection is a fragment of a brighter neighbour: a clump, an arm, a ring, noise on a halo.

A logistic model of what :mod:`deblend_batch.detect.hosts` measures. ``benchmarks/tune_detection.py`` fits it
to simulated fields whose sources are known, and prints the numbers that stand here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detect.hosts import Hosting

SPACE_WEIGHTS = (6.044, 0.291, -1.713, -0.874, -2.824, 0.070, 1.617)
GROUND_WEIGHTS = (-0.035, 0.348, -0.065, -0.697, -1.643, -0.420, 2.046)
"""Of a constant and of :func:`features`, in order. Seeing smooths the clumps that are peaks from space."""

Array = NDArray[np.float64]


def features(hosting: Hosting, peak: Array, fwhm_px: float) -> Array:
    """Return what tells fragments from sources, of detections that have a host.

    Parameters
    ----------
    hosting : Hosting
        Of the detections.
    peak : ndarray of float64, shape (n,)
        Of each on the filtered image, in units of its noise.
    fwhm_px : float
        Width of the PSF.

    Returns
    -------
    ndarray of float64, shape (n, 6)
        log10 of: the light over the host's; the peak over the host's profile there; the same in units of
        the scatter along it; the area over the PSF's. Then the distance in radii of the host, at most 3, and
        log10 of the number of detections about the host. 0 without a host.
    """
    excess = np.maximum(peak - hosting.halo, 0.1)
    columns = (
        np.log10(np.clip(hosting.share, 1e-6, 1.0)),
        np.log10(excess / (hosting.halo + 1.0)),
        np.log10(excess / (hosting.scatter + 1.0)),
        np.log10(np.maximum(hosting.area_px, 1.0) / fwhm_px**2),
        np.minimum(hosting.radii, 3.0),
        np.log10(1.0 + hosting.siblings),
    )
    return np.where(hosting.host[:, None] >= 0, np.stack(columns, axis=1), 0.0)


def fragment_score(hosting: Hosting, peak: Array, fwhm_px: float, *, from_space: bool) -> Array:
    """Return the probability that each detection is a fragment; 0 without a host.

    Parameters
    ----------
    hosting, peak, fwhm_px
        As of :func:`features`.
    from_space : bool
        Whether the PSF is that of a telescope in space.
    """
    weights = SPACE_WEIGHTS if from_space else GROUND_WEIGHTS
    logit = weights[0] + features(hosting, peak, fwhm_px) @ np.array(weights[1:])
    return np.where(hosting.host >= 0, 1.0 / (1.0 + np.exp(-logit)), 0.0)
