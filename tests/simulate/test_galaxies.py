from __future__ import annotations

import galsim
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from deblend_batch.simulate.galaxies.galaxy import Renderer
from deblend_batch.simulate.galaxies.population import KINDS, Component, Kind, Population, Structure
from deblend_batch.simulate.presets import PsfModel
from deblend_batch.simulate.psf import Psf

PSF = Psf(PsfModel("moffat", 1.0, 0.0, beta=3.5), 3.0, 0.0, 0.0)
ROUND_SPHEROID = Structure("sph", Component(4.0, 2.0, 1.0, 1.0), None)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(PSF, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_light_is_positive_complete_and_near_the_centre(renderer: Renderer, kind: Kind) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        drawing = renderer.draw(Population.shipped().draw_kind(kind, 23.5, rng), 1 / 0.06, rng)
        assert drawing.image.dtype == np.float32
        assert drawing.image.min() >= 0
        assert 0.9 < drawing.image.sum() < 1.01
        assert np.abs(drawing.centre_yx - 64).max() < 12


def test_a_spheroid_is_what_galsim_draws(renderer: Renderer) -> None:
    image = renderer.draw(ROUND_SPHEROID, 1.0, np.random.default_rng(3)).image
    # The same stream, as the renderer uses it: position angle, then the sub-pixel shift (y, x).
    rng = np.random.default_rng(3)
    rng.uniform(0, np.pi)
    shift_y, shift_x = rng.uniform(-0.5, 0.5, 2)
    profile = galsim.Convolve(
        galsim.Sersic(2.0, 4.0, trunc=40.0).shift(shift_x, shift_y), PSF.profile()
    )
    target = galsim.ImageD(galsim.BoundsI(0, 127, 0, 127), scale=1.0)
    drawn = profile.drawImage(target, center=galsim.PositionD(64, 64)).array
    np.testing.assert_allclose(image[20:108, 20:108], drawn[20:108, 20:108], atol=2e-5)


def test_the_centroid_of_a_symmetric_galaxy_is_its_centre(renderer: Renderer) -> None:
    rng = np.random.default_rng(4)
    rng.uniform(0, np.pi)
    shift = rng.uniform(-0.5, 0.5, 2)
    drawing = renderer.draw(ROUND_SPHEROID, 1.0, np.random.default_rng(4))
    np.testing.assert_allclose(drawing.centre_yx, 64 + shift, atol=0.02)


@pytest.mark.parametrize("radius_px", [0.02, 0.5, 1.49, 1.51, 30.0])
def test_discs_of_any_size_keep_their_flux(renderer: Renderer, radius_px: float) -> None:
    disc = Structure("disk", None, Component(radius_px, 1.0, 0.6, 1.0))
    image = renderer.draw(disc, 1.0, np.random.default_rng(5)).image
    assert 0.85 < image.sum() < 1.01


@pytest.mark.parametrize("n", [0.25, 0.5, 1.0, 1.5, 1.6, 4.0, 6.2])
@pytest.mark.parametrize("radius_px", [0.3, 6.0])
def test_every_index_can_be_drawn_as_disc_and_as_spheroid(
    renderer: Renderer, n: float, radius_px: float
) -> None:
    part = Component(radius_px, n, 0.5, 1.0)
    for structure in (Structure("disk", None, part), Structure("sph", part, None)):
        image = renderer.draw(structure, 1.0, np.random.default_rng(9)).image
        assert 0.85 < image.sum() < 1.02


def test_a_stream_draws_one_galaxy(renderer: Renderer) -> None:
    structure = Population.shipped().draw_kind("irr", 22.0, np.random.default_rng(6))
    first, second = (renderer.draw(structure, 10.0, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)


def test_the_threads_of_linear_algebra_change_no_bit(renderer: Renderer) -> None:
    disc = Structure("disk", None, Component(20.0, 1.0, 0.6, 1.0))
    drawn = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads, user_api="blas"):
            drawn.append(renderer.draw(disc, 1.0, np.random.default_rng(8)).image)
    np.testing.assert_array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize("stamp_px", [32, 64, 192])
def test_stamps_have_the_size_asked_for_and_fade_at_the_edge(stamp_px: int) -> None:
    large = Structure("sph", Component(40.0, 1.0, 1.0, 1.0), None)
    image = Renderer(PSF, stamp_px).draw(large, 1.0, np.random.default_rng(8)).image
    assert image.shape == (stamp_px, stamp_px)
    assert image[0].max() < 0.1 * image[8].max()
