"""Data that do not fit the sum that their header states."""

from __future__ import annotations

import bz2
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from deblend_batch.errors import FieldError
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.reference import ImageRef
from tests.ingest.fits_files import noise_image

PIXELS = noise_image((60, 70))


def summed(path: Path, kind: type = fits.PrimaryHDU) -> Path:
    hdus = [kind(PIXELS)] if kind is fits.PrimaryHDU else [fits.PrimaryHDU(), kind(PIXELS)]
    fits.HDUList(hdus).writeto(path, checksum=True)
    return path


def opened(path: Path, *, check_sums: bool = True) -> None:
    with open_files(scratch=str(path.parent), check_sums=check_sums) as files:
        files.plane(ImageRef(str(path)))


@pytest.mark.parametrize("kind", [fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU])
def test_a_sum_that_fits_is_no_news(kind: type, tmp_path: Path) -> None:
    path = summed(tmp_path / "a.fits", kind)
    opened(path)
    packed = tmp_path / "a.fits.bz2"
    packed.write_bytes(bz2.compress(path.read_bytes()))
    opened(packed)


@pytest.mark.parametrize("kind", [fits.PrimaryHDU, fits.ImageHDU])
def test_pixels_that_were_changed_are_refused(kind: type, tmp_path: Path) -> None:
    path = summed(tmp_path / "a.fits", kind)
    content = bytearray(path.read_bytes())
    content[-2900:-2896] = np.array([2500.0], ">f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(FieldError, match=r"do not fit its DATASUM .*--ignore-checksum"):
        opened(path)
    opened(path, check_sums=False)


@pytest.mark.parametrize("stated", ["", "unknown", "0x12"])
def test_a_sum_that_is_no_number_says_nothing(stated: str, tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(PIXELS)
    hdu.header["DATASUM"] = stated
    hdu.writeto(tmp_path / "a.fits")
    opened(tmp_path / "a.fits")
