"""Position and shape of the isophotes of sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detect.bits import MERGED, TRUNCATED

_LEAST_VARIANCE_PX = 1 / 12  # of the pixel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Isophotes:
    """Sources as their pixels tell; row ``i`` is number ``i + 1`` of the segmentation map.

    Parameters
    ----------
    x, y : ndarray of float64, shape (n,)
        Middle of the light, 0-based pixel centres.
    a, b : ndarray of float64, shape (n,)
        Rms along the major and the minor axis, px.
    theta : ndarray of float64, shape (n,)
        Angle of the major axis from +x towards +y, radians, within half a turn about 0.
    flags : ndarray of int32, shape (n,)
        2 merged, 8 truncated at the edge of the image.
    """

    x: Array
    y: Array
    a: Array
    b: Array
    theta: Array
    flags: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.x)


def measure_isophotes(
    segments: NDArray[np.int32], islands: NDArray[np.int32], light: Array
) -> Isophotes:
    """Measure the moments of sources.

    Parameters
    ----------
    segments, islands : ndarray of int32, shape (y, x)
        Numbers of the sources, and of the isophotes that they divide, from 1.
    light : ndarray of float64, shape (y, x)
        Positive in all sources.
    """
    y, x = np.nonzero(segments)
    number, weight = segments[y, x] - 1, light[y, x]
    n = int(segments.max(initial=0))

    def mean(values: Array) -> Array:
        return np.bincount(number, weight * values, n) / np.bincount(number, weight, n)

    middle_x, middle_y = mean(x.astype(np.float64)), mean(y.astype(np.float64))
    dx, dy = x - middle_x[number], y - middle_y[number]
    xx, yy = mean(dx**2) + _LEAST_VARIANCE_PX, mean(dy**2) + _LEAST_VARIANCE_PX
    xy = mean(dx * dy)
    half, turn = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    island = np.zeros(n, np.int64)
    island[number] = islands[y, x]
    members = np.bincount(island, minlength=1)
    edge = (x == 0) | (y == 0) | (x == segments.shape[1] - 1) | (y == segments.shape[0] - 1)
    truncated = np.bincount(number, edge, n) > 0
    return Isophotes(
        middle_x,
        middle_y,
        np.sqrt(half + turn),
        np.sqrt(np.maximum(half - turn, _LEAST_VARIANCE_PX)),
        0.5 * np.arctan2(2 * xy, xx - yy),
        (MERGED * (members[island] > 1) | TRUNCATED * truncated).astype(np.int32),
    )
