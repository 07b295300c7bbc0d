"""What a source must show, from the ground and from space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deblend_batch.flags import LEAST_SNR, LEAST_SURE


@dataclass(frozen=True)
class TrialRules:
    """Which members are divided for a trial.

    Parameters
    ----------
    least_snr : float
        Those with more flux over error: with less, two of half its light would not stand.
    radius_fwhm : tuple of float
        Those whose half-light radius is between these, in PSF widths: narrower ones are points.
    """

    least_snr: float
    radius_fwhm: tuple[float, float]


NO_TRIAL = TrialRules(np.inf, (0.0, 0.0))


@dataclass(frozen=True)
class HalfRules:
    """What two halves must show.

    Parameters
    ----------
    snr : float
        Each has more flux over error.
    shared : float
        Each shares less of its light.
    apart_fwhm : tuple of float
        How far apart they are, in PSF widths: nearer ones are a disc and its bulge.
    apart_radii : float
        How far they are apart at least, over the sum of their half-light radii as they are seen.
    gain : float
        By how much two make the blend's sum of squares less: six unknowns more make it less by six of noise.
    gain_share : float
        By what share of it.
    """

    snr: float
    shared: float
    apart_fwhm: tuple[float, float]
    apart_radii: float = 0.0
    gain: float = 10.0
    gain_share: float = 0.0


@dataclass(frozen=True)
class RefineRules:
    """What a source must show.

    Parameters
    ----------
    rounds : int
        Fits of a blend at most; the last one only drops.
    absent_snr : float
        A member with less is none: its flux is consistent with zero.
    least_snr : float
        A member whose light others share must have more: what the parameters of a profile are worth.
    shared : float
        From so large a share of others' light on.
    least_sure, sure_shared : float
        What may be a clump, and shares more, must have more of its flux over its whole error: what the misfit
        of a galaxy may have put there is no source.
    clump_ratio, clump_radii : float
        What may be a clump: it has less than so much of its neighbour's flux, and is within so many of its
        half-light radii.
    absent_sure, added_sure : float
        A source with less of its flux over its whole error, when all is done, is none, either; the second of
        those that were added.
    peak_snr : float
        Significance of a peak in the residual that becomes a source.
    apart_fwhm : float
        How far from every source it must be, in PSF widths.
    added_snr, added_shared : float
        The least flux over error, and the largest share of others' light, that what was added may have, once
        it was fitted: profiles leave the rest over of bright galaxies.
    trial : TrialRules
        Which members are divided for a trial.
    halves : tuple of HalfRules
        Two halves are two sources if they show what one of these asks for.
    """

    rounds: int = 4
    absent_snr: float = LEAST_SNR
    least_snr: float = 4.0
    shared: float = 0.8
    least_sure: float = 0.0
    sure_shared: float = 0.5
    clump_ratio: float = 0.5
    clump_radii: float = 3.0
    absent_sure: float = LEAST_SURE
    added_sure: float = 2.0
    peak_snr: float = 5.0
    apart_fwhm: float = 0.5
    added_snr: float = 3.0
    added_shared: float = 0.88
    trial: TrialRules = TrialRules(20.0, (0.3, 2.0))
    halves: tuple[HalfRules, ...] = (
        HalfRules(3.0, 0.65, (0.55, 1.7)),
        HalfRules(14.0, 0.75, (0.55, np.inf)),
        HalfRules(4.0, 0.5, (1.7, np.inf)),
    )


THROUGH_SEEING = RefineRules()
FROM_SPACE = RefineRules(
    least_sure=3.0,
    peak_snr=np.inf,
    trial=TrialRules(10.0, (0.3, 6.0)),
    halves=(
        HalfRules(14.0, 0.85, (0.7, np.inf), apart_radii=0.4, gain_share=0.3),
        HalfRules(4.0, 0.6, (2.4, np.inf), apart_radii=0.4),
    ),
)
"""Where galaxies show arms and clumps, residuals are those, and what may be one is dropped. Two halves must
explain much of what one profile leaves over, or be far apart and share little."""
