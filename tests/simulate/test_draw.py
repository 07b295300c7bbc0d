from __future__ import annotations

import itertools

import numpy as np
import pytest

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies.draw import (
    WIDE,
    Variation,
    draw_chunk,
    draw_magnitude,
    draw_pool,
)
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.presets import get_preset, preset_names

PRESET = get_preset("candels-h")


def assert_same(first: GalaxyPool, second: GalaxyPool) -> None:
    for name in first.columns:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@pytest.mark.parametrize("cuts", [(0, 24), (0, 7, 24), (0, 8, 16, 24), (0, 1, 2, 23, 24)])
def test_any_division_into_chunks_gives_the_same_pool(cuts: tuple[int, ...]) -> None:
    whole = draw_chunk(PRESET, 3, 0, 24, group_size=8, stamp_px=64)
    parts = [
        draw_chunk(PRESET, 3, start, stop, group_size=8, stamp_px=64)
        for start, stop in itertools.pairwise(cuts)
    ]
    assert_same(whole, GalaxyPool.concatenate(parts))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 4},
        {"variation": WIDE},
        {"preset": get_preset("hst-acs")},
    ],
    ids=["seed", "variation", "preset"],
)
def test_ids_are_unique_over_pools(other: dict[str, object]) -> None:
    given: dict[str, object] = {"preset": PRESET, "seed": 3, "variation": None}
    pools = [draw_chunk(start=0, stop=3, stamp_px=32, **kind) for kind in (given, given | other)]  # type: ignore[arg-type]
    ids = np.concatenate([pool.galaxy_id for pool in pools])
    assert np.unique(ids).size == 6
    assert ids.min() > 0


def test_wide_variation_widens_psf_and_radii(pool: GalaxyPool) -> None:
    narrow = draw_pool("candels-h", 40, 7, group_size=10, stamp_px=32)
    assert np.ptp(pool.psf_fwhm_px) > 3 * np.ptp(narrow.psf_fwhm_px)
    factor = Variation(radius_factor=(2.0, 2.0))
    large = draw_pool("candels-h", 40, 7, group_size=10, stamp_px=32, variation=factor)
    np.testing.assert_allclose(large.radius_px, 2 * narrow.radius_px, rtol=1e-5)


@pytest.mark.parametrize("name", preset_names())
def test_magnitudes_follow_the_presets_counts(name: str) -> None:
    preset, rng = get_preset(name), np.random.default_rng(1)
    mags = np.array([draw_magnitude(preset, rng) for _ in range(4000)])
    bright, faint = preset.magnitude_range
    assert bright <= mags.min() <= mags.max() <= faint
    number = [((mags >= low) & (mags < low + 1)).sum() for low in (faint - 2, faint - 1)]
    assert np.log10(number[1] / number[0]) == pytest.approx(preset.magnitude_slope, abs=0.06)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match="a pool of 0 galaxies is empty; ask for at least 1"):
        draw_pool("candels-h", 0, 1)
