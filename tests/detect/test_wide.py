"""Galaxies larger than the largest stamp: one row, and what lies in their light is found above it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from deblend_batch.detect.bits import LARGE
from deblend_batch.detect.extract import ExtractParams, extract_sources
from deblend_batch.detect.filters import Place, psf_kernel
from deblend_batch.detect.segments import find_islands
from deblend_batch.detect.wide import find_wide_light
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import add_gaussians, noise_image

SHAPE = (420, 440)
GALAXY_YX = np.array([[210.0, 215.0]])
SMALL_YX = np.array([[250.0, 260.0], [150.0, 205.0], [40.0, 40.0]])
GALAXY_FLUX, SMALL_FLUX = 1.5e5, 600.0


@pytest.mark.parametrize("from_space", [False, True])
def test_a_galaxy_is_not_shredded(from_space: bool) -> None:
    """From space what is small in its light may as well be a clump of it."""
    image = add_gaussians(noise_image(SHAPE, seed=2), GALAXY_YX, GALAXY_FLUX, 110.0)
    image = add_gaussians(image, SMALL_YX, SMALL_FLUX, 3.0)
    places = [Place(Box(0, 0, *SHAPE), psf_kernel(3.0))]
    found = extract_sources(image, 1.0, None, places, ExtractParams(from_space=from_space))
    distance, row = cKDTree(np.concatenate([GALAXY_YX, SMALL_YX])).query(found.yx)
    assert sorted(row.tolist()) == ([0, 3] if from_space else [0, 1, 2, 3])
    assert distance[row > 0].max() < 1
    assert distance[row == 0][0] < 48
    assert (found.flags[row == 0] & LARGE).all()
    assert found.flux[row == 0] == pytest.approx(GALAXY_FLUX, rel=0.4)
    np.testing.assert_allclose(found.flux[row > 0], SMALL_FLUX, rtol=3.0)


def test_what_is_no_larger_than_a_stamp_has_no_wide_light() -> None:
    """A long thin one, such as a spike, is none either."""
    smooth = np.zeros((300, 300))
    smooth[20:148, 20:148] = smooth[200:205, :] = 20.0
    assert find_wide_light(find_islands(smooth, 4.0, 5), smooth, 4.0) is None


def test_islands_in_its_light_must_stand_above_it() -> None:
    smooth = np.full((400, 400), 3.0)
    smooth[100:300, 100:300] = 10.0
    smooth[60:64, 200:204] = 5.0  # the rim's noise
    smooth[60:64, 300:304] = 9.0  # a source
    islands = find_islands(smooth, 4.0, 5)
    wide = find_wide_light(islands, smooth, 4.0)
    assert wide is not None
    assert wide.islands[200, 200] > 0
    assert wide.islands[62, 302] > 0
    assert wide.islands[62, 202] == 0
    assert sorted(set(wide.islands.ravel().tolist())) == [0, 1, 2]


def test_galaxies_apart_from_it_are_as_they_would_be_alone() -> None:
    """They are in the same tile or not, as it comes."""
    smooth = np.zeros((400, 800))
    smooth[100:300, 100:300] = 10.0
    smooth[150:250, 600:700] = 10.0  # no wider than a stamp, but wider than a bin's median
    wide = find_wide_light(find_islands(smooth, 4.0, 5), smooth, 4.0)
    assert wide is not None
    assert wide.where[200, 200]
    assert not wide.where[:, 500:].any()
    np.testing.assert_array_equal(wide.rest[:, 500:], smooth[:, 500:])
    assert wide.stands[:, 500:].all()
