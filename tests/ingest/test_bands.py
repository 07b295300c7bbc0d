"""A band's planes and windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.ingest.bands import Band, open_bands
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.given import GivenBand
from deblend_batch.ingest.header.headers import Found
from deblend_batch.ingest.sources import BandSource, list_sources
from tests.ingest.fits_files import noise_image, write_extensions, write_image

SHAPE = (1100, 60)


def opened(files: Any, sources: list[BandSource], **options: Any) -> list[Band]:
    nothing = [None] * len(sources)
    names, zero_points, widths = (
        options.get(key, default)
        for key, default in (
            ("names", nothing),
            ("zero_points", [25.0] * len(sources)),
            ("fwhm", nothing),
        )
    )
    given = [GivenBand(*each) for each in zip(sources, names, zero_points, widths, strict=True)]
    return open_bands(files, given)


@pytest.mark.parametrize("rows", [slice(0, 1100), slice(500, 530), slice(1000, 1100)])
def test_a_window_joins_image_noise_and_mask(rows: slice, tmp_path: Path) -> None:
    image, rms = noise_image(SHAPE), np.full(SHAPE, 2.0, np.float32)
    rms[505, 7] = 0
    mask = np.zeros(SHAPE, np.int32)
    mask[510, 8] = 1 << 20
    image[515, 9] = np.nan
    url = write_extensions(tmp_path / "a.fits", SCI=(image, {}), RMS=(rms, {}), DQ=(mask, {}))
    sources = list_sources([url], (), {"rms": ["RMS"]}, ["DQ"])
    with open_files() as files:
        window = opened(files, sources)[0].read(rows, slice(5, 45))
    bad = np.zeros(SHAPE, bool)
    bad[505, 7] = bad[510, 8] = True
    assert window.variance is not None
    assert window.bad is not None
    np.testing.assert_array_equal(window.image, image[rows, 5:45])
    np.testing.assert_array_equal(window.bad, bad[rows, 5:45])
    assert np.nanmin(window.variance) == np.nanmax(window.variance) == 4.0
    good = np.isfinite(window.good_pixels())
    assert window.count_bad() == (~good).sum() == (3 if rows.stop > 515 and rows.start < 505 else 0)


def test_headers_fill_what_options_leave_out(tmp_path: Path) -> None:
    url = write_image(
        tmp_path / "a.fits", noise_image((30, 40)), magzero=24.6, filter="VIS", psf_fwhm=0.2
    )
    with open_files() as files:
        (band,) = opened(files, list_sources([url], (), {}, ()), zero_points=[None])
        (set_by_hand,) = opened(
            files, list_sources([url], (), {}, ()), names=["r"], zero_points=[0.0], fwhm=[0.5]
        )
    assert (band.name, band.zero_point) == ("VIS", Found(24.6, "MAGZERO"))
    assert band.psf_fwhm_arcsec == Found(0.2, "PSF_FWHM")
    assert (set_by_hand.name, set_by_hand.zero_point) == ("r", Found(0.0, "option"))
    assert set_by_hand.psf_fwhm_arcsec == Found(0.5, "option")


def test_without_a_filter_the_file_names_the_band(tmp_path: Path) -> None:
    url = write_image(tmp_path / "kids r.fits", noise_image((30, 40)))
    with open_files() as files:
        assert opened(files, list_sources([url], (), {}, ()))[0].name == "kids_r"


def test_no_zero_point_says_how_to_give_one(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", noise_image((30, 40)))
    with open_files() as files, pytest.raises(FieldError, match=r"no zero point .* --zero-point"):
        opened(files, list_sources([url], (), {}, ()), zero_points=[None])


@pytest.mark.parametrize(
    ("shape", "cards", "message"),
    [
        ((30, 41), {}, r"has \(30, 41\) rows and columns, .*a\.fits.* has \(30, 40\)"),
        ((30, 40), {"crpix1": 301.0}, r"its WCS is 0\.5 px off .*resample"),
        ((30, 40), {"crval1": 30.0}, r"its WCS is .* px off"),
    ],
)
def test_bands_on_other_grids_are_refused(
    shape: tuple[int, int], cards: dict[str, Any], message: str, tmp_path: Path
) -> None:
    urls = [
        write_image(tmp_path / "a.fits", noise_image((30, 40)), filter="g"),
        write_image(tmp_path / "b.fits", noise_image(shape), filter="r", **cards),
    ]
    with open_files() as files, pytest.raises(FieldError, match=message):
        opened(files, list_sources(urls, (), {}, ()))


def test_bands_of_one_name_are_refused(tmp_path: Path) -> None:
    image = noise_image((30, 40))
    url = write_extensions(
        tmp_path / "a.fits", A=(image, {"filter": "H"}), B=(image, {"filter": "H"})
    )
    sources = list_sources([url], ["A", "B"], {}, ())
    with (
        open_files() as files,
        pytest.raises(ConfigError, match="'H, H'; name each with --band"),
    ):
        opened(files, sources)


def test_a_noise_plane_of_another_shape_is_refused(tmp_path: Path) -> None:
    url = write_extensions(
        tmp_path / "a.fits", SCI=(noise_image((30, 40)), {}), RMS=(noise_image((30, 39)), {})
    )
    with open_files() as files, pytest.raises(FieldError, match=r"RMS\]: has \(30, 39\) rows"):
        opened(files, list_sources([url], (), {"rms": ["RMS"]}, ()))
