"""Where a detector would say that a galaxy is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_SIGMA_PX = 1.5
_STEPS = 25
_GAIN = 1.5  # SExtractor's 2 overshoots where the window is wider than the source
_CONVERGED_PX = 1e-3


def windowed_centroid(image: NDArray[np.float32], radius_px: float) -> NDArray[np.float64]:
    """Find the centroid under a Gaussian window that follows it: SExtractor's XWIN_IMAGE, YWIN_IMAGE.

    Parameters
    ----------
    image : numpy.ndarray
        float32 (y, x), square, a galaxy near pixel (side // 2, side // 2).
    radius_px : float
        Half-light radius; the window's full width at half maximum is twice that.

    Returns
    -------
    numpy.ndarray
        float64 (2,), position (y, x), 0-based pixel centres; within 0.7 of the window's reach of the centre.
    """
    middle = image.shape[0] // 2
    sigma = float(np.clip(2 * radius_px / 2.355, _LEAST_SIGMA_PX, middle / 4))
    reach = int(min(np.ceil(4 * sigma), middle - 2))
    cut = image[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    grid = np.arange(-reach, reach + 1, dtype=np.float32)
    limit = 0.7 * reach
    y = x = 0.0
    for _ in range(_STEPS):
        weight_y = np.exp(-0.5 * ((grid - y) / sigma) ** 2)
        weight_x = np.exp(-0.5 * ((grid - x) / sigma) ** 2)
        column, row = (cut @ weight_x) * weight_y, (weight_y @ cut) * weight_x
        total = max(float(column.sum()), 1e-30)
        step_y = _GAIN * (float(column @ grid) / total - y)
        step_x = _GAIN * (float(row @ grid) / total - x)
        y, x = float(np.clip(y + step_y, -limit, limit)), float(np.clip(x + step_x, -limit, limit))
        if abs(step_y) + abs(step_x) < _CONVERGED_PX:
            break
    return np.array([middle + y, middle + x], np.float64)
