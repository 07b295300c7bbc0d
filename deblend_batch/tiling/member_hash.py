"""The id of a blend: a stable hash of what tells its members apart, their ids."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def hash_members(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hash member ids to the id of their blend, the same in every run and in any order.

    The hash is splitmix64 (Steele et al. 2014, doi:10.1145/2660193.2660195) of the smallest id, added to
    the next larger one and mixed again, and so on; the sign bit is cleared.

    Parameters
    ----------
    ids : ndarray of int64, shape (n, m)
        The ids of m members each, in any order.

    Returns
    -------
    ndarray of int64, shape (n,)
        Non-negative blend ids.
    """
    ordered = np.sort(ids, axis=1).view(np.uint64)
    mixed = np.zeros(len(ordered), np.uint64)
    for column in ordered.T:
        mixed = _splitmix64(mixed + column)
    return (mixed >> np.uint64(1)).astype(np.int64)


def hash_text(text: str) -> int:
    """Hash a text to a non-negative int64, the same in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
