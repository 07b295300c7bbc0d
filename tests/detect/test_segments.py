"""Isophotes, their division at peaks, and what the sources' pixels tell."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblend_batch.detect.bits import MERGED
from deblend_batch.detect.filters import Place, filter_places
from deblend_batch.detect.moments import measure_isophotes
from deblend_batch.detect.segments import Peaks, divide, find_islands, peak_positions
from deblend_batch.field.psf.profile import psf_image
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import add_gaussians

FWHM = 4.0
SHAPE = (80, 90)
PEAKS = Peaks(5.0, 3.0, 0.3, 12)
QUIET = np.zeros(SHAPE, np.float32)
PSF = psf_image(FWHM, 0.2)

Array = NDArray[np.float64]


def filtered(image: NDArray[np.float32]) -> tuple[Array, Array]:
    """An image by the wide and by the sharp filter."""
    places = [Place(Box(0, 0, *SHAPE), PSF)]
    smooth, sharp = (
        filter_places(image.astype(np.float64), places, kernel)
        for kernel in (lambda place: place.matched, lambda place: place.sharpening)
    )
    return smooth, sharp


def images(yx: list[tuple[float, float]], flux: list[float], width: float) -> tuple[Array, Array]:
    """Sources without noise, by both filters."""
    drawn = galsim.ImageF(SHAPE[1], SHAPE[0], xmin=0, ymin=0, scale=1.0)
    for (y, x), light in zip(yx, flux, strict=True):
        star = galsim.Moffat(beta=3.5, fwhm=width, flux=light)
        star.drawImage(image=drawn, center=galsim.PositionD(x, y), add_to_image=True)
    return filtered(drawn.array)


def divided(yx: list[tuple[float, float]], flux: list[float], width: float = FWHM) -> Array:
    """Positions of the sources that are found."""
    smooth, sharp = images(yx, flux, width)
    islands = find_islands(smooth, 4.0, 5)
    return peak_positions(divide(islands, smooth, sharp, PEAKS, 5), sharp)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(30, 50),
    st.floats(30, 50),
    st.floats(0, 2 * np.pi),
    st.floats(1.3, 2.5),
    st.floats(0.5, 1.0),
)
def test_two_stars_further_apart_than_their_width_are_two(
    y: float, x: float, angle: float, widths: float, ratio: float
) -> None:
    distance = widths * FWHM
    other = y + distance * np.sin(angle), x + distance * np.cos(angle)
    found = divided([(y, x), other], [4000.0, 4000.0 * ratio])
    assert len(found) == 2
    order = np.argsort(np.hypot(*(found - [y, x]).T))
    np.testing.assert_allclose(found[order], [(y, x), other], atol=0.8)


def test_a_smooth_galaxy_is_one_however_bright() -> None:
    for flux in (500.0, 5e4, 5e6):
        assert len(divided([(40.3, 41.6)], [flux], 3 * FWHM)) == 1


@pytest.mark.parametrize(("share", "n"), [(0.02, 1), (0.4, 2)])
def test_a_clump_is_no_source_and_a_neighbour_is(share: float, n: int) -> None:
    drawn = add_gaussians(QUIET, np.array([[40.0, 40.0]]), np.array([5e4]), 4 * FWHM)
    drawn = add_gaussians(drawn, np.array([[40.0, 47.0]]), np.array([5e4 * share]), FWHM)
    smooth, sharp = filtered(drawn)
    peaks = Peaks(5.0, 3.0, 0.5, 12)
    assert divide(find_islands(smooth, 4.0, 5), smooth, sharp, peaks, 5).max() == n


def test_a_faint_wide_source_without_a_sharp_peak_is_one() -> None:
    smooth, sharp = images([(40.0, 40.0)], [120.0], 6 * FWHM)
    islands = find_islands(smooth, 1.0, 5)
    assert sharp.max() < PEAKS.least_sigma
    assert divide(islands, smooth, sharp, PEAKS, 5).max() == 1


def test_nothing_is_nothing() -> None:
    nothing = np.zeros((20, 30))
    islands = find_islands(nothing, 4.0, 5)
    segments = divide(islands, nothing, nothing, PEAKS, 5)
    assert segments.max() == 0
    assert peak_positions(segments, nothing).shape == (0, 2)
    assert len(measure_isophotes(segments, islands, nothing)) == 0


def test_small_isophotes_are_dropped_and_the_others_numbered_on() -> None:
    smooth = np.zeros((10, 20))
    smooth[1, 1:3] = smooth[4:6, 4:8] = smooth[8, 8:18] = 10.0
    islands = find_islands(smooth, 4.0, 5)
    assert [int((islands == number).sum()) for number in (1, 2)] == [8, 10]
    assert islands.max() == 2


@settings(max_examples=25, deadline=None)
@given(st.floats(0, np.pi), st.floats(2.0, 5.0), st.floats(1.0, 1.9))
def test_moments_are_those_of_an_ellipse(angle: float, major: float, minor: float) -> None:
    y, x = np.indices(SHAPE) - np.array([40, 45])[:, None, None]
    along, across = (
        x * np.cos(angle) + y * np.sin(angle),
        y * np.cos(angle) - x * np.sin(angle),
    )
    light = np.exp(-((along / major) ** 2 + (across / minor) ** 2) / 2)
    inside = (light > 1e-6).astype(np.int32)
    found = measure_isophotes(inside, inside, light)
    assert (found.x[0], found.y[0]) == pytest.approx((45, 40), abs=0.01)
    assert (found.a[0], found.b[0]) == pytest.approx((major, minor), rel=0.05)
    turned = (found.theta[0] - angle + np.pi / 2) % np.pi - np.pi / 2
    assert turned == pytest.approx(0, abs=0.02)
    assert found.flags[0] == 0


def test_flags_say_what_is_merged_and_what_is_cut() -> None:
    segments, islands = np.zeros((2, 10, 12), np.int32)
    segments[2, 2:5], segments[2, 5:8], segments[9, 0:3] = 1, 2, 3
    islands[2, 2:8], islands[9, 0:3] = 1, 2
    found = measure_isophotes(segments, islands, np.ones((10, 12)))
    assert found.flags.tolist() == [MERGED, MERGED, 8]
