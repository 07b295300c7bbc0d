"""Which detected object is which member: by position, one to one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

MATCH_RADII = 0.5
MATCH_EXTRA_PX = 3.0

_FORBIDDEN = 1e9


def match_limit_px(radius_px: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return how far from a galaxy an object may lie and still be it: 0.5 Re + 3 px.

    Parameters
    ----------
    radius_px : ndarray of float, shape (...)
        Half-light radii, px.

    Returns
    -------
    ndarray of float64, shape (...)
        Distances, px.
    """
    return MATCH_RADII * np.asarray(radius_px, np.float64) + MATCH_EXTRA_PX


def match_members(
    object_yx: NDArray[np.floating[Any]],
    member_yx: NDArray[np.floating[Any]],
    limit_px: NDArray[np.floating[Any]],
) -> NDArray[np.intp]:
    """Give each member an object of its own, as many as can be, at the least total distance.

    Parameters
    ----------
    object_yx : ndarray of float, shape (m, 2)
        Positions (y, x) of objects, px.
    member_yx : ndarray of float, shape (k, 2)
        Positions (y, x) of members, px.
    limit_px : ndarray of float, shape (k,)
        Largest distance of a match, px.

    Returns
    -------
    ndarray of int, shape (k,)
        Row in ``object_yx`` of each member; -1 where it has none.
    """
    distance = np.linalg.norm(object_yx[None, :, :] - member_yx[:, None, :], axis=-1)
    allowed = distance <= np.asarray(limit_px)[:, None]
    members, objects = linear_sum_assignment(np.where(allowed, distance, _FORBIDDEN))
    kept = allowed[members, objects]
    matched = np.full(len(member_yx), -1, np.intp)
    matched[members[kept]] = objects[kept]
    return matched
