"""Fits of the blends of a part of a field, as far as they tell which sources there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.engine.methods.fit import FitMethod
from deblend_batch.engine.methods.method import Arrays
from deblend_batch.engine.worker.cut import cut_blends
from deblend_batch.field.layout import Field
from deblend_batch.field.photometry import nanojansky_per_unit
from deblend_batch.models.device import one_thread
from deblend_batch.models.profile_fit.model import ProfileFit
from deblend_batch.models.profile_fit.solver import Search
from deblend_batch.models.registry import load_model
from deblend_batch.refine.trials import Trials, try_divided
from deblend_batch.storage import Options
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.stamps import Cut

MODEL = "profile-fit"
_QUICK = Search(iterations=6, tolerance=0.5)
"""The search of a fit that only asks which sources there are."""


@dataclass(frozen=True)
class Halves:
    """Members that were divided in two for a trial, each alone.

    Parameters
    ----------
    source_id : ndarray of int64, shape (k,)
        The members.
    yx : ndarray of float64, shape (k, 2, 2)
        Positions of the two halves, px.
    flux : ndarray of float64, shape (k, 2)
        In the band of the detection, nJy.
    snr, shared : ndarray of float64, shape (k, 2)
        As of members.
    gain : ndarray of float64, shape (k,)
        By how much the sum of squares became less.
    """

    source_id: NDArray[np.int64]
    yx: NDArray[np.float64]
    flux: NDArray[np.float64]
    snr: NDArray[np.float64]
    shared: NDArray[np.float64]
    gain: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: list[Halves]) -> Halves:
        """Put halves end to end."""
        return cls(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls))
        )


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
    shared : ndarray of float64, shape (n,)
        Share of the light within the member's profile that is others', in the band where it is least.
    radius_arcsec : ndarray of float64, shape (n,)
        Half-light radius; 0 for stars.
    blend : ndarray of int64, shape (n,)
        Number of its blend.
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
    shared: NDArray[np.float64]
    radius_arcsec: NDArray[np.float64]
    blend: NDArray[np.int64]
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


@dataclass(frozen=True)
class Survey:
    """What every fit of a field must know.

    Parameters
    ----------
    field_url : str
        The field.
    band : int
        Number of the band of the detection.
    noise_sigma : tuple of float
        Background rms per band where the field has no variance plane.
    options : dict
        Storage options.
    """

    field_url: str
    band: int
    noise_sigma: tuple[float, ...]
    options: Options | None


@one_thread()  # several wait for each other longer than they help
def fit_part(blends: Blends, survey: Survey, with_trials: bool) -> Fits:
    """Fit some blends that are near to each other: their pixels are read at once.

    Parameters
    ----------
    blends : Blends
        The blends.
    survey : Survey
        Their field.
    with_trials : bool
        Whether members are divided, to see whether they are two.
    """
    opened = Field.reopen(survey.field_url, survey.options)
    method = _method()
    fwhm_px = max(opened.psf_fwhm_px)
    parts = []
    for _, stamps in cut_blends(opened, blends, survey.noise_sigma, with_weights=True):
        given = method.given(stamps, opened)
        answer = method.answer(given, method.default_rows)
        may = stamps.cut.blends.is_measured & with_trials
        halves = _halves(
            try_divided(method, given, answer, may, fwhm_px), stamps.cut, opened, survey.band
        )
        columns = method.measured(stamps.cut, [answer], opened)
        parts.append(_read(stamps.cut, columns, answer, halves, opened, survey.band))
    return Fits.joined(parts)


def _halves(trials: Trials, cut: Cut, field: Field, band: int) -> Halves:
    return Halves(
        cut.blends.source_id[trials.row, trials.member],
        trials.yx + cut.corner_yx[trials.row, None],
        trials.flux[:, band] * _unit(field)[band],
        trials.snr,
        trials.shared,
        trials.gain,
    )


def _unit(field: Field) -> NDArray[np.float64]:
    return nanojansky_per_unit(np.asarray(field.meta.zero_point, np.float64))


@lru_cache(maxsize=1)
def _method() -> FitMethod:
    model = load_model(MODEL)
    assert isinstance(model, ProfileFit)
    model.config = replace(model.config, fine=_QUICK)
    return FitMethod(model)


def _read(
    cut: Cut,
    columns: Mapping[str, NDArray[Any]],
    answer: Arrays,
    halves: Halves,
    field: Field,
    band: int,
) -> Fits:
    """Take what counts of the fits of a few blends."""
    blends = cut.blends
    blend, member = np.nonzero(blends.is_measured)
    unit = _unit(field)
    flux, err = (
        columns[name].astype(np.float64)[blend, :, member] for name in ("flux", "flux_err")
    )
    # A PSF that may be wrong makes no source less sure.
    noise = answer["flux_noise"].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.where(err > 0, flux / noise[blend, :, member], np.nan)
    shared = columns["blendedness"].astype(np.float64)[blend, :, member]
    neighbour = blends.neighbour[blend, member]
    best = np.argmax(np.nan_to_num(answer["peak_sn"], nan=-np.inf), axis=1)
    one = np.arange(len(blends))
    # What is left over of a galaxy that no stamp holds is a part of it.
    is_large = ((blends.flags & flags.LARGER_THAN_STAMP.value) != 0).any(axis=1)
    peak_sn = np.where(is_large, -np.inf, answer["peak_sn"][one, best])
    typical_err = np.fmin.reduce(np.where(blends.is_measured, noise[:, band], np.nan), axis=1)
    return Fits(
        source_id=blends.source_id[blend, member],
        neighbour_id=np.where(neighbour < 0, -1, blends.source_id[blend, neighbour]),
        yx=np.stack([columns["y"], columns["x"]], axis=-1)[blend, member],
        yx_err=np.stack([columns["y_err"], columns["x_err"]], axis=-1)[blend, member],
        flux=flux[:, band] * unit[band],
        flux_err=err[:, band] * unit[band],
        snr=np.fmax.reduce(snr, axis=1),
        shared=np.fmin.reduce(shared, axis=1),
        radius_arcsec=columns["radius_px"].astype(np.float64)[blend, member]
        * field.pixel_scale_arcsec,
        blend=blend,
        peak_sn=peak_sn,
        peak_flux=peak_sn * typical_err * unit[band],
        peak_yx=answer["peak_yx"][one, best] + cut.corner_yx,
        halves=halves,
    )
