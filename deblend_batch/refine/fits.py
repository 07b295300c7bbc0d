"""What fits of the blends of a part of a field tell of which sources there are."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from deblend_batch.refine.halves import Halves


@dataclass(frozen=True)
class Fits:
    """Members of some blends, those that are measured there, and a peak in the residual of each blend.

    Parameters
    ----------
    source_id : ndarray of int64, shape (n,)
        The members.
    neighbour_id : ndarray of int64, shape (n,)
        The nearest other member; -1 where there is none.
    yx, yx_err : ndarray of float64, shape (n, 2)
        Their positions and the errors of these, px.
    flux, flux_err : ndarray of float64, shape (n,)
        In the band of the detection, nJy.
    snr : ndarray of float64, shape (n,)
        Flux over error in the band where that is largest; NaN where no pixel tells.
    sure : ndarray of float64, shape (n,)
        Flux over its whole error, what may be others' light included, in the band where that is largest;
        NaN as above.
    shared : ndarray of float64, shape (n,)
        Share of the light within the member's profile that is others', in the band where it is least.
    radius_arcsec : ndarray of float64, shape (n,)
        Half-light radius; 0 for stars.
    flux_ratio, radii_away : ndarray of float64, shape (n,)
        Flux over that of the nearest other member, and the distance from it in its half-light radii; infinite
        where there is none, or it has none.
    blend : ndarray of int64, shape (n,)
        Number of its blend.
    in_glare : ndarray of bool, shape (blend,)
        Whether the mask says that a member is saturated, or in a bright star's halo.
    peak_sn, peak_flux : ndarray of float64, shape (blend,)
        Significance of the highest peak in the residual, of all bands; and a guess at its flux in the band of
        the detection, nJy.
    peak_yx : ndarray of float64, shape (blend, 2)
        Its place, px.
    halves : Halves
        Members that were divided for a trial.
    """

    source_id: NDArray[np.int64]
    neighbour_id: NDArray[np.int64]
    yx: NDArray[np.float64]
    yx_err: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_err: NDArray[np.float64]
    snr: NDArray[np.float64]
    sure: NDArray[np.float64]
    shared: NDArray[np.float64]
    radius_arcsec: NDArray[np.float64]
    flux_ratio: NDArray[np.float64]
    radii_away: NDArray[np.float64]
    blend: NDArray[np.int64]
    in_glare: NDArray[np.bool_]
    peak_sn: NDArray[np.float64]
    peak_flux: NDArray[np.float64]
    peak_yx: NDArray[np.float64]
    halves: Halves

    @classmethod
    def joined(cls, parts: list[Fits]) -> Fits:
        """Put fits of different blends end to end."""
        before = np.cumsum([0, *(len(part.peak_sn) for part in parts)])
        numbered = [
            replace(part, blend=part.blend + first)
            for part, first in zip(parts, before[:-1], strict=True)
        ]
        names = [f.name for f in fields(cls) if f.name != "halves"]
        columns = {name: np.concatenate([getattr(one, name) for one in numbered]) for name in names}
        return cls(**columns, halves=Halves.joined([part.halves for part in parts]))
