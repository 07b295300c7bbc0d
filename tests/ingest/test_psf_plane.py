"""What --psf names: kernels, maps of widths, PSFEx's models and stamps on a canvas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import galsim
import galsim.des
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.layout import Field
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.header.cards import celestial_cards
from deblend_batch.ingest.ingest import ingest
from deblend_batch.ingest.planes.psf_plane import read_psf
from deblend_batch.ingest.psf.from_files import FilePsf, WidthMap, kernel_fwhm
from deblend_batch.ingest.reference import ImageRef, parse_plane
from tests.ingest.fits_files import noise_image, write_image
from tests.ingest.psf_files import SHAPE, canvas_file, gaussian, psfex_file

SCALE = 0.1


def read(path: Path, psf: str, shape: tuple[int, int] = SHAPE) -> FilePsf | WidthMap:
    url = str(path / "image.fits")
    if not Path(url).exists():
        write_image(path / "image.fits", noise_image(shape))
    with open_files() as files:
        image = files.plane(ImageRef(url))
        cards = celestial_cards(image.unsettled, image.shape_yx, "a")
        grid = SkyGrid.from_cards(cards, image.shape_yx, "a")
        return read_psf(files, parse_plane(psf, ImageRef(url)), image, grid)


@pytest.mark.parametrize(("degree", "sample"), [(0, 1.0), (1, 0.7), (2, 1.0), (2, 0.5)])
def test_psfex_is_evaluated_as_galsim_does(degree: int, sample: float, tmp_path: Path) -> None:
    url = psfex_file(tmp_path / "a.psf", degree, sample)
    found = read(tmp_path, url)
    assert isinstance(found, FilePsf)
    edge = found.images.shape[-1]
    theirs = galsim.des.DES_PSFEx(url)
    cells = found.images.shape[:2]
    assert cells == ((3, 3) if degree else (1, 1))
    at = (256 + 127.5, 127.5) if degree else (349.5, 299.5)
    position = galsim.PositionD(at[1] + 1, at[0] + 1)
    drawn = theirs.getPSF(position).drawImage(nx=edge, ny=edge, scale=1.0, method="no_pixel").array
    ours = found.images[1, 0] if degree else found.images[0, 0]
    np.testing.assert_allclose(ours, drawn / drawn.sum(), atol=2e-4 * drawn.max())
    if degree:
        assert found.fwhm_px[-1, -1] > found.fwhm_px[0, 0] + 0.1


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"POLNAME1": "MAG_AUTO"}, r"varies with MAG_AUTO, Y_IMAGE, not X_IMAGE and Y_IMAGE alone"),
        ({"POLDEG1": 9}, "no PSFEx model of one polynomial"),
        ({"PSFAXIS3": 10**9}, "no PSFEx model of one polynomial"),
        ({"PSF_SAMP": 0.0}, "are no numbers"),
        ({"POLSCAL1": 0.0}, "are no numbers"),
        ({"POLZERO2": "x"}, "POLZERO2 is missing, or no number"),
    ],
)
def test_a_model_that_is_none_is_refused(
    cards: dict[str, Any], message: str, tmp_path: Path
) -> None:
    url = psfex_file(tmp_path / "a.psf", 1, 1.0, **cards)
    with pytest.raises(FieldError, match=message):
        read(tmp_path, url)


def test_a_kernel_in_an_hdu_and_one_for_each_cell(tmp_path: Path) -> None:
    path = tmp_path / "psf.fits"
    cells = np.array([[gaussian(2.0), gaussian(3.0)], [gaussian(4.0), gaussian(5.0)]])
    hdus = [fits.ImageHDU(2 * gaussian(2.5), name="ONE"), fits.ImageHDU(cells, name="CELLS")]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    one, four = read(tmp_path, f"{path}[ONE]"), read(tmp_path, f"{path}[CELLS]")
    assert isinstance(one, FilePsf)
    assert isinstance(four, FilePsf)
    assert one.images.sum() == pytest.approx(1)
    assert one.notes == ("kernels of the PSF sum to as much as 2: scaled to 1",)
    assert one.typical_fwhm_px == pytest.approx(2.5, rel=0.02)
    np.testing.assert_allclose(four.fwhm_px, [[2, 3], [4, 5]], rtol=0.02)
    assert (four.cell_px, four.notes) == (350, ())


def test_a_map_of_widths(tmp_path: Path) -> None:
    widths = np.full(SHAPE, 1.2, np.float32)
    widths[:, 300:] = 1.5
    widths[:80, :80] = 0
    url = write_image(tmp_path / "psfsize.fits", widths)
    found = read(tmp_path, url)
    assert isinstance(found, WidthMap)
    assert np.isnan(found.fwhm_px[0, 0])
    np.testing.assert_allclose(found.fwhm_px[2:, 0] * SCALE, 1.2, rtol=1e-3)
    np.testing.assert_allclose(found.fwhm_px[:, -1] * SCALE, 1.5, rtol=1e-3)
    in_pixels = write_image(tmp_path / "px.fits", widths / SCALE, bunit="pixel")
    same = read(tmp_path, in_pixels)
    np.testing.assert_allclose(same.fwhm_px, found.fwhm_px, rtol=1e-5)


@pytest.mark.parametrize("origin", [0, 1])
def test_stamps_on_a_canvas_go_to_their_places(origin: int, tmp_path: Path) -> None:
    found = read(tmp_path, canvas_file(tmp_path / "grid.fits", origin))
    assert isinstance(found, FilePsf)
    assert found.images.shape == (3, 3, 15, 15)
    assert found.source == "nearest of 16 stamps, 3 x 3 cells"
    np.testing.assert_allclose(found.fwhm_px[:, 0], 2.0, rtol=0.03)
    np.testing.assert_allclose(found.fwhm_px[:, -1], 3.5, rtol=0.03)


def test_stamps_that_are_not_where_their_table_says_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="has no PSF with its peak at"):
        read(tmp_path, canvas_file(tmp_path / "grid.fits", 0, shift=3))


@pytest.mark.parametrize(
    ("pixels", "cards", "message"),
    [
        (gaussian(3.0, 20), {}, "kernels of 20 x 20 px; they must be square, their edge odd"),
        (np.zeros((21, 21)), {}, "no kernel of a positive sum"),
        (gaussian(3.0), {"PIXELSCL": 0.05}, r"its pixels are 0\.5 of the image's; resample it"),
        (gaussian(3.0), {"OVERSAMP": 4}, r"its pixels are 0\.25 of the image's"),
        (np.zeros((3, 21, 21)), {}, "neither a kernel nor one for each square cell"),
        (np.zeros((2, 5, 21, 21)), {}, "neither a kernel nor one for each square cell"),
        (np.full(SHAPE, 1e4), {}, "no map of a PSF's width in arcsec"),
    ],
)
def test_what_is_no_psf_of_the_image_is_refused(
    pixels: np.ndarray, cards: dict[str, Any], message: str, tmp_path: Path
) -> None:
    header = fits.Header(list(cards.items()))
    fits.PrimaryHDU(pixels, header).writeto(tmp_path / "psf.fits")
    with pytest.raises(FieldError, match=message):
        read(tmp_path, str(tmp_path / "psf.fits"))


@settings(deadline=None, max_examples=25)
@given(st.floats(2, 12), st.floats(1.8, 8))
def test_the_width_of_a_kernel(fwhm_px: float, beta: float) -> None:
    drawn = galsim.Moffat(beta=beta, fwhm=fwhm_px).drawImage(
        nx=61, ny=61, scale=1, method="no_pixel"
    )
    assert kernel_fwhm(drawn.array.astype(float)) == pytest.approx(fwhm_px, rel=0.04)


def test_a_field_has_what_the_files_bring(tmp_path: Path) -> None:
    shape = (300, 320)
    urls = [
        write_image(
            tmp_path / f"{band}.fits", noise_image(shape, seed=n), magzero=25.0, filter=band
        )
        for n, band in enumerate("gri")
    ]
    fits.PrimaryHDU(gaussian(4.0)).writeto(tmp_path / "k.fits")
    widths = write_image(tmp_path / "w.fits", np.full(shape, 0.5, np.float32))
    ingest(urls, f"{tmp_path}/f.zarr", psf=[f"{tmp_path}/k.fits", widths, f"{tmp_path}/k.fits"])
    field = Field.open(f"{tmp_path}/f.zarr")
    assert field.psf.kernels is not None
    assert field.psf.kernels.is_known.tolist() == [[[True]], [[False]], [[True]]]
    at = field.psf.fwhm_at(np.array([[10.0, 10.0]]))[0]
    np.testing.assert_allclose(at, [0.4, 0.5, 0.4], rtol=0.02)
    with pytest.raises(ConfigError, match="--psf and --psf-fwhm exclude each other"):
        ingest(urls, f"{tmp_path}/g.zarr", psf=["1"], psf_fwhm_arcsec=[0.5])
