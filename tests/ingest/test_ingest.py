"""FITS to field."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
import zarr.storage
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import (
    ConfigError,
    FieldError,
    NotFoundError,
    OutputConflictError,
    StorageError,
)
from deblend_batch.field.layout import Field
from deblend_batch.ingest.ingest import ingest, shard_windows
from tests.ingest.fits_files import (
    add_gaussians,
    grid_positions,
    noise_image,
    write_extensions,
    write_image,
)
from tests.ingest.stars import star_field

SHAPE = (300, 320)
GIVEN: dict[str, Any] = {"zero_points": [25.0], "psf_fwhm_arcsec": [0.4]}


def whole(field: Field, band: int = 0, member: Any = "image") -> np.ndarray:
    return field.plane(band, slice(0, field.shape_yx[0]), slice(0, field.shape_yx[1]), member)


@pytest.mark.parametrize("shape", [SHAPE, (5000, 300), (40, 4500)])
def test_pixels_and_positions_come_through(shape: tuple[int, int], tmp_path: Path) -> None:
    image = noise_image(shape)
    image[7, 9] = np.nan
    url = write_image(tmp_path / "a.fits", image, filter="r")
    summary = ingest([url], f"{tmp_path}/a.zarr", **GIVEN)
    field = Field.open(f"{tmp_path}/a.zarr")
    np.testing.assert_array_equal(whole(field), image)
    np.testing.assert_allclose(field.pixel_to_world(np.array([(249.5, 299.5)])), [(150.0, 2.0)])
    assert (field.meta.name, field.meta.bands, field.meta.zero_point) == ("a", ("r",), (25.0,))
    assert field.meta.noise_sigma == pytest.approx((1.0,), rel=0.05)
    assert (field.variance, field.mask) == (None, None)
    assert summary.bad_fraction == pytest.approx(1 / image.size)
    assert json.loads(json.dumps(summary.to_json()))["bands"][0]["zero_point"]["source"] == "option"
    assert ("band r", summary.bands[0].describe()) in summary.to_rows()


def test_bands_of_one_file_with_their_noise_planes(tmp_path: Path) -> None:
    planes: dict[str, Any] = {}
    for number, name in enumerate(("NIR_Y", "NIR_J"), start=1):
        planes[f"{name}_FLUX"] = (
            noise_image(SHAPE, seed=number),
            {"filter": name, "magzero": 29.0 + number},
        )
        planes[f"{name}_PSF"] = (np.ones((21, 21), np.float32), {})
        planes[f"{name}_RMS"] = (np.full(SHAPE, number, np.float32), {})
    url = write_extensions(tmp_path / "euclid.fits", **planes)
    ingest(
        [url],
        f"{tmp_path}/a.zarr",
        hdu=["NIR_Y_FLUX", "NIR_J_FLUX"],
        rms_hdu=["NIR_Y_RMS", "6"],
        psf_fwhm_arcsec=[0.4, 0.5],
    )
    field = Field.open(f"{tmp_path}/a.zarr")
    assert field.meta.bands == ("NIR_Y", "NIR_J")
    assert field.meta.zero_point == (30.0, 31.0)
    assert field.meta.psf_fwhm_arcsec == (0.4, 0.5)
    assert field.meta.noise_sigma is None
    for band in range(2):
        np.testing.assert_array_equal(whole(field, band), noise_image(SHAPE, seed=band + 1))
        assert (whole(field, band, "variance") == (band + 1) ** 2).all()
        assert (whole(field, band, "mask") == 0).all()


def test_bands_of_several_files_share_a_mask(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[100:110, 50:60] = 4
    urls = [
        write_image(tmp_path / f"{band}.fits", noise_image(SHAPE, seed=number))
        for number, band in enumerate("gri")
    ]
    bad = write_image(tmp_path / "bad.fits", mask)
    ingest(urls, f"{tmp_path}/a.zarr", mask_hdu=[bad], bands=list("gri"), **GIVEN)
    field = Field.open(f"{tmp_path}/a.zarr")
    assert field.meta.bands == ("g", "r", "i")
    for band in range(3):
        np.testing.assert_array_equal(whole(field, band, "mask"), mask > 0)
        np.testing.assert_array_equal(whole(field, band), noise_image(SHAPE, seed=band))


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_remote_images_and_fields(scheme: str, tmp_path: Path) -> None:
    path = Path(write_image(tmp_path / "a.fits", noise_image(SHAPE)))
    root = f"memory://{tmp_path.name}" if scheme == "memory" else f"file://{tmp_path}/remote"
    with fsspec.open(f"{root}/a.fits", "wb", auto_mkdir=True) as file:
        file.write(path.read_bytes())
    ingest([f"{root}/a.fits"], f"{root}/a.zarr", **GIVEN)
    np.testing.assert_array_equal(whole(Field.open(f"{root}/a.zarr")), noise_image(SHAPE))


@pytest.mark.parametrize(
    ("background", "level", "subtracted"),
    [("auto", 0.0, False), ("auto", 50.0, True), ("keep", 50.0, False), ("subtract", 0.0, True)],
)
def test_the_background(background: Any, level: float, subtracted: bool, tmp_path: Path) -> None:
    image = add_gaussians(noise_image(SHAPE, level=level), grid_positions(SHAPE, 60), 500.0, 4.0)
    url = write_image(tmp_path / "a.fits", image)
    summary = ingest([url], f"{tmp_path}/a.zarr", background=background, **GIVEN)
    (band,) = summary.bands
    assert band.background == pytest.approx(level, abs=0.1)
    assert band.background_subtracted is subtracted
    stored = whole(Field.open(f"{tmp_path}/a.zarr"))
    assert np.median(stored) == pytest.approx(0 if subtracted else level, abs=0.1)
    if not subtracted:
        np.testing.assert_array_equal(stored, image)


def test_the_psf_is_measured_from_stars(tmp_path: Path) -> None:
    shape = (600, 600)
    yx = grid_positions(shape, 50)
    flux = np.random.default_rng(1).uniform(2000, 60000, len(yx))
    image = add_gaussians(noise_image(shape), yx, flux, 3.0)
    url = write_image(tmp_path / "a.fits", image)
    (band,) = ingest([url], f"{tmp_path}/a.zarr", zero_points=[25.0]).bands
    assert band.psf_fwhm_arcsec.value == pytest.approx(0.3, rel=0.03)
    assert band.psf_fwhm_arcsec.source.startswith("measured from ")


def test_what_varies_and_what_saturates_goes_into_the_field(tmp_path: Path) -> None:
    image = star_field(3.5, 0.2, 200) + np.float32(50)
    url = write_image(tmp_path / "a.fits", image, saturate=40050.0)
    summary = ingest([url], f"{tmp_path}/a.zarr", zero_points=[25.0])
    field = Field.open(f"{tmp_path}/a.zarr")
    assert field.meta.saturate == pytest.approx((4e4,), rel=1e-4)
    # What the wings of so many bright stars leave between them counts as noise, too.
    assert field.meta.noise_correlation == pytest.approx((1.05,), abs=0.1)
    assert field.psf.kernels is not None
    left, right = field.psf.fwhm_at(np.array([[550.0, 50.0], [550.0, 1050.0]]))[:, 0]
    assert right / left == pytest.approx(1.14, abs=0.05)
    assert field.psf.kernels.images.sum(axis=(3, 4)) == pytest.approx(1, abs=1e-4)
    (band,) = summary.bands
    text = band.describe()
    assert re.search(r"kernels in \d x \d cells from \d+ stars \(0\.3\d* to 0\.3\d*\)", text)
    assert re.search(r"noise (0\.9|1)(\d*|\.\d+) \(sums (0\.9|1\.[01])\d\)", text)
    assert text.endswith("saturated from 40000 (SATURATE)")
    provenance = zarr.open_group(field.url).attrs["provenance"]
    assert provenance == json.loads(json.dumps(summary.to_json()["bands"]))


def test_a_psf_that_is_given_is_not_measured(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", star_field(3.5, 0.0, 60))
    (band,) = ingest([url], f"{tmp_path}/a.zarr", **GIVEN).bands
    field = Field.open(f"{tmp_path}/a.zarr")
    assert band.psf is None
    assert field.psf.kernels is None
    assert field.psf.fwhm_arcsec.tolist() == [[[np.float32(0.4)]]]
    assert field.meta.saturate is None


@pytest.mark.parametrize(("said_arcsec", "believed"), [(0.36, True), (0.2, False)])
def test_stars_that_a_header_speaks_against_are_none(
    said_arcsec: float, believed: bool, tmp_path: Path
) -> None:
    """What is much wider than the header's PSF are small galaxies."""
    url = write_image(tmp_path / "a.fits", star_field(3.5, 0.0, 60), seeing=said_arcsec)
    (band,) = ingest([url], f"{tmp_path}/a.zarr", zero_points=[25.0]).bands
    assert band.psf_fwhm_arcsec.value == said_arcsec
    assert (band.psf is not None) is believed


def test_without_stars_the_psf_must_be_given(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE))
    with pytest.raises(FieldError, match=r"fewer than 5 stars .* give --psf-fwhm ARCSEC"):
        ingest([url], f"{tmp_path}/a.zarr", zero_points=[25.0])
    assert not (tmp_path / "a.zarr").exists()


def test_a_rim_of_zeros_is_masked(tmp_path: Path) -> None:
    image = noise_image(SHAPE)
    image[:, :40] = 0
    summary = ingest([write_image(tmp_path / "a.fits", image)], f"{tmp_path}/a.zarr", **GIVEN)
    mask = whole(Field.open(f"{tmp_path}/a.zarr"), 0, "mask")
    np.testing.assert_array_equal(mask == 1, image == 0)
    assert summary.bad_fraction == pytest.approx(40 / 320)


@pytest.mark.parametrize(("factor", "zero_point"), [(1.0, 25.0), (1e-24, -35.0)])
def test_numbers_that_stand_for_no_data_are_none(
    factor: float, zero_point: float, tmp_path: Path
) -> None:
    image = noise_image(SHAPE).astype(np.float64) * factor
    image[:50, :60] = -999.0
    url = write_image(tmp_path / "i.fits", image, MAGZERO=zero_point, PSF_FWHM=0.4)
    found = ingest([url], f"{tmp_path}/f.zarr")
    assert "pixels of -999 are no data" in found.bands[0].notes
    pixels = np.asarray(Field.open(f"{tmp_path}/f.zarr").image[0])
    assert np.isnan(pixels[:50, :60]).all()
    assert np.isnan(pixels).sum() == 3000


def test_a_zero_point_of_other_pixels_is_refused(tmp_path: Path) -> None:
    url = write_image(tmp_path / "i.fits", 1e-24 * noise_image(SHAPE).astype(np.float64))
    with pytest.raises(
        FieldError, match=r"zero point of 25 .* noise is near 8e-25; give --zero-point"
    ):
        ingest([url], f"{tmp_path}/f.zarr", zero_points=[25.0], psf_fwhm_arcsec=[0.4])
    assert not (tmp_path / "f.zarr").exists()


def test_an_image_without_noise_has_no_noise_attribute(tmp_path: Path) -> None:
    image = add_gaussians(np.zeros(SHAPE, np.float32), np.array([[150.0, 150.0]]), 1e4, 4.0)
    ingest([write_image(tmp_path / "a.fits", image)], f"{tmp_path}/a.zarr", **GIVEN)
    field = Field.open(f"{tmp_path}/a.zarr")
    assert field.mask is None
    np.testing.assert_array_equal(whole(field), image)


def test_the_noise_plane_is_compared_with_the_pixels(tmp_path: Path) -> None:
    url = write_extensions(
        tmp_path / "a.fits",
        SCI=(noise_image(SHAPE), {}),
        WHT=(np.full(SHAPE, 0.25, np.float32), {}),
    )
    (band,) = ingest([url], f"{tmp_path}/a.zarr", weight_hdu=["WHT"], **GIVEN).bands
    assert band.plane_sigma == pytest.approx(2.0)
    assert band.noise_sigma == pytest.approx(1.0, rel=0.05)


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    url = write_image(tmp_path / "a.fits", noise_image((600, 300)))
    ingest([url], f"{tmp_path}/a.zarr", progress=lambda *step: told.append(step), **GIVEN)
    assert told == [("measuring", 1, 2), ("measuring", 2, 2), ("writing", 1, 1)]


def test_a_field_is_replaced_only_when_asked(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE))
    ingest([url], f"{tmp_path}/a.zarr", **GIVEN)
    with pytest.raises(OutputConflictError, match="exists already"):
        ingest([url], f"{tmp_path}/a.zarr", **GIVEN)
    ingest([url], f"{tmp_path}/a.zarr", overwrite=True, name="b", **GIVEN)
    assert Field.open(f"{tmp_path}/a.zarr").meta.name == "b"


def test_a_field_is_never_written_over_its_image(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE))
    with pytest.raises(OutputConflictError, match=r"field: .* is .*a\.fits, which is read; give"):
        ingest([url], url, overwrite=True, **GIVEN)
    assert Path(url).stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_points": [25.0, 26.0]}, "--zero-point: 2 values for 1 bands"),
        ({"bands": ["g", "r"]}, "--band: 2 values for 1 bands"),
        ({"background": "guess"}, "background: 'guess' is none of auto, keep, subtract"),
        ({"rms_hdu": ["R"], "variance_hdu": ["V"]}, "exclude each other"),
    ],
)
def test_contradicting_options_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE))
    with pytest.raises(ConfigError, match=message):
        ingest([url], f"{tmp_path}/a.zarr", **{**GIVEN, **options})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"PK\x03\x04" + bytes(5000), "is a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(5000), "is HDF5, not FITS"),
        (b"<html>404</html>", "is a web page"),
        (b"nothing that is known" * 500, "not a FITS file"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.fits").write_bytes(content)
    with pytest.raises(FieldError, match=message):
        ingest([f"{tmp_path}/a.fits"], f"{tmp_path}/a.zarr")


def test_an_image_without_a_celestial_wcs_is_the_users_mistake(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE), ctype1="LINEAR", ctype2="LINEAR")
    with pytest.raises(FieldError, match="no celestial WCS in its header") as caught:
        ingest([url], f"{tmp_path}/a.zarr", **GIVEN)
    assert caught.value.exit_code == 2


def test_an_image_without_good_pixels_is_refused(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(FieldError, match="hardly a good pixel in it"):
        ingest([url], f"{tmp_path}/a.zarr", **GIVEN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"psf_fwhm_arcsec": [-1.0]}, "--psf-fwhm must be positive, not -1"),
        ({"psf_fwhm_arcsec": [0.0]}, "--psf-fwhm must be positive, not 0"),
        ({"psf_fwhm_arcsec": [np.inf]}, "--psf-fwhm must be a finite number, not inf"),
        ({"zero_points": [np.nan]}, "--zero-point must be a finite number, not nan"),
    ],
)
def test_numbers_out_of_range_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE))
    with pytest.raises(ConfigError, match=f"^{message}$"):
        ingest([url], f"{tmp_path}/a.zarr", **{**GIVEN, **changes})


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "/proc/x",
            "field: /proc/x is in /proc, which holds the system itself .*; give another path",
        ),
        ("{}/file/x", ".*/file/x: .*/file is a file; write to another path"),
        ("{}/file/x/y", ".*/file/x/y: nothing can be created here; write to another path"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_known_before_a_pixel_is_read(
    field: str, message: str, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    url = write_image(tmp_path / "a.fits", noise_image(SHAPE))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((StorageError, OutputConflictError), match=f"^{message}$"):
        ingest([url], field.format(tmp_path), **GIVEN, progress=fail)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.fits: no such file"):
        ingest([f"{tmp_path}/none.fits"], f"{tmp_path}/a.zarr", **GIVEN)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the file system is read-only; write to another path"),
    ],
)
def test_a_store_that_refuses_leaves_no_readable_field(
    code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE))
    real = zarr.storage.LocalStore.set

    async def refusing(self: Any, key: str, value: Any, **more: Any) -> None:
        if "/c/" in key:
            raise OSError(code, "Read-only file system")
        await real(self, key, value, **more)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", refusing)
    with pytest.raises(StorageError, match=f"{tmp_path}/a.zarr: .*{message}"):
        ingest([url], f"{tmp_path}/a.zarr", **GIVEN)
    with pytest.raises(FieldError, match="never finished"):
        Field.open(f"{tmp_path}/a.zarr")
    monkeypatch.undo()
    ingest([url], f"{tmp_path}/a.zarr", **GIVEN)
    np.testing.assert_array_equal(whole(Field.open(f"{tmp_path}/a.zarr")), noise_image(SHAPE))


@given(height=st.integers(1, 20000), width=st.integers(1, 20000), local=st.booleans())
def test_shard_windows_tile_the_image(height: int, width: int, local: bool) -> None:
    windows = list(shard_windows((height, width), local=local))
    area = sum((r.stop - r.start) * (c.stop - c.start) for r, c in windows)
    assert area == height * width
    assert all(r.start % 4096 == 0 and c.start % 4096 == 0 for r, c in windows)
    assert all(r.stop % 4096 == 0 or r.stop == height for r, _ in windows)
    assert all(c.stop % 4096 == 0 or c.stop == width for _, c in windows)
