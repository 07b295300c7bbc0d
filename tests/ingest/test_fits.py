"""FITS images by windows."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import DamagedFileError, FieldError, NotFoundError
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.reference import ImageRef
from tests.ingest.fits_files import celestial_header, noise_image, write_extensions, write_image

WINDOW = slice(37, 81), slice(5, 111)


def read(ref: ImageRef, rows: slice = WINDOW[0], columns: slice = WINDOW[1]) -> np.ndarray:
    with open_files() as files:
        return files.plane(ref).read(rows, columns)


def plain(path: Path, data: np.ndarray) -> ImageRef:
    return ImageRef(write_image(path / "a.fits", data))


def zipped(path: Path, data: np.ndarray) -> ImageRef:
    write_image(path / "a.fits", data)
    (path / "a.fits.gz").write_bytes(gzip.compress((path / "a.fits").read_bytes()))
    return ImageRef(str(path / "a.fits.gz"))


def compressed(path: Path, data: np.ndarray, **options: Any) -> ImageRef:
    hdu = fits.CompImageHDU(data, celestial_header(), **options)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path / "a.fits.fz")
    return ImageRef(str(path / "a.fits.fz"))


def tiled(path: Path, data: np.ndarray) -> ImageRef:
    return compressed(path, data, compression_type="GZIP_2", quantize_level=0, tile_shape=(32, 48))


def rows_compressed(path: Path, data: np.ndarray) -> ImageRef:
    return compressed(path, data, compression_type="GZIP_1", quantize_level=0)


def extension(path: Path, data: np.ndarray) -> ImageRef:
    return ImageRef(write_extensions(path / "a.fits", SCI=(data, {})), "SCI")


def in_memory(path: Path, data: np.ndarray) -> ImageRef:
    write_image(path / "a.fits", data)
    url = f"memory://{path.name}/a.fits"
    with fsspec.open(url, "wb") as file:
        file.write((path / "a.fits").read_bytes())
    return ImageRef(url)


def with_leading_axes(path: Path, data: np.ndarray) -> ImageRef:
    return plain(path, data[None, None])


@pytest.mark.parametrize(
    "write",
    [plain, zipped, tiled, rows_compressed, extension, in_memory, with_leading_axes],
    ids=lambda function: function.__name__,
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint16"])
def test_a_window_is_the_window_of_the_whole(
    write: Callable[[Path, np.ndarray], ImageRef], dtype: str, tmp_path: Path
) -> None:
    data = (noise_image((120, 130), sigma=50.0) + 300).astype(dtype)
    window = read(write(tmp_path, data))
    assert window.dtype == np.float32
    assert window.flags.c_contiguous
    np.testing.assert_array_equal(window, data[WINDOW].astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(-32768, 32767), min_size=12, max_size=12),
    scale=st.floats(1e-3, 1e3),
    zero=st.floats(-1e4, 1e4),
    blank=st.none() | st.integers(-32768, 32767),
)
def test_scaled_integers_are_as_astropy_reads_them_whole(
    values: list[int], scale: float, zero: float, blank: int | None
) -> None:
    hdu = fits.PrimaryHDU(np.array(values, np.int16).reshape(3, 4))
    hdu.header["BSCALE"], hdu.header["BZERO"] = scale, zero
    if blank is not None:
        hdu.header["BLANK"] = blank
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.fits")
        path.write_bytes(
            hdu.header.tostring().encode() + hdu.data.astype(">i2").tobytes().ljust(2880)
        )
        whole = fits.getdata(path).astype(np.float32)
        window = read(ImageRef(str(path)), slice(1, 3), slice(0, 3))
    # Astropy computes in float32.
    np.testing.assert_allclose(window, whole[1:3, :3], rtol=4e-7, atol=4e-7 * abs(zero))
    if blank is not None:
        expected = np.array(values).reshape(3, 4)[1:3, :3] == blank
        np.testing.assert_array_equal(np.isnan(window), expected)


def test_nan_stays_nan(tmp_path: Path) -> None:
    data = noise_image((120, 130))
    data[40, 10], data[41, 11] = np.nan, np.inf
    window = read(rows_compressed(tmp_path, data))
    np.testing.assert_array_equal(window, data[WINDOW])


@pytest.fixture
def several(tmp_path: Path) -> str:
    image = noise_image((30, 40))
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=np.arange(3))], name="CAT")
    hdus = [
        fits.PrimaryHDU(header=celestial_header(filter="r")),
        fits.ImageHDU(image + 1, name="ERR"),
        fits.ImageHDU(image + 2, name="SCI"),
        fits.ImageHDU(image + 3, name="SCI", ver=2),
        fits.ImageHDU(np.zeros((2, 3, 4), np.float32), name="CUBE"),
        table,
    ]
    fits.HDUList(hdus).writeto(tmp_path / "several.fits")
    return str(tmp_path / "several.fits")


@pytest.mark.parametrize(
    ("hdu", "offset", "label"),
    [
        ("SCI", 2, "[SCI]"),
        ("sci", 2, "[sci]"),
        ("SCI,2", 3, "[SCI,2]"),
        (1, 1, "[1]"),
        ("ERR", 1, "[ERR]"),
    ],
)
def test_hdus_are_found(several: str, hdu: str | int | None, offset: int, label: str) -> None:
    with open_files() as files:
        plane = files.plane(ImageRef(several, hdu))
        assert plane.label == several + label
        assert plane.shape_yx == (30, 40)
        assert plane.headers[1]["FILTER"] == "r"
        window = plane.read(slice(0, 30), slice(0, 40))
    np.testing.assert_allclose(window, noise_image((30, 40)) + offset, rtol=1e-6)


@pytest.mark.parametrize(
    ("hdu", "message"),
    [
        ("WHT", "has no HDU 'WHT'; it has 0 PRIMARY .no data., 1 ERR .30 x 40."),
        (9, "has no HDU 9"),
        (0, r"\[0\]: is not a 2-d image"),
        ("CUBE", r"\[CUBE\]: is not a 2-d image; .* 4 CUBE .2 x 3 x 4., 5 CAT .table."),
        ("CAT", r"\[CAT\]: is not a 2-d image"),
        ("SCI,3", "has no HDU 'SCI,3'"),
    ],
)
def test_other_hdus_are_listed(several: str, hdu: str | int, message: str) -> None:
    with open_files() as files, pytest.raises(FieldError, match=message):
        files.plane(ImageRef(several, hdu))


def test_without_a_known_name_the_first_image_counts(tmp_path: Path) -> None:
    image = noise_image((30, 40))
    url = write_extensions(tmp_path / "a.fits", VIS_FLUX=(image, {}), VIS_RMS=(image + 1, {}))
    np.testing.assert_array_equal(read(ImageRef(url), slice(0, 30), slice(0, 40)), image)


@settings(max_examples=20)
@given(
    names=st.permutations(["VIS_FLUX", "WHT", "rms_r", "EXPTIME", "MASK2", "SEGMENTATION", "ctx"]),
    known=st.sampled_from([None, "SCI", "Image"]),
)
def test_the_image_is_the_one_that_is_called_so_or_is_no_plane(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], known: str | None
) -> None:
    path = tmp_path_factory.mktemp("fits") / "a.fits"
    wanted = known or "VIS_FLUX"
    every = [*names, *([] if known is None else [known])]
    values = {name: np.full((3, 4), name == wanted, np.float32) for name in every}
    url = write_extensions(path, **{name: (pixels, {}) for name, pixels in values.items()})
    assert (read(ImageRef(url), slice(0, 3), slice(0, 4)) == 1).all()


@pytest.mark.parametrize("names", [("SCI", "SCI"), ("g", "r"), ("CCD1", "MASK", "CCD2")])
def test_of_several_images_nobody_guesses_one(names: tuple[str, ...], tmp_path: Path) -> None:
    pixels = np.zeros((3, 4), np.float32)
    hdus = [fits.ImageHDU(pixels, name=name) for name in names]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    ref = ImageRef(f"{tmp_path}/a.fits")
    with open_files() as files:
        with pytest.raises(
            FieldError, match=rf"holds several images \(1 {names[0].upper()} .*; give --hdu"
        ):
            files.plane(ref)
        assert files.plane(ImageRef(ref.url, len(names))).shape_yx == (3, 4)


def test_a_primary_image_counts_before_others_without_a_known_name(tmp_path: Path) -> None:
    hdus = [fits.ImageHDU(np.zeros((3, 4)), name=name) for name in ("g", "r")]
    fits.HDUList([fits.PrimaryHDU(np.ones((3, 4))), *hdus]).writeto(tmp_path / "a.fits")
    assert (read(ImageRef(f"{tmp_path}/a.fits"), slice(0, 3), slice(0, 4)) == 1).all()


def _no_fits(path: Path) -> None:
    path.write_bytes(b"hello world" * 1000)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _cut_data(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def _cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes())[:-5000])


def _damaged_gzip(path: Path) -> None:
    content = bytearray(gzip.compress(path.read_bytes()))
    content[5000:5100] = b"\xff" * 100
    path.write_bytes(content)


def _no_image(path: Path) -> None:
    path.unlink()
    fits.PrimaryHDU().writeto(path)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_no_fits, FieldError, "not a FITS file"),
        (_empty, FieldError, "is empty; fetch it again"),
        (_cut_header, FieldError, "not a FITS file, or its first header is damaged"),
        (_cut_data, FieldError, "truncated: its data end at byte .* fetch it again"),
        (_cut_gzip, DamagedFileError, "the gzip stream is truncated"),
        (_damaged_gzip, DamagedFileError, "the gzip stream is damaged"),
        (_no_image, FieldError, r"holds no 2-d image; it has 0 PRIMARY \(no data\)"),
        (Path.unlink, NotFoundError, "no such file or object"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_cannot_be_read_is_one_line(
    spoil: Callable[[Path], None], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = Path(write_image(tmp_path / "a.fits", noise_image((100, 100))))
    spoil(path)
    with open_files() as files, pytest.raises(error, match=message) as caught:
        files.plane(ImageRef(str(path)))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_damage_inside_compressed_data_says_where(tmp_path: Path) -> None:
    ref = compressed(tmp_path, noise_image((200, 200)), compression_type="GZIP_2", quantize_level=0)
    path = Path(ref.url)
    content = bytearray(path.read_bytes())
    content[-40000:-20000] = b"\xff" * 20000
    path.write_bytes(content)
    with (
        open_files() as files,
        pytest.raises(FieldError, match=r"cannot decode rows 0:200 .*damaged"),
    ):
        files.plane(ref).read(slice(0, 200), slice(0, 200))


def test_each_file_is_opened_once(several: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from deblend_batch import storage

    opened: list[str] = []
    real = storage.open_read

    def recording(url: str, options: Any = None) -> Any:
        opened.append(url)
        return real(url, options)

    monkeypatch.setattr(storage, "open_read", recording)
    with open_files() as files:
        for hdu in ("SCI", "ERR", "SCI,2"):
            files.plane(ImageRef(several, hdu))
    assert opened == [several]
