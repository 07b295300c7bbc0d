"""What a file says of its image against what the image shows: PSF, noise and mask."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.sky.noise import clipped_median_sigma
from deblend_batch.ingest.bands import Window
from deblend_batch.ingest.header.headers import Found
from deblend_batch.ingest.psf.width import PsfWidth

CheckName = Literal["psf", "noise", "mask"]

_LEAST_PX = 1.3
"""What is narrower is a cosmic ray or a hot pixel."""
_SMALLER = 0.67
_ALIKE = 1.3
_WIDER = 2.2
"""Of so many sources of so nearly one width, which are no galaxies: a sigma was given for a FWHM (2.35)."""
_SURE_STARS = 20
_SURE_SCATTER = 0.05
_NOISE_RATIO = (1 / 3, 5.0)
"""Resampling correlates pixels, which scatter less then; nothing makes them scatter so much more."""
_UNDERSTATED = 0.7
_PEAK_SIGMA = 10.0
_PEAK_SMOOTH_PX = 1.0
_PEAK_PX = 7
_MIN_PEAKS = 20
_MOST_BAD = 0.3
_PLACE_PX = 1.0
_MANY_BAD = 0.1


@dataclass(frozen=True)
class Check:
    """What a comparison found.

    Parameters
    ----------
    name : {"psf", "noise", "mask"}
        What was compared.
    text : str
        The result, for the summary.
    problem : str
        Why it cannot be, with the way out; empty where it can.
    """

    name: CheckName
    text: str
    problem: str = ""


def check_names(names: Collection[str]) -> None:
    """Refuse names of checks that there are not."""
    for name in names:
        if name not in get_args(CheckName):
            raise ConfigError(f"--meant: {name!r} is none of {', '.join(get_args(CheckName))}")


def stop_at(checks: Collection[Check], meant: Collection[str], label: str) -> None:
    """Stop where a comparison cannot be, unless the user says that it is meant."""
    for check in checks:
        if check.problem and check.name not in meant:
            raise FieldError(f"{label}: {check.problem}; if it is meant give --meant {check.name}")


def settle_width(
    said: Found, stars: PsfWidth | None, scale_arcsec: float, *, by_card: bool = True
) -> tuple[Found, Check]:
    """Compare the width that a card or the user says with that of the image's stars.

    A card that gives pixels says so rarely: where they fit the stars and arcsec do not, pixels are meant. No
    star is much narrower than the PSF; sources that are wider may be galaxies, unless many are of one width.

    Parameters
    ----------
    said : Found
        Arcsec.
    stars : PsfWidth, optional
        Of the image; None where it shows too few.
    scale_arcsec : float
        Edge of a pixel.
    by_card : bool
        Whether a card said it, which may mean pixels; an option or a file of the PSF does not.

    Returns
    -------
    Found
        What counts, arcsec.
    Check
        The comparison.
    """
    if stars is None or stars.fwhm_px < _LEAST_PX:
        return said, Check("psf", "PSF not compared: too few stars")
    seen = stars.fwhm_px * scale_arcsec
    text = f"PSF {said.value:.3f} arcsec ({said.source}), {stars.stars} stars have {seen:.3f}"
    ratio = seen / said.value
    fits_as_pixels = 1 / _ALIKE < stars.fwhm_px / said.value < _ALIKE
    sure = stars.stars >= _SURE_STARS and stars.scatter < _SURE_SCATTER
    if ratio < _SMALLER or (ratio > _ALIKE and fits_as_pixels) or (ratio > _WIDER and sure):
        if fits_as_pixels and by_card and said.source != "option":
            found = Found(said.value * scale_arcsec, f"{said.source}, in pixels")
            return found, Check("psf", f"{said.source} {said.value:g} is in pixels, by the stars")
        unit = ", the number that the stars have in pixels" if fits_as_pixels else ""
        problem = (
            f"the PSF is {said.value:.3f} arcsec by {said.source}{unit}, and {stars.stars} stars of the "
            f"image have {seen:.3f}; give --psf-fwhm {seen:.3f}"
        )
        return said, Check("psf", text, problem)
    return said, Check("psf", text)


def compare_noise(plane_sigma: float | None, noise_sigma: float, kind: str) -> Check | None:
    """Compare the noise plane with the scatter of the sky's pixels; None where there is none of either.

    Resampling makes the scatter up to some three times smaller than a plane says; an exposure map, or a
    weight that is none of the variance, is off by far more.
    """
    if plane_sigma is None or not noise_sigma > 0 or not plane_sigma > 0:
        return None
    ratio = plane_sigma / noise_sigma
    text = f"noise plane {ratio:.3g} of the pixels' scatter"
    low, high = _NOISE_RATIO
    if low < ratio < high:
        if ratio < _UNDERSTATED:
            text += ": errors of the catalogue will be as much too small"
        return Check("noise", text)
    what = "a relative weight or an exposure map" if kind == "weight" else "of another scale"
    problem = (
        f"the {kind} plane says a noise of {plane_sigma:.3g}, the pixels scatter by {noise_sigma:.3g}: it is "
        f"{what}; leave it out, and the noise is measured, or scale it"
    )
    return Check("noise", text, problem)


def compare_place(name: CheckName, label: str, offset_px: float | None) -> Check | None:
    """Compare the WCS of a plane with its image's; None where they agree, or one is not known."""
    if offset_px is None or offset_px < _PLACE_PX:
        return None
    text = f"{label} is {offset_px:.3g} px off the image by its WCS"
    return Check(name, text, f"{text}; give the plane that belongs to the image")


class MaskedPeaks:
    """How many of an image's peaks its mask calls bad."""

    def __init__(self) -> None:
        self.peaks = self.bad = 0
        self._of_bit: dict[int, int] = {}

    def add(self, window: Window, pixels: NDArray[np.float32]) -> None:
        """Count the peaks of a window.

        Parameters
        ----------
        window : Window
            The window.
        pixels : ndarray of float32, shape (y, x)
            Its background-subtracted image; NaN where there are no data, whatever the mask says.
        """
        if window.bad is None:
            return
        known = np.isfinite(pixels)
        smooth = gaussian_filter(np.where(known, pixels, 0), _PEAK_SMOOTH_PX)
        level, sigma = clipped_median_sigma(smooth[::2, ::2][known[::2, ::2]])
        if not sigma > 0:
            return
        peak = (smooth == maximum_filter(smooth, _PEAK_PX)) & known
        peak &= smooth - level > _PEAK_SIGMA * sigma
        self.peaks += int(peak.sum())
        self.bad += int((peak & window.bad).sum())
        if window.mask is not None:
            for bit in range(8 * window.mask.dtype.itemsize):
                here = int((window.mask[peak] >> np.uint8(bit) & 1).sum())
                self._of_bit[bit] = self._of_bit.get(bit, 0) + here

    def check(self, names: dict[str, int] | None, bad: Collection[str]) -> Check | None:
        """Return the comparison; None where there are hardly any peaks.

        Parameters
        ----------
        names : dict of str to int, optional
            Bits that have names.
        bad : collection of str
            Those that make a pixel bad.
        """
        if self.peaks < _MIN_PEAKS:
            return None
        share = self.bad / self.peaks
        text = f"{share:.1%} of {self.peaks:,} peaks on bad pixels"
        by_name = {name: self._of_bit.get(bit, 0) for name, bit in (names or {}).items()}
        worst = sorted((name for name in bad if by_name.get(name)), key=lambda name: -by_name[name])
        if worst and share > _MANY_BAD:
            text += (
                f" ({', '.join(f'{name} {by_name[name] / self.peaks:.0%}' for name in worst[:3])})"
            )
        if share <= _MOST_BAD:
            return Check("mask", text)
        hint = (
            f"its bits are {', '.join(names)}"
            if names
            else "its header names no bits: give the numbers of those that are bad"
        )
        problem = f"{text}, so that their light would be left out; choose --mask-bits ({hint})"
        return Check("mask", text, problem)
