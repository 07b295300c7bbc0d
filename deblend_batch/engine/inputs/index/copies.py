"""Rows of a detection table that are one source: as a survey's overlaps give them, at one very position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detections.table import Detections


def find_copies(detections: Detections) -> NDArray[np.bool_]:
    """Tell which detections stand at exactly the position of another; of each set the smallest id stays.

    Parameters
    ----------
    detections : Detections
        With finite positions.
    """
    if detections.yx is not None:
        first, second = detections.yx[:, 0], detections.yx[:, 1]
    else:
        first, second = detections.dec, detections.ra
    order = np.lexsort((detections.id, second, first))
    same = (np.diff(first[order]) == 0) & (np.diff(second[order]) == 0)
    copies = np.zeros(len(detections), np.bool_)
    copies[order[1:][same]] = True
    return copies
