"""Finding sources in pixels, a pure function of arrays: threshold, deblend, measure.

Isophotes and their division are ours (``segments.py``); apertures, radii and windowed centroids are those of
Source Extraction and Photometry (Barbary 2016, doi:10.21105/joss.00058; Bertin & Arnouts 1996).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray

from deblend_batch.detect.bits import LARGE, MERGED, NEAR_BRIGHT_STAR, SATURATED
from deblend_batch.detect.cores import fill_cores, find_cores, flat_tops
from deblend_batch.detect.filters import Place, filter_places, psf_kernel
from deblend_batch.detect.fragments import fragment_score
from deblend_batch.detect.hosts import Hosting, is_near_star, is_spike, measure_hosting, stands_out
from deblend_batch.detect.moments import Isophotes, measure_isophotes
from deblend_batch.detect.segments import Peaks, divide, find_islands, peak_positions
from deblend_batch.detect.wide import find_wide_light, wide_light
from deblend_batch.errors import ConfigError
from deblend_batch.tiling.stamp_sizes import is_larger, reach_px

_FWHM_TO_SIGMA = 1 / 2.3548200450309493
_KRON_FACTOR = 2.5
_KRON_REACH = 6.0
_MIN_KRON = 3.5
_MIN_KRON_PX = 1.75
_MAX_RECENTRE = 0.5
_FROM_SPACE, _FROM_GROUND = (6.0, 3.0, 0.15), (4.0, 2.5, 0.1)
"""Height, prominence and contrast that ``benchmarks/tune_detection.py`` found best."""
_RADIUS_TO_SIGMA = 1 / 1.1774
_POSITION_FACTOR = 1.2
_POSITION_FLOOR_PX = 0.02
_RIPPLE_FWHM = 3.0
_LEAST_PX_A_SOURCE = 20
_LEAST_WEIGHT = 1e-3
_FEW = 2000
_PLAIN_NOISE = (1e-10, 1e10)
_RANGES = {
    "threshold_sigma": ("--threshold", 0.1, 1e6),
    "min_area_px": ("--min-area", 1, 1e6),
    "filter_fwhm_px": ("--filter", 1.0, 32.0),
    "peak_sigma": ("--peak", 0.0, 1e6),
    "prominence_sigma": ("--prominence", 0.1, 1e6),
    "contrast": ("--contrast", 0.0, 100.0),
    "above_halo": ("--clean", 0.0, 100.0),
    "max_fragment": ("--max-fragment", 0.0, 1.0),
    "min_snr": ("--min-snr", 0.0, 1e6),
}
"""What each may be. A filter has to end well within the halo of a tile."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExtractParams:
    """What counts as a source.

    Parameters
    ----------
    threshold_sigma : float
        Isophote, in units of the noise of the image filtered with its PSF.
    min_area_px : int
        Smallest number of connected pixels within it.
    filter_fwhm_px : float, optional
        Full width at half maximum of a Gaussian to filter with; the PSF of the place if None.
    peak_sigma : float, optional
        Height of a peak that divides an isophote, in units of the noise of the sharper image; by the kind of
        PSF if None, as the next two.
    prominence_sigma : float, optional
        Height above the saddle to a higher peak, in the same units.
    contrast : float, optional
        That height where the image is bright, as a share of the saddle's.
    min_snr : float
        Smallest signal to noise of a source's total flux.
    noise_correlation : float
        Noise of the filtered image over what independent pixels would give
        (:func:`deblend_batch.detect.correlation.measure_correlation`): thresholds and flux errors
        are raised by it.
    max_fragment : float
        Largest probability of being a fragment of a brighter neighbour
        (:mod:`deblend_batch.detect.fragments`).
    above_halo : float
        How far a source must stand above the halo of a brighter one, over what tells it for certain
        (:func:`deblend_batch.detect.hosts.stands_out`).
    from_space : bool
        Whether the PSF is that of a telescope in space, which shows clumps of galaxies as peaks.

    Raises
    ------
    ConfigError
        If one is out of its range.
    """

    threshold_sigma: float = 4.0
    min_area_px: int = 5
    filter_fwhm_px: float | None = None
    peak_sigma: float | None = None
    prominence_sigma: float | None = None
    contrast: float | None = None
    min_snr: float = 5.0
    noise_correlation: float = 1.0
    max_fragment: float = 0.5
    above_halo: float = 1.0
    from_space: bool = False

    def __post_init__(self) -> None:
        for name, (option, low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{option} is {value:g}; give a number from {low:g} to {high:g}")

    def filter_of(self, place: Place) -> Array:
        """Return the kernel that isophotes are drawn with."""
        if self.filter_fwhm_px is None:
            return place.matched
        return psf_kernel(self.filter_fwhm_px).astype(np.float64)

    def peaks(self, fwhm_px: float) -> Peaks:
        """Return what tells two peaks apart under a PSF of this width."""
        peak, prominence, contrast = _FROM_SPACE if self.from_space else _FROM_GROUND
        return Peaks(
            peak if self.peak_sigma is None else self.peak_sigma,
            prominence if self.prominence_sigma is None else self.prominence_sigma,
            contrast if self.contrast is None else self.contrast,
            int(np.ceil(_RIPPLE_FWHM * fwhm_px)),
            self.from_space,
        )


@dataclass(frozen=True)
class SourceTable:
    """Sources as columns; row ``i`` of each array is source ``i``.

    Parameters
    ----------
    yx : ndarray of float64, shape (n, 2)
        Windowed centroid (y, x), 0-based pixel centres.
    flux, flux_err : ndarray of float64, shape (n,)
        In a Kron aperture with neighbours masked, and its one-sigma error; image units.
    yx_err : ndarray of float64, shape (n,)
        One-sigma error of the position along either axis, px.
    radius_px : ndarray of float64, shape (n,)
        Half-light radius.
    semi_major_px, semi_minor_px : ndarray of float64, shape (n,)
        Second moments of the isophote.
    theta_rad : ndarray of float64, shape (n,)
        Angle of the major axis from +x towards +y.
    fragment : ndarray of float64, shape (n,)
        Probability of being a fragment of a brighter neighbour, 0 to 1.
    flags : ndarray of int32, shape (n,)
        Of :mod:`deblend_batch.detect.bits`, and those of ``sep``'s apertures, 16 to 128.
    """

    yx: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_err: NDArray[np.float64]
    yx_err: NDArray[np.float64]
    radius_px: NDArray[np.float64]
    semi_major_px: NDArray[np.float64]
    semi_minor_px: NDArray[np.float64]
    theta_rad: NDArray[np.float64]
    fragment: NDArray[np.float64]
    flags: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> SourceTable:
        return SourceTable(*(getattr(self, field.name)[rows] for field in fields(self)))

    def replaced_by(self, other: SourceTable, rows: NDArray[np.bool_]) -> SourceTable:
        """Return the table with some rows those of another as long.

        Parameters
        ----------
        other : SourceTable
            The other.
        rows : ndarray of bool, shape (n,)
            Which are.
        """
        columns = {}
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            columns[each.name] = np.where(rows[:, None] if mine.ndim > 1 else rows, theirs, mine)
        return SourceTable(**columns)

    @property
    def snr(self) -> NDArray[np.float64]:
        """Flux over its error, shape (n,)."""
        return self.flux / self.flux_err

    def scaled(self, unit: float) -> SourceTable:
        """Return the table with fluxes in the image's units, of sources found in units of ``unit``."""
        return replace(self, flux=self.flux * unit, flux_err=self.flux_err * unit)

    def near(self, star: NDArray[np.bool_]) -> SourceTable:
        """Return the table with those flagged that lie where a mask says that a bright star is near.

        Parameters
        ----------
        star : ndarray of bool, shape (y, x)
            Where it does.
        """
        last = np.array(star.shape) - 1
        pixel = np.clip(np.rint(self.yx).astype(np.int64), 0, last)
        beside = star[tuple(pixel.T)] & ((self.flags & SATURATED) == 0)
        return replace(self, flags=(self.flags | NEAR_BRIGHT_STAR * beside).astype(np.int32))

    def shifted(self, origin_yx: tuple[int, int]) -> SourceTable:
        """Return the table with positions in the field, of sources found in a piece of it.

        Parameters
        ----------
        origin_yx : tuple of int
            Row and column in the field of the piece's first pixel.
        """
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return SourceTable(**{**columns, "yx": self.yx + np.array(origin_yx, np.float64)})


def extract_sources(
    image: NDArray[np.float32],
    sigma: NDArray[np.float32] | float,
    bad: NDArray[np.bool_] | None,
    places: Sequence[Place],
    params: ExtractParams,
    saturated: NDArray[np.bool_] | None = None,
) -> SourceTable:
    """Find and measure the sources of an image.

    Parameters
    ----------
    image : ndarray of float32, shape (y, x)
        Background subtracted, image units; NaN and inf count as bad.
    sigma : ndarray of float32, shape (y, x), or float
        Noise rms per pixel, image units; pixels where it is not finite and positive count as bad.
    bad : ndarray of bool, shape (y, x), or None
        Pixels to leave out.
    places : sequence of Place
        The PSF: parts that cover the image once.
    params : ExtractParams
        What counts as a source.
    saturated : ndarray of bool, shape (y, x), or None
        Which pixels are saturated, bad ones among them; None where nobody says: flat tops are then
        recognised.

    Returns
    -------
    SourceTable
        In the order of the image's rows; none where no pixel is good.

    Raises
    ------
    ConfigError
        If more is found than a PSF can tell apart.
    """
    noise = np.broadcast_to(np.asarray(sigma, np.float32), image.shape)
    masked = ~np.isfinite(image) | ~np.isfinite(noise) | (noise <= 0)
    if bad is not None:
        masked |= bad
    if masked.all():
        return _no_sources()
    pixels = np.where(masked, np.float32(0), image).astype(np.float32, order="C")
    typical = float(np.median(noise[~masked]))
    noise = np.where(masked, np.float32(typical), noise)
    unit = _unit(typical)
    pixels, noise = (np.asarray(each / np.float64(unit), np.float32) for each in (pixels, noise))
    noise = noise * np.float32(params.noise_correlation)
    snr = pixels.astype(np.float64) / noise
    saturated = flat_tops(snr) if saturated is None else saturated
    snr = fill_cores(snr, saturated, masked)
    masked &= ~saturated
    pixels = np.asarray(np.where(saturated, snr * noise, pixels), np.float32)
    return _search(pixels, noise, snr, masked, saturated, places, params).scaled(unit)


def _search(
    pixels: NDArray[np.float32],
    noise: NDArray[np.float32],
    snr: Array,
    masked: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
    places: Sequence[Place],
    params: ExtractParams,
) -> SourceTable:
    """Find the sources of an image without a hole, and drop what halos alone make."""
    candidates = find_candidates(snr, masked, saturated, places, params)
    if candidates is None:
        return _no_sources()
    fwhm_px = _width(places)
    hosting, peak, is_saturated = candidates.hosting, candidates.peak, candidates.saturated
    fragment = fragment_score(hosting, peak, fwhm_px, from_space=params.from_space)
    stands = stands_out(hosting, peak, params.threshold_sigma, params.above_halo)
    stands &= ~is_spike(hosting, candidates.objects, candidates.yx, is_saturated)
    kept = is_saturated | (stands & (fragment <= params.max_fragment))
    near_star = is_near_star(hosting, candidates.yx, is_saturated)
    found = _measured_apart(pixels, noise, masked, candidates)
    # The window of a centroid would hold a neighbour's light, too.
    shared = is_saturated | ((found.flags & MERGED) != 0)
    bits = (
        SATURATED * is_saturated + NEAR_BRIGHT_STAR * near_star + LARGE * _is_large(found, fwhm_px)
    )
    found = replace(
        found,
        yx=np.where(shared[:, None], candidates.yx, found.yx),
        yx_err=_position_error(found.radius_px, peak, fwhm_px),
        fragment=np.where(is_saturated, 0.0, fragment),
        flags=(found.flags | bits).astype(np.int32),
    )
    return found[np.flatnonzero((found.snr >= params.min_snr) & kept)]


@dataclass(frozen=True)
class Candidates:
    """Peaks of an image before halos and fragments are judged; row ``i`` is segment ``i + 1``.

    Parameters
    ----------
    segments : ndarray of int32, shape (y, x)
        Number of each pixel's candidate; 0 where there is none.
    objects : Isophotes
        Their moments.
    yx : ndarray of float64, shape (n, 2)
        Their highest places, or the middles of saturated cores.
    peak : ndarray of float64, shape (n,)
        The image filtered with its PSF there, in units of its noise.
    saturated : ndarray of bool, shape (n,)
        Which have a saturated core.
    hosting : Hosting
        What lies under them.
    is_wide : ndarray of bool, shape (n,)
        Which are galaxies larger than a stamp.
    in_wide : ndarray of bool, shape (y, x), or None
        Pixels that their light is in; None without them.
    """

    segments: NDArray[np.int32]
    objects: Isophotes
    yx: Array
    peak: Array
    saturated: NDArray[np.bool_]
    hosting: Hosting
    is_wide: NDArray[np.bool_]
    in_wide: NDArray[np.bool_] | None


def find_candidates(
    snr: Array,
    masked: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
    places: Sequence[Place],
    params: ExtractParams,
) -> Candidates | None:
    """Find the peaks of an image, and what lies under each; None where there is none.

    Parameters
    ----------
    snr : ndarray of float64, shape (y, x)
        The image over its noise, finite.
    masked, saturated : ndarray of bool, shape (y, x)
        Pixels to leave out; and those of saturated cores, which are not.
    places : sequence of Place
        The PSF: parts that cover the image once.
    params : ExtractParams
        What counts as a peak.
    """
    fwhm_px = _width(places)
    smooth = np.where(masked, 0.0, filter_places(snr, places, params.filter_of))
    islands = find_islands(smooth, params.threshold_sigma, params.min_area_px)
    _check_number(int(islands.max(initial=0)), smooth.size)
    cores = find_cores(saturated, fwhm_px)
    sharp = cores.levelled(filter_places(snr, places, lambda place: place.sharpening))
    wide = find_wide_light(islands, smooth, params.threshold_sigma)
    islands = islands if wide is None else wide.islands
    segments = divide(islands, smooth, sharp, params.peaks(fwhm_px), params.min_area_px, wide)
    n = int(segments.max(initial=0))
    _check_number(n, smooth.size)
    if n == 0:
        return None
    light, is_wide = smooth, np.zeros(n, bool)
    if wide is not None:
        hosts = segments[tuple(wide.tops.T)]
        is_wide[hosts[hosts > 0] - 1] = True
        own = np.concatenate([[False], is_wide])[segments]
        light = np.where(own, smooth, np.maximum(wide.rest, _LEAST_WEIGHT))
    objects = measure_isophotes(segments, islands, light)
    yx = peak_positions(segments, sharp)
    owners = cores.owners(segments)
    known = owners >= 0
    yx[owners[known]] = cores.yx[known]
    is_saturated = np.zeros(n, bool)
    is_saturated[owners[known]] = True
    hosting = measure_hosting(
        segments, smooth, objects, yx, is_saturated, fwhm_px, params.threshold_sigma
    )
    peak = smooth[tuple(np.rint(yx).astype(np.int64).T)]
    return Candidates(
        segments,
        objects,
        yx,
        peak,
        is_saturated,
        hosting,
        is_wide,
        None if wide is None else wide.where,
    )


def _width(places: Sequence[Place]) -> float:
    return max(place.fwhm_px for place in places)


def _position_error(radius_px: Array, peak: Array, fwhm_px: float) -> Array:
    """Error of a position: that of a Gaussian of the source's width under white noise, and of the pixels."""
    width = np.fmax(_RADIUS_TO_SIGMA * radius_px, _FWHM_TO_SIGMA * fwhm_px)
    error = _POSITION_FACTOR * np.sqrt(2) * width / np.maximum(peak, 1.0)
    return np.asarray(np.hypot(error, _POSITION_FLOOR_PX))


def _check_number(found: int, pixels: int) -> None:
    if found > max(_FEW, pixels // _LEAST_PX_A_SOURCE):
        raise ConfigError(
            f"detect: {found:,} peaks in {pixels:,} px, more than one in {_LEAST_PX_A_SOURCE}: they are "
            "noise, or more sources than a PSF can tell apart; raise --threshold, or check the field's noise "
            "and PSF"
        )


def _is_large(sources: SourceTable, fwhm_px: float) -> NDArray[np.bool_]:
    return is_larger(2 * reach_px(sources.radius_px, fwhm_px))


def _unit(noise: float) -> float:
    """Return what to divide pixels by, a power of 2: sep's float32 has no room for squares of 1e-24."""
    return (
        1.0 if _PLAIN_NOISE[0] <= noise <= _PLAIN_NOISE[1] else float(2.0 ** round(np.log2(noise)))
    )


def select_owned(
    sources: SourceTable, start_yx: tuple[int, int], stop_yx: tuple[int, int]
) -> SourceTable:
    """Keep the sources whose centroid lies on a pixel of a half-open box.

    Boxes that cover an image once own each of its sources exactly once; a pixel reaches half a pixel
    round its centre.
    """
    pixel = np.floor(sources.yx + 0.5)
    inside = ((pixel >= np.array(start_yx)) & (pixel < np.array(stop_yx))).all(axis=1)
    return sources[np.flatnonzero(inside)]


def _measured_apart(
    pixels: NDArray[np.float32],
    noise: NDArray[np.float32],
    masked: NDArray[np.bool_],
    candidates: Candidates,
) -> SourceTable:
    """Measure sources, those in the light of a galaxy larger than a stamp without that light."""
    objects, segments = candidates.objects, candidates.segments
    whole = _measure(pixels, noise, masked, objects, segments)
    if candidates.in_wide is None:
        return whole
    light = np.where(candidates.in_wide, wide_light(pixels), 0).astype(np.float32)
    apart = _measure(pixels - light, noise, masked, objects, segments)
    return apart.replaced_by(whole, candidates.is_wide)


def _measure(
    pixels: NDArray[np.float32],
    noise: NDArray[np.float32],
    masked: NDArray[np.bool_],
    objects: Isophotes,
    segments: NDArray[np.int32],
) -> SourceTable:
    if len(objects) == 0:
        return _no_sources()
    flux, flux_err, flags = _kron(pixels, noise, masked, objects, segments)
    radius, radius_flags = sep.flux_radius(
        pixels,
        objects.x,
        objects.y,
        _KRON_REACH * objects.a,
        0.5,
        normflux=flux,
        mask=masked,
        seg_id=_ids(objects),
        segmap=segments,
        subpix=5,
    )
    return SourceTable(
        yx=_centroids(pixels, masked, objects, radius),
        flux=flux,
        flux_err=flux_err,
        yx_err=np.full(len(objects), np.nan),
        radius_px=np.where(radius > 0, radius, np.nan),
        semi_major_px=objects.a,
        semi_minor_px=objects.b,
        theta_rad=objects.theta,
        fragment=np.zeros(len(objects)),
        flags=(objects.flags | flags | radius_flags).astype(np.int32),
    )


def _kron(
    pixels: NDArray[np.float32],
    noise: NDArray[np.float32],
    masked: NDArray[np.bool_],
    objects: Isophotes,
    segments: NDArray[np.int32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Flux, error and flags in 2.5 Kron radii; pixels of other sources count as masked."""
    x, y, a, b = objects.x, objects.y, objects.a, objects.b
    theta = np.clip(objects.theta, -np.pi / 2, np.pi / 2)
    around: dict[str, Any] = {"mask": masked, "seg_id": _ids(objects), "segmap": segments}
    kron, kron_flags = sep.kron_radius(pixels, x, y, a, b, theta, _KRON_REACH, **around)
    # SExtractor's floors: noise round a faint source must not shrink its aperture.
    scale = np.maximum(_KRON_FACTOR * np.nan_to_num(kron), _MIN_KRON)
    small = ~(scale * np.sqrt(a * b) >= _MIN_KRON_PX)
    scale = np.where(small, _MIN_KRON_PX, scale)
    a, b = np.where(small, 1.0, a), np.where(small, 1.0, b)
    flux, flux_err, flags = sep.sum_ellipse(
        pixels, x, y, a, b, theta, scale, err=noise, subpix=5, **around
    )
    return flux, flux_err, (flags | kron_flags).astype(np.int32)


def _centroids(
    pixels: NDArray[np.float32],
    masked: NDArray[np.bool_],
    objects: Isophotes,
    radius_px: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Windowed centroids; the isophote's where the window ran away to a neighbour."""
    isophotal = np.stack([objects.y, objects.x], axis=1)
    window = 2 * _FWHM_TO_SIGMA * np.nan_to_num(radius_px)
    x, y, flags = sep.winpos(pixels, objects.x, objects.y, window, mask=masked)
    windowed = np.stack([y, x], axis=1)
    shift = np.hypot(*(windowed - isophotal).T)
    trusted = (flags == 0) & (shift < _MAX_RECENTRE * np.maximum(radius_px, 1.0))
    return np.where(trusted[:, None], windowed, isophotal)


def _ids(objects: Isophotes) -> NDArray[np.int32]:
    """Return the numbers of the objects in the segmentation map."""
    return np.arange(1, len(objects) + 1, dtype=np.int32)


def _no_sources() -> SourceTable:
    nothing = np.empty(0)
    return SourceTable(
        yx=np.empty((0, 2)),
        flux=nothing,
        flux_err=nothing,
        yx_err=nothing,
        radius_px=nothing,
        semi_major_px=nothing,
        semi_minor_px=nothing,
        theta_rad=nothing,
        fragment=nothing,
        flags=np.empty(0, np.int32),
    )
