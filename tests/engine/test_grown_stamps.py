"""A galaxy larger than its stamp is measured in a larger one, whatever the table says of its size."""

from __future__ import annotations

from pathlib import Path

import galsim
import numpy as np
import pytest

from deblend_batch import flags
from tests.drawn import add_light
from tests.engine.one_band import SCALE_ARCSEC, ZERO_POINT, write_run
from tests.engine.test_fit_run import measured

FWHM_PX = 3.0
STEP, ACROSS, FLUX = 130, 4, 60_000.0


def clumpy(radius_px: float, rng: np.random.Generator) -> galsim.GSObject:
    """Return a disc with clumps, as no Sersic profile is: what is left over makes the fit trust it less."""
    disc = galsim.Exponential(half_light_radius=radius_px, flux=0.75 * FLUX)
    clumps = [
        galsim.Gaussian(half_light_radius=radius_px / 6, flux=0.05 * FLUX).shift(
            *rng.normal(0, 0.5 * radius_px, 2)
        )
        for _ in range(5)
    ]
    return galsim.Add(disc, *clumps).shear(g1=rng.normal(0, 0.15), g2=rng.normal(0, 0.15))


def written(folder: Path, radius_px: float, told_px: float | None) -> dict[str, object]:
    """Write a field of lone galaxies of one size, and a table that says a radius, or none."""
    rng = np.random.default_rng(8)
    grid = STEP * np.arange(ACROSS) + STEP / 2
    place = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    side = STEP * ACROSS
    image = galsim.ImageD(side, side, xmin=0, ymin=0, scale=1.0)
    psf = galsim.Moffat(beta=3.5, fwhm=FWHM_PX)
    for y, x in place:
        light = galsim.Convolve(clumpy(radius_px, rng), psf)
        add_light(image, light, (y, x), reach=int(12 * radius_px))
    columns = {"id": np.arange(len(place)), "x": place[:, 1], "y": place[:, 0]}
    if told_px is not None:
        columns["radius"] = np.full(len(place), told_px * SCALE_ARCSEC)
    noisy = image.array + rng.normal(0, 1, image.array.shape)
    return write_run(folder, noisy, FWHM_PX, columns)


@pytest.mark.parametrize("told_px", [None, 2.0], ids=["no radius", "a small one"])
def test_fluxes_are_right_whatever_radius_is_told(told_px: float | None, tmp_path: Path) -> None:
    """In the stamps of 32 px that the table asks for, one in three is off by 5 to 20 %."""
    rows = measured(written(tmp_path, 10.0, told_px), 16).to_pandas()
    ratio = rows.flux_r / (FLUX * 10 ** (0.4 * (31.4 - ZERO_POINT)))
    assert len(rows) == ACROSS**2
    assert np.abs(ratio - 1).max() < 0.03
    assert (rows["flags"] & flags.SKY_OFFSET.value).astype(bool).mean() < 0.2


def test_what_no_stamp_holds_is_flagged(tmp_path: Path) -> None:
    rows = measured(written(tmp_path, 24.0, None), 16).to_pandas()
    assert (rows["flags"] & flags.LARGER_THAN_STAMP.value).astype(bool).mean() > 0.9
