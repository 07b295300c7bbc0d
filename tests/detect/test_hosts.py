"""What halos, saturated cores and clumps must not become, and what stands on them must stay."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblend_batch.detect import bits
from deblend_batch.detect.cores import fill_cores, find_cores, flat_tops
from deblend_batch.detect.extract import ExtractParams, SourceTable, extract_sources
from deblend_batch.detect.filters import Place
from deblend_batch.detect.fragments import fragment_score
from deblend_batch.detect.hosts import Hosting, is_spike
from deblend_batch.detect.moments import Isophotes
from deblend_batch.errors import ConfigError
from deblend_batch.field.psf.profile import (
    diffraction_image,
    psf_image,
)
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import noise_image

FWHM, SCALE = 3.0, 0.06
SHAPE = (200, 210)
STAR = (100.0, 104.0)
LEVEL = 2000.0


PROFILE = diffraction_image(FWHM, 95)
"""A PSF of unit sum with its rings, as wide as the image."""


def star(flux: float = 4e5, seed: int = 1) -> NDArray[np.float32]:
    """Noise, and a bright star with the rings of a telescope in space."""
    image = noise_image(SHAPE, seed=seed).astype(np.float64)
    y, x = (int(middle) - 95 for middle in STAR)
    image[y : y + 191, x : x + 191] += flux * PROFILE
    return image.astype(np.float32)


def search(
    image: NDArray[np.float32], saturated: NDArray[np.bool_] | None = None, **options: object
) -> SourceTable:
    places = [Place(Box(0, 0, *image.shape), psf_image(FWHM, SCALE))]
    bad = options.pop("bad", None)
    params = ExtractParams(from_space=True, **options)  # type: ignore[arg-type]
    return extract_sources(image, 1.0, bad, places, params, saturated)  # type: ignore[arg-type]


def add_star(image: NDArray[np.float32], yx: tuple[float, float], flux: float) -> None:
    drawn = galsim.ImageF(SHAPE[1], SHAPE[0], xmin=0, ymin=0, scale=1.0)
    light = galsim.Gaussian(fwhm=FWHM, flux=flux)
    light.drawImage(image=drawn, center=galsim.PositionD(yx[1], yx[0]))
    image += drawn.array


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([1e4, 1e5, 3e5]), st.integers(0, 5))
def test_a_star_is_one_row_whatever_its_rings(flux: float, seed: int) -> None:
    found = search(star(flux, seed))
    assert len(found) == 1
    np.testing.assert_allclose(found.yx[0], STAR, atol=0.1)


@pytest.mark.parametrize("how", ["said", "flat", "hole"])
def test_a_saturated_star_is_one_row_with_its_flag(how: str) -> None:
    image = star()
    saturated = image >= LEVEL
    image = np.minimum(image, np.float32(LEVEL))
    bad = None
    if how == "hole":
        image[saturated] = np.nan
        bad = saturated
    found = search(image, None if how == "flat" else saturated, bad=bad)
    assert len(found) == 1
    assert found.flags[0] & bits.SATURATED
    np.testing.assert_allclose(found.yx[0], STAR, atol=0.3)


def test_a_neighbour_on_the_halo_of_a_star_stays_and_says_so() -> None:
    image = star()
    add_star(image, (100.0, 134.0), 2000.0)
    add_star(image, (20.0, 30.0), 2000.0)
    saturated = image >= LEVEL
    found = search(np.minimum(image, np.float32(LEVEL)), saturated)
    assert len(found) == 3
    near = (found.flags & bits.NEAR_BRIGHT_STAR) != 0
    np.testing.assert_allclose(found.yx[near], [(100.0, 134.0)], atol=0.3)


@pytest.mark.parametrize(
    ("turn_deg", "ratio", "away_px", "is_one"),
    [
        (9.0, 0.45, 30.0, True),
        (11.0, 0.45, 30.0, False),  # it points past the star
        (189.0, 0.45, 30.0, True),  # an axis has no direction
        (0.0, 0.55, 30.0, False),  # round
        (0.0, 0.2, 41.0, False),  # farther than spikes reach
    ],
)
@pytest.mark.parametrize("direction_deg", [0.0, 45.0, 130.0, -90.0])
def test_a_spike_is_long_and_points_at_a_saturated_star(
    turn_deg: float, ratio: float, away_px: float, is_one: bool, direction_deg: float
) -> None:
    direction = np.radians(direction_deg)
    away = away_px * np.array([np.sin(direction), np.cos(direction)])
    yx = np.stack([STAR, STAR + away])
    theta = np.array([0.0, direction + np.radians(turn_deg)])
    long = np.array([1.0, ratio])
    objects = Isophotes(yx[:, 1], yx[:, 0], np.ones(2), long, theta, np.zeros(2, np.int32))
    none = np.zeros(2)
    reach = np.array([10.0, 0.0])
    alone, whole = np.full(2, -1), np.zeros(2, np.int64)
    hosting = Hosting(alone, none, none, none, none, whole, whole > 0, none, reach)
    saturated = np.array([True, False])
    assert is_spike(hosting, objects, yx, saturated).tolist() == [False, is_one]
    assert not is_spike(hosting, objects, yx, np.zeros(2, bool)).any()


def test_noise_on_the_rim_of_a_large_galaxy_is_no_source() -> None:
    drawn = galsim.ImageF(400, 400, scale=1.0)
    galsim.Sersic(n=2.5, half_light_radius=40.0, flux=4e4).shear(g1=0.2).drawImage(image=drawn)
    found = search(np.asarray(drawn.array + noise_image((400, 400)), np.float32))
    assert len(found) == 1
    assert found.flags[0] & bits.LARGE


def test_flat_tops_are_recognised_and_bright_peaks_are_not() -> None:
    assert not flat_tops(star(1e6).astype(np.float64)).any()
    clipped = np.minimum(star(1e6), np.float32(LEVEL)).astype(np.float64)
    np.testing.assert_array_equal(flat_tops(clipped), clipped == LEVEL)
    assert not flat_tops(np.full((9, 9), 10.0)).any()


def test_cores_that_touch_are_one_and_holes_are_filled() -> None:
    saturated = np.zeros((30, 40), bool)
    saturated[10:12, 10:12] = saturated[13:15, 10:12] = saturated[20, 30] = True
    cores = find_cores(saturated, 2.0)
    np.testing.assert_allclose(cores.yx, [(12.0, 10.5), (20.0, 30.0)])
    image = np.where(saturated, 0.0, 5.0)
    assert (fill_cores(image, saturated, saturated)[saturated] == 5.0).all()
    assert cores.levelled(image + saturated * 9)[cores.labels > 0].min() == 9


def test_a_fragment_is_told_by_its_company_and_a_row_without_a_host_is_none() -> None:
    n = 3
    hosting = Hosting(
        host=np.array([2, 2, -1]),
        halo=np.array([50.0, 5.0, 0.0]),
        scatter=np.array([8.0, 1.0, 0.0]),
        radii=np.array([0.7, 1.8, np.inf]),
        share=np.array([0.01, 0.2, np.inf]),
        siblings=np.array([12, 0, 0]),
        apart=np.array([True, True, False]),
        area_px=np.array([10.0, 60.0, 200.0]),
        reach_px=np.zeros(n),
    )
    score = fragment_score(hosting, np.array([80.0, 200.0, 500.0]), FWHM, from_space=True)
    assert score[0] > ExtractParams().max_fragment
    assert 0.4 > score[1] > score[2] == 0


def test_more_peaks_than_a_psf_can_tell_apart_are_refused_in_one_line() -> None:
    image = np.zeros((300, 300), np.float32)
    image[::4, ::4] = 1000.0
    with pytest.raises(
        ConfigError, match=r"detect: [\d,]+ peaks in 90,000 px, .* --threshold"
    ) as told:
        search(image + noise_image(image.shape), threshold_sigma=3.0, min_area_px=1)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_image_of_one_value_ends(value: float) -> None:
    at_corners = 4
    assert len(search(np.full(SHAPE, value, np.float32))) <= at_corners
