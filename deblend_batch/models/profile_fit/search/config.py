"""Settings of a profile fit."""

from __future__ import annotations

from dataclasses import dataclass, field

from deblend_batch.models.profile_fit.search.misfit import Trust
from deblend_batch.models.profile_fit.search.normal import SkyPrior
from deblend_batch.models.profile_fit.search.priors import PopulationPrior
from deblend_batch.models.profile_fit.search.solver import Search


@dataclass(frozen=True)
class FitConfig:
    """How blends are fitted; the defaults are right for survey images.

    Parameters
    ----------
    population : PopulationPrior
        Prior on shapes.
    sky : SkyPrior
        Shape of the prior on the sky.
    coarse, fine : Search
        The search in coarse cells, and that in cells as fine as pixels which it starts.
    star_fraction : float
        Share of stars among compact members before looking; 0 lets no member be a star.
    trust : Trust
        How far the profiles are trusted.
    model_error : float
        Share of a model's light that is not trusted when its residual is searched for sources.
    position_err_px : float
        One-sigma error of a detected position along each axis, px: how far members may move.
    """

    population: PopulationPrior = field(default_factory=PopulationPrior)
    sky: SkyPrior = field(default_factory=SkyPrior)
    coarse: Search = field(default_factory=lambda: Search(iterations=12, tolerance=0.3))
    fine: Search = field(default_factory=lambda: Search(iterations=30, tolerance=0.05))
    star_fraction: float = 0.2
    trust: Trust = field(default_factory=Trust)
    model_error: float = 0.03
    position_err_px: float = 0.5
