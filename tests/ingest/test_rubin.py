"""Rubin's image files: band, planes and PSF from the tree of JSON that they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from deblend_batch.errors import FieldError
from deblend_batch.field.layout import Field
from deblend_batch.ingest.bands import open_bands
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.given import Given, GivenBand
from deblend_batch.ingest.ingest import ingest
from tests.ingest.fits_files import celestial_header, noise_image

SHAPE = (300, 320)
CELL = 100


def kernels(counts_yx: tuple[int, int]) -> np.ndarray:
    """A Gaussian a cell, wider from cell to cell."""
    y, x = np.indices((21, 21)) - 10
    width = 1.5 + 0.1 * np.arange(counts_yx[0] * counts_yx[1]).reshape(*counts_yx, 1, 1)
    images = np.exp(-(y**2 + x**2) / (2 * width**2))
    return np.asarray(images / images.sum(axis=(-2, -1), keepdims=True))


def tree(**psf: Any) -> dict[str, Any]:
    grid = {
        "bbox": {"y": {"start": 1000, "stop": 1300}, "x": {"start": 2000, "stop": 2400}},
        "cell_shape": {"y": CELL, "x": CELL},
    }
    return {
        "image": {"yx0": [1000, 2000]},
        "mask": {"data": [{"source": "fits:MASK"}]},
        "variance": {"data": {"value": {"source": "fits:VARIANCE"}}},
        "band": "i",
        "psf": {"array": {"source": "fits:PSF"}, "bounds": {"grid": grid}, **psf},
    }


def written(path: Path, content: bytes, psf: np.ndarray) -> str:
    mask = np.zeros(SHAPE, np.int32)
    mask[:3] |= 1
    mask[50:100] |= 4
    header = celestial_header()
    for bit, name in enumerate(("NO_DATA", "INTERPOLATED", "DETECTED")):
        header[f"MSKN{bit:04d}"], header[f"MSKM{bit:04d}"] = name, 1 << bit
    primary = fits.PrimaryHDU()
    primary.header["DATAMODL"] = "https://images.lsst.io/schemas/cell_coadd-1.0.0"
    column = fits.Column("JSON", f"PB({len(content)})", array=[np.frombuffer(content, np.uint8)])
    fits.HDUList(
        [
            primary,
            fits.ImageHDU(noise_image(SHAPE), celestial_header(bunit="nJy"), name="IMAGE"),
            fits.ImageHDU(mask, header, name="MASK"),
            fits.ImageHDU(np.ones(SHAPE, np.float32), name="VARIANCE"),
            fits.CompImageHDU(psf, name="PSF", compression_type="GZIP_2", quantize_level=0),
            fits.BinTableHDU.from_columns([column], name="JSON"),
        ]
    ).writeto(path)
    return str(path)


def test_a_file_says_what_it_holds(tmp_path: Path) -> None:
    psf = kernels((3, 4))
    psf[1, 1] = np.nan
    url = written(tmp_path / "a.fits", json.dumps(tree()).encode(), psf)
    summary = ingest([url], f"{tmp_path}/a.zarr")
    field = Field.open(f"{tmp_path}/a.zarr")
    assert (field.meta.bands, field.meta.zero_point) == (("i",), (31.4,))
    assert summary.bands[0].psf_fwhm_arcsec.source == "kernels of the file, 3 x 4 cells"
    assert field.variance is not None
    assert summary.bad_fraction == pytest.approx(3 / SHAPE[0])
    found = field.psf.kernels
    assert found is not None
    assert (found.grid.counts_yx, found.grid.edge_yx) == ((3, 4), (CELL, CELL))
    assert found.is_known.sum() == 11
    np.testing.assert_allclose(found.images[0, 2, 3], psf[2, 3], atol=1e-6)
    fwhm_px = field.psf.fwhm_arcsec[0] / field.pixel_scale_arcsec
    assert fwhm_px[0, 0] == pytest.approx(2.355 * 1.5, rel=0.02)
    assert fwhm_px[2, 3] == pytest.approx(2.355 * 2.6, rel=0.02)


def test_options_count_for_more(tmp_path: Path) -> None:
    url = written(tmp_path / "a.fits", json.dumps(tree()).encode(), kernels((3, 4)))
    ingest([url], f"{tmp_path}/a.zarr", bands=["z"], psf_fwhm_arcsec=[0.5], mask_bits=["1"])
    field = Field.open(f"{tmp_path}/a.zarr")
    assert (field.meta.bands, field.meta.psf_fwhm_arcsec) == (("z",), (0.5,))
    assert field.psf.kernels is None
    assert field.meta.mask_bits is not None
    assert field.meta.mask_bits.bad == ("INTERPOLATED", "UNOBSERVED")


def test_none_leaves_out_what_the_file_has(tmp_path: Path) -> None:
    url = written(tmp_path / "a.fits", json.dumps(tree()).encode(), kernels((2, 3)))
    with open_files() as files:
        (source,) = Given(images=(url,), mask=("none",), psf=("none",)).sources()
        (band,) = open_bands(files, [GivenBand(source)])
    assert (band.mask, band.psf) == (None, None)
    assert band.noise is not None


@pytest.mark.parametrize("content", [b"{}", b'{"psf": [], "band": 3, "mask": {"data": "x"}}'])
def test_a_tree_that_says_nothing(content: bytes, tmp_path: Path) -> None:
    url = written(tmp_path / "a.fits", content, kernels((3, 4)))
    ingest([url], f"{tmp_path}/a.zarr", psf_fwhm_arcsec=[0.5])
    assert Field.open(f"{tmp_path}/a.zarr").meta.bands == ("a",)


@pytest.mark.parametrize(
    ("content", "psf", "message"),
    [
        (b"{" * 100_000 + b"}", kernels((1, 1)), r"a\.fits\[JSON\]: is no JSON; fetch"),
        (json.dumps(tree()).encode(), kernels((1, 1))[..., :20], "kernels of 21 x 20 px"),
        (json.dumps(tree()).encode(), kernels((1, 1))[0], "is no grid of square cells"),
    ],
    ids=["nested", "not square", "three axes"],
)
def test_what_cannot_be_read_is_refused(
    content: bytes, psf: np.ndarray, message: str, tmp_path: Path
) -> None:
    url = written(tmp_path / "a.fits", content, psf)
    with pytest.raises(FieldError, match=message):
        ingest([url], f"{tmp_path}/a.zarr", bands=["i"])
