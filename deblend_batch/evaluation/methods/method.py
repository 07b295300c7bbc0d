"""Every way to the fluxes of a pair behind one call: models of the package, and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.methods import baselines, sextractor
from deblend_batch.field.photometry import nanojansky_per_unit

if TYPE_CHECKING:
    from deblend_batch.models.card import ModelCard
    from deblend_batch.models.model import Model
    from deblend_batch.models.prediction import Prediction
    from deblend_batch.models.profile_fit.model import ProfileFit
    from deblend_batch.simulate.pairs.batch import PairBatch

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What a method says of a batch of pairs.

    Parameters
    ----------
    flux : ndarray of float64, shape (n, 2)
        Flux of [central, companion] in image units; NaN where not detected.
    seen : PairBatch
        The pairs as the method saw them: its own stamp size.
    flux_err : ndarray of float64, shape (n, 2), optional
        Stated one-sigma errors.
    masks : ndarray of float32, shape (n, 3, y, x), optional
        Probabilities of [overlap, central, companion] on the stamps of ``seen``.
    """

    flux: Floats
    seen: PairBatch
    flux_err: Floats | None = None
    masks: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Method:
    """A named way to the fluxes of pairs.

    Parameters
    ----------
    name : str
        As it is shown.
    estimate : callable
        From a batch of pairs to an :class:`Estimate`.
    is_limit : bool
        True for what is told the truth, and so is no method but a limit.
    about : str
        What it does and what it is told, in a line.
    """

    name: str
    estimate: Callable[[PairBatch], Estimate]
    is_limit: bool = False
    about: str = ""


def model_method(model: Model, batch_size: int | None = None) -> Method:
    """Make a method of a model; stamps larger than the model's are cropped around the central.

    Parameters
    ----------
    model : Model
        A loaded model.
    batch_size : int, optional
        Stamps per batch; the model's own choice if not given.
    """

    def estimate(batch: PairBatch) -> Estimate:
        seen = crop(batch, model.card.stamp_size, model.card.name)
        prediction = model.predict(
            seen.stamps,
            seen.companion_yx,
            central_yx=seen.central_yx,
            neighbours_yx=seen.neighbours_yx,
            sigma=seen.sigma,
            batch_size=batch_size,
        )
        return _estimate(prediction, seen)

    return Method(model.card.name, estimate, about=_about(model.card))


def fit_method(
    model: ProfileFit, pixel_scale_arcsec: float, zero_point: float, batch_size: int | None = None
) -> Method:
    """Make a method of the profile fit, which is told the width of the PSF, too.

    Parameters
    ----------
    model : ProfileFit
        The fit.
    pixel_scale_arcsec : float
        Size of a pixel.
    zero_point : float
        AB magnitude of one unit of the stamps.
    batch_size : int, optional
        Stamps per batch; the model's own choice if not given.
    """

    def estimate(batch: PairBatch) -> Estimate:
        prediction = model.predict(
            batch.stamps,
            batch.companion_yx,
            central_yx=batch.central_yx,
            neighbours_yx=batch.neighbours_yx,
            sigma=batch.sigma,
            batch_size=batch_size,
            psf=batch.psf_fwhm_px,
            pixel_scale_arcsec=pixel_scale_arcsec,
            njy_per_unit=float(nanojansky_per_unit(zero_point)),
        )
        return _estimate(prediction, batch)

    about = (
        "Sersic profiles and point sources fitted to all sources of a stamp, told the detected positions and "
        f"the width of the PSF, whose shape it assumes; weights sha256 {model.card.sha256[:12]}"
    )
    return Method(model.card.name, estimate, about=about)


def _estimate(prediction: Prediction, seen: PairBatch) -> Estimate:
    return Estimate(
        flux=prediction.flux.astype(np.float64),
        seen=seen,
        flux_err=prediction.flux_err.astype(np.float64),
        masks=prediction.masks,
    )


_FLUX_OF_MASKS = (
    " (for masks; its fluxes are the pixels under them, the light outside is not added)"
)


def _about(card: ModelCard) -> str:
    purpose = _FLUX_OF_MASKS if card.architecture == "unet" else ""
    return (
        f"{card.architecture}{purpose}, {card.parameters:,} parameters, stamps of {card.stamp_size} "
        f"px, told the detected positions; trained on {card.trained_on}; weights sha256 "
        f"{card.sha256[:12]}"
    )


def crop(batch: PairBatch, size: int, model: str) -> PairBatch:
    """Cut stamps to a model's size around their central pixel ``size // 2``.

    Parameters
    ----------
    batch : PairBatch
        Pairs in square stamps.
    size : int
        Edge of the wanted stamps, px.
    model : str
        Whose size it is, for the message.

    Returns
    -------
    PairBatch
        The same pairs, positions in the new stamps; fluxes are still the total ones.
    """
    edge = batch.stamps.shape[-1]
    if edge < size:
        raise EvaluationError(
            f"the pairs have stamps of {edge} px and {model} takes {size} px; make the pairs with "
            f"stamps of at least {size} px"
        )
    start = edge // 2 - size // 2
    part = (..., slice(start, start + size), slice(start, start + size))
    shift = np.float32(start)
    return replace(
        batch,
        stamps=np.ascontiguousarray(batch.stamps[part]),
        truth=np.ascontiguousarray(batch.truth[part]),
        central_yx=batch.central_yx - shift,
        companion_yx=batch.companion_yx - shift,
        neighbours_yx=batch.neighbours_yx - shift,
        true_yx=batch.true_yx - shift,
    )


def _split(batch: PairBatch) -> Floats:
    detected_yx = np.stack([batch.central_yx, batch.companion_yx], axis=1)
    return baselines.nearest_split(batch.stamps, detected_yx, batch.neighbours_yx).flux


_BASELINES: Mapping[str, Method] = {
    "split": Method(
        "naive split",
        lambda b: Estimate(_split(b), b),
        about="told the detected positions; each pixel of the stamp goes to the nearest one",
    ),
    "sep-seed": Method(
        "sep, seed recipe",
        lambda b: Estimate(baselines.seed_recipe(b.stamps, b.true_yx).flux, b),
        about="SExtractor's algorithms in the seed work's settings: detects in a cold and a hot pass, "
        "background not subtracted, isophotal flux; central the object nearest to the centre, "
        "companion the brightest other",
    ),
    "sep-fair": Method(
        "sep, fair",
        lambda b: Estimate(baselines.fair_recipe(b.stamps, b.true_yx, b.radius_px).flux, b),
        about="SExtractor's algorithms as a careful user sets them: detects by itself, background "
        "subtracted, Kron flux with the neighbours masked, matched within 0.5 Re + 3 px of the truth",
    ),
    "sextractor": Method(
        "SExtractor",
        lambda b: Estimate(sextractor.run_sextractor(b.stamps, b.true_yx, b.radius_px).flux, b),
        about="the program itself in the seed work's settings: detects in a cold and a hot pass, "
        "FLUX_AUTO with the neighbours corrected for, matched within 0.5 Re + 3 px of the truth",
    ),
    "profiles": Method(
        "true profiles (limit)",
        lambda b: Estimate(baselines.true_profiles(b.stamps, b.truth, b.flux).flux, b),
        is_limit=True,
        about="told the true noise-free images, fits only their amplitudes: a bound, not a method",
    ),
}

BASELINES = tuple(_BASELINES)
"""Names of the baselines, as an option takes them."""


def available_baselines() -> tuple[str, ...]:
    """Return the names of the baselines that can run here: all, or all but the SExtractor program."""
    return tuple(name for name in BASELINES if name != "sextractor" or sextractor.find_program())


def baseline_methods(names: Sequence[str]) -> list[Method]:
    """Make methods of baselines."""
    for name in names:
        if name not in _BASELINES:
            raise EvaluationError(f"baseline {name!r} is unknown; use {', '.join(BASELINES)}")
    if "sextractor" in names:
        sextractor.require_program()
    return [_BASELINES[name] for name in names]
