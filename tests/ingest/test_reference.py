"""How images are named."""

from __future__ import annotations

import pytest

from deblend_batch.ingest.reference import ImageRef, parse_hdu, parse_image, parse_plane

IMAGE = ImageRef("s3://a/tile.fits", "SCI")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tile.fits", ImageRef("tile.fits")),
        ("tile.fits[SCI]", ImageRef("tile.fits", "SCI")),
        ("tile.fits[SCI,2]", ImageRef("tile.fits", "SCI,2")),
        ("s3://a/tile.fits.fz[1]", ImageRef("s3://a/tile.fits.fz", 1)),
        ("odd[name].fits", ImageRef("odd[name].fits")),
    ],
)
def test_images(text: str, expected: ImageRef) -> None:
    assert parse_image(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RMS", ImageRef(IMAGE.url, "RMS")),
        ("3", ImageRef(IMAGE.url, 3)),
        (3, ImageRef(IMAGE.url, 3)),
        ("RMS,2", ImageRef(IMAGE.url, "RMS,2")),
        ("rms.fits", ImageRef("rms.fits")),
        ("RMS.FITS.GZ", ImageRef("RMS.FITS.GZ")),
        ("rms.fits[2]", ImageRef("rms.fits", 2)),
        ("./rms", ImageRef("./rms")),
        ("s3://b/rms.fz[1]", ImageRef("s3://b/rms.fz", 1)),
    ],
)
def test_planes(text: str | int, expected: ImageRef) -> None:
    assert parse_plane(text, IMAGE) == expected


@pytest.mark.parametrize(("text", "expected"), [("0", 0), (2, 2), ("SCI", "SCI"), ("1b", "1b")])
def test_hdus(text: str | int, expected: str | int) -> None:
    assert parse_hdu(text) == expected
