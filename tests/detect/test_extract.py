"""Sources found in pixels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.detect.bits import LARGE, TRUNCATED
from deblend_batch.detect.extract import (
    ExtractParams,
    SourceTable,
    extract_sources,
    select_owned,
)
from deblend_batch.detect.filters import Place, psf_kernel
from deblend_batch.errors import ConfigError
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import add_gaussians, grid_positions, noise_image

FWHM = 3.0
SHAPE = (400, 420)
YX = grid_positions(SHAPE, 40)
IMAGE = add_gaussians(noise_image(SHAPE), YX, 400.0, FWHM)


def extract(image: NDArray[np.float32] = IMAGE, sigma: Any = 1.0, **options: Any) -> SourceTable:
    places = [Place(Box(0, 0, *image.shape), psf_kernel(FWHM))]
    bad = options.pop("bad", None)
    return extract_sources(image, sigma, bad, places, ExtractParams(**options))


def match(found: SourceTable, yx: NDArray[np.float64]) -> NDArray[np.intp]:
    distance, index = cKDTree(found.yx).query(yx)
    assert distance.max() < 1.0
    return np.asarray(index)


def test_every_source_is_found_once_and_nothing_else() -> None:
    found = extract()
    assert len(found) == len(YX)
    assert len(set(match(found, YX).tolist())) == len(YX)


def test_positions_fluxes_and_sizes_are_right() -> None:
    found = extract()[match(extract(), YX)]
    offset = found.yx - YX
    assert np.abs(offset.mean(axis=0)).max() < 0.03
    assert offset.std() < 0.12
    assert np.median(found.flux) == pytest.approx(400.0, rel=0.02)
    assert np.median(found.radius_px) == pytest.approx(FWHM / 2, rel=0.08)
    pull = (found.flux - found.flux.mean()) / found.flux_err
    assert 0.7 < pull.std() < 1.5


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_noise_holds_hardly_any_sources(sign: float) -> None:
    assert len(extract(np.float32(sign) * noise_image((1000, 1000), seed=5))) <= 3


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-30, 1e20))
def test_the_unit_of_the_image_does_not_matter(unit: float) -> None:
    found, scaled = extract(), extract((IMAGE * np.float64(unit)).astype(np.float32), unit)
    assert len(found) == len(scaled)
    np.testing.assert_allclose(scaled.yx, found.yx, atol=2e-3)
    np.testing.assert_allclose(scaled.flux, found.flux * unit, rtol=2e-3)


@pytest.mark.parametrize(("separation", "ratio"), [(5.0, 1.0), (7.0, 0.3), (10.0, 0.1)])
def test_blends_are_split(separation: float, ratio: float) -> None:
    first = grid_positions(SHAPE, 50)
    second = first + np.array([0.0, separation])
    image = add_gaussians(noise_image(SHAPE), first, 2000.0, FWHM)
    image = add_gaussians(image, second, 2000.0 * ratio, FWHM)
    found = extract(image)
    both = np.concatenate([first, second])
    distance, _ = cKDTree(found.yx).query(both)
    assert (distance < 1.0).mean() > 0.95


def test_a_neighbour_is_masked_in_the_aperture() -> None:
    yx = np.array([[60.0, 60.0], [60.0, 72.0]])
    image = add_gaussians(noise_image((120, 130)), yx, np.array([1000.0, 8000.0]), FWHM)
    found = extract(image)
    faint = found[match(found, yx)][:1]
    assert faint.flux[0] == pytest.approx(1000.0, rel=0.2)


def test_a_faint_source_beside_a_bright_one_survives() -> None:
    yx = np.array([[100.0, 100.0], [100.0, 118.0]])
    image = add_gaussians(
        noise_image((200, 220)), yx, np.array([3e5, 300.0]), np.array([6.0, FWHM])
    )
    match(extract(image), yx)


@pytest.mark.parametrize("how", ["nan", "inf", "mask", "sigma"])
def test_bad_pixels_are_left_out(how: str) -> None:
    image, bad, sigma = IMAGE.copy(), np.zeros(SHAPE, bool), np.ones(SHAPE, np.float32)
    box = (slice(0, 200), slice(0, 420))
    if how in {"nan", "inf"}:
        image[box] = np.nan if how == "nan" else np.inf
    elif how == "mask":
        bad[box] = True
    else:
        sigma[box] = [np.nan, 0.0, -1.0] * 140
    found = extract(image, sigma, bad=bad)
    assert len(found) == (YX[:, 0] > 200).sum()
    assert (found.yx[:, 0] > 200).all()


@pytest.mark.parametrize(
    "image",
    [
        np.full((50, 60), np.nan, np.float32),
        np.zeros((50, 60), np.float32),
        np.zeros((0, 5), np.float32),
    ],
    ids=["nan", "zeros", "empty"],
)
def test_nothing_to_find(image: NDArray[np.float32]) -> None:
    found = extract(image)
    assert found.yx.shape == (len(found), 2) == (0, 2)
    assert str(found.flags.dtype) == "int32"


def test_inputs_are_not_changed() -> None:
    image, sigma = IMAGE.copy(), np.ones(SHAPE, np.float32)
    image[3, 4] = np.nan
    image.setflags(write=False)
    sigma.setflags(write=False)
    extract(image, sigma)


def test_a_noise_map_makes_noisy_parts_less_deep() -> None:
    sigma = np.ones(SHAPE, np.float32)
    sigma[:, 210:] = 40.0
    image = add_gaussians(noise_image(SHAPE) * sigma, YX, 400.0, FWHM)
    found = extract(image, sigma)
    assert (found.yx[:, 1] < 205).sum() == (YX[:, 1] < 205).sum()
    assert (found.yx[:, 1] > 215).sum() <= 5


@pytest.mark.parametrize("factor", [1.5, 2.0])
def test_correlated_noise_raises_thresholds_and_errors(factor: float) -> None:
    plain, raised = extract(), extract(noise_correlation=factor)
    np.testing.assert_allclose(
        np.median(raised.flux_err), factor * np.median(plain.flux_err), rtol=0.1
    )
    assert len(extract(min_snr=1.0, noise_correlation=20.0)) == 0


@pytest.mark.parametrize(("min_snr", "kept"), [(0.0, True), (1000.0, False)])
def test_the_cut_in_signal_to_noise(min_snr: float, kept: bool) -> None:
    assert (len(extract(min_snr=min_snr)) > 0) is kept


def test_a_crowded_image_does_not_overflow_the_buffers() -> None:
    """All of 360,000 pixels above the threshold: more than sep's buffers hold by default."""
    assert len(extract(noise_image((600, 600)) + np.float32(10), min_snr=0.0)) >= 1


@settings(max_examples=30, deadline=None)
@given(
    cuts_y=st.lists(st.integers(1, 399), max_size=4),
    cuts_x=st.lists(st.integers(1, 419), max_size=4),
)
def test_boxes_that_tile_the_image_own_each_source_once(
    cuts_y: list[int], cuts_x: list[int]
) -> None:
    sources = ON_BORDERS
    rows, columns = sorted({0, *cuts_y, 400}), sorted({0, *cuts_x, 420})
    owned = [
        select_owned(sources, (y0, x0), (y1, x1)).flux
        for y0, y1 in pairwise(rows)
        for x0, x1 in pairwise(columns)
    ]
    assert sorted(np.concatenate(owned)) == sorted(sources.flux)


def _on_borders() -> SourceTable:
    """Sources on and beside every pixel border there is; the flux numbers them."""
    rng = np.random.default_rng(4)
    yx = rng.integers(0, 399, (400, 2)) + rng.choice([-0.5, 0.0, 0.49999, 0.5, 0.25], (400, 2))
    yx = np.clip(yx, -0.5, 399.4)
    number = np.arange(400.0)
    flags = np.zeros(400, np.int32)
    return SourceTable(yx, number, number, number, number, number, number, number, number, flags)


ON_BORDERS = _on_borders()


def test_sources_of_a_piece_are_shifted_to_the_field() -> None:
    piece = extract(np.ascontiguousarray(IMAGE[100:, 50:])).shifted((100, 50))
    core = select_owned(piece, (140, 90), (400, 420))
    whole = select_owned(extract(), (140, 90), (400, 420))
    assert len(core) == len(whole) > 20
    np.testing.assert_allclose(core.yx, whole.yx, atol=1e-6)
    np.testing.assert_allclose(core.flux, whole.flux, rtol=1e-5)


@pytest.mark.parametrize("fwhm", [0.8, 1.6, 3.0, 6.5])
def test_the_kernel_is_a_normalised_odd_gaussian(fwhm: float) -> None:
    kernel = psf_kernel(fwhm)
    half = kernel.shape[0] // 2
    assert kernel.shape[0] == kernel.shape[1] == 2 * half + 1 >= 3
    assert kernel.sum() == pytest.approx(1.0, rel=1e-5)
    assert kernel.argmax() == kernel.size // 2
    np.testing.assert_array_equal(kernel, kernel.T)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("threshold_sigma", 0.0, r"--threshold is 0; give a number from 0\.1 to"),
        ("threshold_sigma", float("nan"), r"--threshold is nan"),
        ("min_area_px", 0, r"--min-area is 0"),
        ("filter_fwhm_px", 33.0, r"--filter is 33; give a number from 1 to 32"),
        ("peak_sigma", -1.0, r"--peak is -1"),
        ("prominence_sigma", float("inf"), r"--prominence is inf"),
        ("contrast", float("nan"), r"--contrast is nan"),
        ("above_halo", -0.1, r"--clean is -0\.1"),
        ("max_fragment", 1.5, r"--max-fragment is 1\.5"),
        ("min_snr", float("nan"), r"--min-snr is nan"),
    ],
)
def test_what_an_option_may_not_be_is_said(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExtractParams(**{name: value})


def test_a_wide_filter_finds_what_is_wide_and_faint() -> None:
    yx = np.array([[100.0, 100.0], [300.0, 300.0]])
    image = add_gaussians(noise_image(SHAPE, seed=4), yx, 150.0, 15.0)
    missed, found = (extract(image, min_snr=2.0, filter_fwhm_px=width) for width in (None, 15.0))
    assert cKDTree(missed.yx).query(yx)[0].max() > 5
    assert sorted(cKDTree(yx).query(found.yx, distance_upper_bound=5)[1]) == [0, 1]


def test_a_wide_filter_makes_no_sources_of_noise() -> None:
    assert len(extract(noise_image((1000, 1000), seed=9), filter_fwhm_px=15.0)) == 0


def test_more_sources_than_a_psf_can_tell_apart_are_refused() -> None:
    """A point on every fourth pixel: what is looked for is bounded by the image."""
    image = noise_image((400, 400), seed=6)
    image[1::4, 1::4] += 500
    with pytest.raises(
        ConfigError, match=r"peaks in 160,000 px, more than one in 20: .* --threshold"
    ):
        extract(image)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_image_of_one_value_is_at_most_one_flagged_source(value: float) -> None:
    found = extract(np.full((300, 300), value, np.float32), sigma=1e-3)
    assert len(found) <= 1
    assert (found.flags & (LARGE | TRUNCATED) > 0).all()


def test_without_a_good_pixel_there_is_no_source() -> None:
    empty = np.full(SHAPE, np.nan, np.float32)
    assert len(extract(empty)) == len(extract(bad=np.ones(SHAPE, bool))) == 0
