"""``sep.extract`` with buffers that grow, for the crowded fields where its defaults overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray

_PIXSTACK = 300_000
_SUB_OBJECTS = 1024
_LARGEST_SUB_OBJECTS = 65_536


def extract_objects(pixels: NDArray[np.floating], threshold_sigma: float, **options: Any) -> Any:
    """Run ``sep.extract``; enlarge its pixel stack and its deblending limit as long as they overflow.

    Parameters
    ----------
    pixels : ndarray of float, shape (y, x)
        C-contiguous, finite, background subtracted.
    threshold_sigma : float
        Detection threshold in units of ``err``.
    **options
        Passed to ``sep.extract``.

    Returns
    -------
    ndarray or tuple of ndarray
        As ``sep.extract`` returns.
    """
    pixstack, sub_objects = _PIXSTACK, _SUB_OBJECTS
    while True:
        sep.set_extract_pixstack(pixstack)
        sep.set_sub_object_limit(sub_objects)
        try:
            return sep.extract(pixels, threshold_sigma, **options)
        except Exception as error:
            message = str(error)
            if "pixel buffer full" in message and pixstack < 2 * pixels.size:
                pixstack *= 4
            elif "sub-object" in message and sub_objects < _LARGEST_SUB_OBJECTS:
                sub_objects *= 8
            else:
                raise
