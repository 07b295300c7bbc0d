"""The profile fit measures blends of any number of members, all bands together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.engine.methods.method import Arrays, joined
from deblend_batch.engine.methods.psf_mixtures import PsfAt, PsfMixtures
from deblend_batch.field.layout import Field
from deblend_batch.field.photometry import nanojansky_per_unit
from deblend_batch.models.card import ModelCard
from deblend_batch.tiling import stamp_sizes
from deblend_batch.tiling.stamps import Cut, Stamps

FOUND_SN = 5.0
"""Significance from which a background, or a source in the residual, counts."""
_CROWDED = 0.1
_POOR_CHI2 = 1.25
_EDGE_PX = 3
_TYPICAL_PX = 48
_EXAMPLE_PEAK = 20.0
_EXAMPLE_SIGMA_PX = 2.5
_NARROWEST_PSF_PX = 1.0
_WIDEST_PSF = 0.25  # of the stamp
_OF_MEMBERS = (
    "radius_px", "radius_err_px", "sersic_n", "sersic_n_err", "axis_ratio", "axis_ratio_err",
    "position_angle_err", "mask_area", "mask_overlap",
)  # fmt: skip
_OF_BANDS = ("flux", "flux_err", "flux_corr", "blendedness")
_OF_STAMPS = ("chi2", "sky", "sky_err")


class FitLike(Protocol):
    """What is needed of the fit: see :class:`deblend_batch.models.profile_fit.model.ProfileFit`."""

    card: ModelCard

    @property
    def default_batch_size(self) -> int:
        """Blends that are fitted together where nobody says."""

    def fit(self, *arguments: Any, **settings: Any) -> Any:
        """Fit a batch."""


class FitMethod:
    """Measures blends with the profile fit: a row is a blend.

    Parameters
    ----------
    model : FitLike
        The fit.
    """

    batches = 16

    def __init__(self, model: FitLike) -> None:
        self._model = model
        self._psf: dict[str, PsfMixtures] = {}
        self._lock = threading.Lock()

    @property
    def default_rows(self) -> int:
        """Blends that are fitted together."""
        return int(self._model.default_batch_size)

    def given(self, stamps: Stamps, field: Field) -> Arrays:
        """Lay out stamps with their weights, positions and PSFs."""
        cut, n = stamps.cut, len(stamps)
        assert stamps.weights is not None
        psf = self._psf_of(field).at(cut.blends)
        zero_point = np.asarray(field.meta.zero_point, np.float64)
        nothing = _nearer_to_others(cut, stamps.pixels.shape[-1])[:, None]
        weights = np.where(nothing, np.float32(0), stamps.weights)
        return {
            "pixels": stamps.pixels,
            "weights": weights / np.float32(_correlation(field)[:, None, None] ** 2),
            "positions": cut.members_yx.astype(np.float64),
            "n_measured": cut.blends.is_measured.sum(axis=1),
            "psf_weight": psf.weight,
            "psf_covariance": psf.covariance,
            "psf_error": psf.error,
            "pixel_scale": np.full(n, field.pixel_scale_arcsec),
            "njy_per_unit": np.tile(nanojansky_per_unit(zero_point), (n, 1)),
        }

    def answer(self, given: Arrays, rows_at_once: int) -> Arrays:
        """Run the fit."""
        n, members = given["positions"].shape[:2]
        parts = []
        for start in range(0, n, rows_at_once):
            rows = slice(start, start + rows_at_once)
            some = {name: array[rows] for name, array in given.items()}
            counts = np.full(len(some["positions"]), members)
            found = self._model.fit(
                some["pixels"],
                some["weights"],
                some["positions"],
                counts,
                (some["psf_weight"], some["psf_covariance"], some["psf_error"]),
                some["pixel_scale"],
                some["njy_per_unit"],
                n_measured=some["n_measured"],
            )
            parts.append(_as_arrays(found))
        return joined(parts)

    def measured(
        self, cut: Cut, answers: Sequence[Arrays], field: Field
    ) -> dict[str, NDArray[Any]]:
        """Turn fits into columns: of members (n, m) and of bands and members (n, band, m)."""
        found = joined(answers)
        psf = self._psf_of(field).at(cut.blends)
        correlation = _correlation(field)
        members = cut.blends.width
        columns = {name: found[name] for name in (*_OF_MEMBERS, *_OF_BANDS)}
        per_stamp = {name: found[name] for name in _OF_STAMPS}
        per_stamp["chi2"] = per_stamp["chi2"] * correlation**2
        columns |= {
            name: np.repeat(value[..., None], members, 2) for name, value in per_stamp.items()
        }
        columns |= _sky_places(cut, found, field)
        columns["is_star"] = found["is_star"]
        bits = _band_flags(cut, found, per_stamp["chi2"], psf)
        columns["band_flags"] = bits
        columns["flags"] = (
            cut.flags
            | np.bitwise_or.reduce(bits, axis=1)
            | flags.NOT_CONVERGED.where(~found["converged"])[:, None]
            | np.where(cut.blends.is_member, flags.INSIGNIFICANT.where(_is_nothing(found)), 0)
        )
        is_larger = stamp_sizes.is_larger(_found_extent(cut, found["radius_px"]))
        columns["flags"] |= np.where(
            cut.blends.is_member, flags.LARGER_THAN_STAMP.where(is_larger)[:, None], 0
        )
        return {name: _as_stored(value) for name, value in columns.items()}

    def needed_sizes(self, cut: Cut, columns: Arrays) -> NDArray[np.int16]:
        """Return stamps that hold the light of the galaxies that were found.

        Where a table says no radius, or too small a one, a stamp may hold less than a galaxy, whose light is
        then shared out between a profile without end and a sky below zero.
        """
        size = stamp_sizes.stamp_sizes(_found_extent(cut, columns["radius_px"]))
        return np.maximum(size.astype(np.int16), cut.blends.stamp_size)

    def largest(self, rows: int) -> Arrays:
        """Return blends of many members on the largest stamps."""
        return _noise_rows(rows, self._model.card.stamp_size, 8)

    def typical(self, rows: int) -> Arrays:
        """Return blends of two."""
        return _noise_rows(rows, _TYPICAL_PX, 2)

    def _psf_of(self, field: Field) -> PsfMixtures:
        with self._lock:
            return self._psf.setdefault(field.url, PsfMixtures(field))


def _noise_rows(rows: int, size: int, members: int) -> Arrays:
    """Return blends in one band: members a little wider than the PSF, in a row across the stamp."""
    x = np.linspace(size / 3, 2 * size / 3, members)
    places = np.stack([np.full(members, size / 2), x], axis=1)
    away = ((np.indices((size, size)) - places[:, :, None, None]) ** 2).sum(axis=1)
    light = (_EXAMPLE_PEAK * np.exp(-away / (2 * _EXAMPLE_SIGMA_PX**2))).sum(axis=0)
    noise = np.random.default_rng(0).normal(0, 1, (rows, 1, size, size))
    return {
        "pixels": (noise + light).astype(np.float32),
        "weights": np.ones((rows, 1, size, size), np.float32),
        "positions": np.tile(places, (rows, 1, 1)),
        "n_measured": np.full(rows, members),
        "psf_weight": np.full((rows, 1, 4), 1 / 4),
        "psf_covariance": np.tile([4.0, 0.0, 4.0], (rows, 1, 4, 1)),
        "psf_error": np.zeros((rows, 1)),
        "pixel_scale": np.full(rows, 0.2),
        "njy_per_unit": np.ones((rows, 1)),
    }


def _correlation(field: Field) -> NDArray[np.float64]:
    """Factor on the errors of each band: sums over pixels are noisier than independent pixels say."""
    return np.asarray(field.meta.noise_correlation or (1.0,) * field.n_bands, np.float64)


def _nearer_to_others(cut: Cut, size: int) -> NDArray[np.bool_]:
    """Find pixels nearer to a source that is no member than to any that is, (n, y, x)."""
    known = np.isfinite(cut.others_yx[..., 0])
    found = np.zeros((len(cut), size, size), bool)
    rows = np.flatnonzero(known.any(axis=1))
    if len(rows):
        mine = _distance(cut.members_yx[rows], size)
        found[rows] = _distance(cut.others_yx[rows], size) < mine
    return found


def _distance(places_yx: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Squared distance of each pixel from the nearest of some places; NaN ones are nowhere."""
    pixel = np.arange(size, dtype=np.float32)
    nearest = np.full((len(places_yx), size, size), np.inf, np.float32)
    for place in np.moveaxis(places_yx, 1, 0):
        dy, dx = ((pixel - axis[:, None]) ** 2 for axis in place.T)
        nearest = np.fmin(nearest, dy[:, :, None] + dx[:, None, :])
    return nearest


def _found_extent(cut: Cut, radius_px: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the edge of the square about a blend's middle that holds the light that was found, (n,) px."""
    measured = cut.blends.is_measured
    offset = np.abs(cut.blends.yx - cut.blends.centre_yx[:, None]).max(axis=2)
    # Of a source without a fit nothing is known, and of a star its place says enough.
    reach = np.where(measured, stamp_sizes.reach_px(radius_px, 0.0), np.nan)
    return stamp_sizes.extent_of(offset, reach)


def _as_arrays(found: Any) -> dict[str, NDArray[Any]]:
    names = (
        *_OF_MEMBERS, *_OF_BANDS, *_OF_STAMPS, "yx", "yx_err", "position_angle", "is_star", "converged",
        "squares", "flux_noise", "sky_sn", "peak_sn", "peak_yx",
    )  # fmt: skip
    return {name: getattr(found, name).numpy() for name in names}


def _as_stored(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float64 and value.ndim == 3 else value


def _sky_places(cut: Cut, found: Arrays, field: Field) -> dict[str, NDArray[Any]]:
    """Refined positions in the image and on the sky, and the angle of the major axis there."""
    yx: NDArray[np.float64] = found["yx"] + cut.corner_yx[:, None]
    lost = ~np.isfinite(yx).all(axis=2)
    yx[lost] = cut.blends.yx[lost]
    radec = field.pixel_to_world(yx.reshape(-1, 2))
    angle = np.radians(np.nan_to_num(found["position_angle"])).reshape(-1)
    ahead = yx.reshape(-1, 2) + np.stack([np.sin(angle), np.cos(angle)], axis=1)
    along = field.pixel_to_world(ahead.astype(np.float64))
    east = (along[:, 0] - radec[:, 0] + 180) % 360 - 180
    east *= np.cos(np.radians(radec[:, 1]))
    turned = np.degrees(np.arctan2(east, along[:, 1] - radec[:, 1])) % 180
    shape = yx.shape[:2]
    unknown = ~np.isfinite(found["position_angle"])
    return {
        "x": yx[..., 1],
        "y": yx[..., 0],
        "ra": radec[:, 0].reshape(shape) % 360,
        "dec": radec[:, 1].reshape(shape),
        "x_err": found["yx_err"][..., 1],
        "y_err": found["yx_err"][..., 0],
        "position_angle": np.where(unknown, np.nan, turned.reshape(shape)),
    }


def _band_flags(
    cut: Cut, found: Arrays, chi2: NDArray[np.float64], psf: PsfAt
) -> NDArray[np.int32]:
    """Say what is wrong with each member in each band, (n, band, m)."""
    size = int(cut.blends.stamp_size[0])
    flux = found["flux"]
    peak = (found["peak_sn"] > FOUND_SN) & _well_inside(found["peak_yx"], size)
    domain = (psf.fwhm_px < _NARROWEST_PSF_PX) | (psf.fwhm_px > _WIDEST_PSF * size)
    of_stamp = flags.UNRECOGNISED.where(peak)
    of_stamp |= flags.SKY_OFFSET.where(np.abs(found["sky_sn"]) > FOUND_SN)
    of_stamp |= flags.POOR_FIT.where(chi2 > _POOR_CHI2)
    of_stamp |= flags.PSF_UNCERTAIN.where(psf.is_uncertain)
    of_stamp |= flags.OUT_OF_DOMAIN.where(domain)
    bits = np.repeat(of_stamp[..., None], flux.shape[2], axis=2)
    bits |= flags.NO_DATA.where(~np.isfinite(flux))
    bits |= flags.NOT_POSITIVE.where(flux <= 0)
    bits |= flags.CROWDED.where(found["blendedness"] > _CROWDED)
    bits |= flags.SATURATED.where(cut.saturated)
    return np.where(cut.blends.is_member[:, None], bits, 0)


def _is_nothing(found: Arrays) -> NDArray[np.bool_]:
    """Tell which members have a flux that is consistent with zero in every band, (n, m)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        snr, sure = (
            np.fmax.reduce(found["flux"] / found[name], axis=1)
            for name in ("flux_noise", "flux_err")
        )
        return np.asarray((snr < flags.LEAST_SNR) | (sure < flags.LEAST_SURE))


def _well_inside(yx: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Whether a peak lies so far from the edge that its source is not beyond it."""
    return np.asarray(((yx >= _EDGE_PX) & (yx < size - _EDGE_PX)).all(axis=-1))
