"""Fits the blends of a part of a field, as far as that tells which sources there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from deblend_batch.models.profile_fit.search.solver import Search
from deblend_batch.models.registry import load_model
from deblend_batch.refine.fits import Fits
from deblend_batch.refine.halves import Halves
from deblend_batch.refine.rules import TrialRules
from deblend_batch.refine.trials import Trials, try_divided
from deblend_batch.storage import Options
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.stamps import Cut, Stamps

MODEL = "profile-fit"
_GLARE = flags.SATURATED.value | flags.NEAR_BRIGHT_STAR.value
_QUICK = Search(iterations=20, tolerance=0.5)
"""The search of a fit that only asks which sources there are."""


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
def fit_part(blends: Blends, survey: Survey, trial: TrialRules) -> Fits:
    """Fit some blends that are near to each other: their pixels are read at once.

    Parameters
    ----------
    blends : Blends
        The blends.
    survey : Survey
        Their field.
    trial : TrialRules
        Which members are divided, to see whether they are two.
    """
    opened = Field.reopen(survey.field_url, survey.options)
    parts = []
    while len(blends):
        size = blends.stamp_size.copy()
        for rows, stamps in cut_blends(opened, blends, survey.noise_sigma, with_weights=True):
            fits, size[rows] = _fitted(stamps, opened, survey.band, trial)
            parts.append(fits)
        larger = np.flatnonzero(size > blends.stamp_size)
        blends = replace(blends, stamp_size=size)[larger]
    return Fits.joined(parts)


def _fitted(
    stamps: Stamps, field: Field, band: int, trial: TrialRules
) -> tuple[Fits, NDArray[np.int16]]:
    """Fit stamps; return what is known of those that hold their blends, and the sizes that all need."""
    method = _method(with_stars=True)
    given = method.given(stamps, field)
    answer = method.answer(given, method.default_rows)
    columns = method.measured(stamps.cut, [answer], field)
    size = method.needed_sizes(stamps.cut, columns)
    held = size <= stamps.cut.blends.stamp_size
    cut, seen = stamps.cut[held], _rows(given, held)
    answer, shown = _rows(answer, held), _rows(columns, held)
    # What the halves of a source are does not matter, only whether there are two.
    trials = try_divided(
        _method(with_stars=False),
        seen,
        answer,
        cut.blends.is_measured,
        max(field.psf_fwhm_px),
        trial,
    )
    halves = _halves(trials, cut, field, band)
    return _read(cut, shown, answer, halves, field, band), size


def _rows(columns: Arrays, rows: NDArray[np.bool_]) -> Arrays:
    return {name: values[rows] for name, values in columns.items()}


def _halves(trials: Trials, cut: Cut, field: Field, band: int) -> Halves:
    return Halves(
        cut.blends.source_id[trials.row, trials.member],
        trials.yx + cut.corner_yx[trials.row, None],
        trials.flux[:, band] * _unit(field)[band],
        trials.radius_px,
        trials.snr,
        trials.shared,
        trials.gain,
        trials.gain_share,
    )


def _unit(field: Field) -> NDArray[np.float64]:
    return nanojansky_per_unit(np.asarray(field.meta.zero_point, np.float64))


@lru_cache(maxsize=2)
def _method(*, with_stars: bool) -> FitMethod:
    model = load_model(MODEL)
    assert isinstance(model, ProfileFit)
    share = model.config.star_fraction if with_stars else 0.0
    model.config = replace(model.config, fine=_QUICK, star_fraction=share)
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
        sure = np.where(err > 0, flux / err, np.nan)
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
        sure=np.fmax.reduce(sure, axis=1),
        shared=np.fmin.reduce(shared, axis=1),
        radius_arcsec=columns["radius_px"].astype(np.float64)[blend, member]
        * field.pixel_scale_arcsec,
        **_beside(columns, neighbour, blend, member, band),
        blend=blend,
        in_glare=((cut.flags & _GLARE) != 0).any(axis=1),
        peak_sn=peak_sn,
        peak_flux=peak_sn * typical_err * unit[band],
        peak_yx=answer["peak_yx"][one, best] + cut.corner_yx,
        halves=halves,
    )


def _beside(
    columns: Mapping[str, NDArray[Any]],
    neighbour: NDArray[np.int8],
    blend: NDArray[np.int64],
    member: NDArray[np.int64],
    band: int,
) -> dict[str, NDArray[np.float64]]:
    """Compare members with their neighbours; infinite where there is none to compare with."""
    yx = np.stack([columns["y"], columns["x"]], axis=-1).astype(np.float64)
    flux, radius = (columns[name].astype(np.float64) for name in ("flux", "radius_px"))
    distance = np.linalg.norm(yx[blend, member] - yx[blend, neighbour], axis=1)
    compared = {
        "flux_ratio": (flux[blend, band, member], flux[blend, band, neighbour]),
        "radii_away": (distance, radius[blend, neighbour]),
    }
    known = neighbour >= 0
    return {
        name: np.divide(mine, its, out=np.full(len(blend), np.inf), where=known & (its > 0))
        for name, (mine, its) in compared.items()
    }
