"""Members of pairs with known truth, and what a method recovered of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Members:
    """The truth; row ``i`` of each array is one member of one pair.

    Parameters
    ----------
    flux : ndarray of float64, shape (m,)
        True flux, positive, in any one unit.
    mag : ndarray of float64, shape (m,)
        True AB magnitude.
    is_central : ndarray of bool, shape (m,)
        Whether the member is the central of its pair.
    mag_difference : ndarray of float64, shape (m,)
        mag_central - mag_companion of the member's pair; NaN where unknown.
    separation : ndarray of float64, shape (m,)
        Distance to the other member, in ``separation_unit``; NaN where unknown.
    separation_radii : ndarray of float64, shape (m,)
        Distance over the sum of the two half-light radii; NaN where unknown.
    kind : ndarray of str, shape (m,)
        Morphological type, ``""`` where unknown.
    galaxy_id : ndarray of int64, shape (m,)
        Which galaxy it is.
    bound : ndarray of float64, shape (m,), optional
        One-sigma Cramer-Rao bound of the flux.
    separation_unit : str
        ``"px"`` or ``"arcsec"``.
    """

    flux: Floats
    mag: Floats
    is_central: NDArray[np.bool_]
    mag_difference: Floats
    separation: Floats
    separation_radii: Floats
    kind: NDArray[np.str_]
    galaxy_id: NDArray[np.int64]
    bound: Floats | None = None
    separation_unit: str = "px"

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Members:
        return _pick(self, rows)

    @property
    def kinds(self) -> list[str]:
        """The morphological types that occur, sorted."""
        return [str(kind) for kind in np.unique(self.kind) if kind]


@dataclass(frozen=True)
class Recovered:
    """What one method made of the members; row ``i`` belongs to row ``i`` of :class:`Members`.

    Parameters
    ----------
    method : str
        Name of the method, as it is to be shown.
    flux : ndarray of float64, shape (m,)
        Recovered flux in the truth's unit; NaN where the member was not detected.
    flux_err : ndarray of float64, shape (m,), optional
        Stated one-sigma error.
    iou : ndarray of float64, shape (m,), optional
        Intersection over union of the member's mask with the true one.
    """

    method: str
    flux: Floats
    flux_err: Floats | None = None
    iou: Floats | None = None

    def __getitem__(self, rows: slice | NDArray[Any]) -> Recovered:
        return _pick(self, rows)


T = TypeVar("T", Members, Recovered)


def _pick(record: T, rows: slice | NDArray[Any]) -> T:
    arrays = {f.name: getattr(record, f.name) for f in fields(record)}
    chosen: dict[str, Any] = {
        name: a[rows] for name, a in arrays.items() if isinstance(a, np.ndarray)
    }
    return replace(record, **chosen)


def members_of_pairs(
    flux: ArrayLike,
    mag: ArrayLike,
    radius: ArrayLike,
    kind: ArrayLike,
    galaxy_id: ArrayLike,
    separation: ArrayLike,
    bound: ArrayLike | None = None,
) -> Members:
    """Flatten columns of pairs; the members of pair ``i`` become rows ``2 i`` and ``2 i + 1``.

    Parameters
    ----------
    flux, mag : array_like of float, shape (n, 2)
        True fluxes and magnitudes of [central, companion].
    radius : array_like of float, shape (n, 2)
        Half-light radii, in the unit of ``separation``.
    kind : array_like of str, shape (n, 2)
        Morphological types.
    galaxy_id : array_like of int, shape (n, 2)
        Which galaxies they are.
    separation : array_like of float, shape (n,)
        Distances of the members, px.
    bound : array_like of float, shape (n, 2), optional
        One-sigma Cramer-Rao bounds.
    """
    mags, distance = np.asarray(mag, np.float64), np.asarray(separation, np.float64)
    radii = np.asarray(radius, np.float64).sum(axis=1)
    return Members(
        flux=flat(flux),
        mag=mags.ravel(),
        is_central=np.tile([True, False], len(mags)),
        mag_difference=np.repeat(mags[:, 0] - mags[:, 1], 2),
        separation=np.repeat(distance, 2),
        separation_radii=np.repeat(distance / radii, 2),
        kind=np.asarray(kind, np.str_).ravel(),
        galaxy_id=np.asarray(galaxy_id, np.int64).ravel(),
        bound=None if bound is None else flat(bound),
    )


def flat(values: ArrayLike) -> Floats:
    """Flatten pair columns of shape (n, 2) to member rows of shape (2 n,), float64."""
    return np.asarray(values, np.float64).ravel()


def concatenate(parts: Sequence[T]) -> T:
    """Join the rows of several batches, in order.

    Parameters
    ----------
    parts : sequence of Members or of Recovered
        At least one; each optional column is in all of them or in none.

    Returns
    -------
    Members or Recovered
        All rows, with the names and units of the first.
    """
    first = parts[0]
    names = [f.name for f in fields(first) if isinstance(getattr(first, f.name), np.ndarray)]
    rows: dict[str, Any] = {n: np.concatenate([getattr(part, n) for part in parts]) for n in names}
    return replace(first, **rows)
