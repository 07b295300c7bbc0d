"""What a FITS file's headers announce, checked before a library sees them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch import fits_structure as structure
from deblend_batch.errors import FieldError, TooLargeError
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.reference import ImageRef
from tests.ingest.fits_files import celestial_header, noise_image
from tests.ingest.hostile_files import (
    BLOCK,
    cards_block,
    extension,
    header_block,
    padded,
    primary,
)

PIXELS = np.arange(12, dtype=">f4").reshape(3, 4)


def opened(path: Path, content: bytes, hdu: str | int | None = None) -> np.ndarray:
    path.write_bytes(content)
    with open_files() as files:
        plane = files.plane(ImageRef(str(path), hdu))
        return plane.read(slice(0, plane.shape_yx[0]), slice(0, plane.shape_yx[1]))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (primary(NAXIS=10**9), FieldError, r"NAXIS is 1000000000, not an integer from 0 to 999"),
        (primary(NAXIS=-1), FieldError, "NAXIS is -1"),
        (primary(NAXIS=2.5), FieldError, r"NAXIS is 2\.5"),
        (primary(NAXIS="two"), FieldError, "NAXIS is 'two"),
        (primary(shape=(4, -3)), FieldError, "NAXIS2 is -3"),
        (primary(shape=(4, 3), NAXIS=3), FieldError, "NAXIS3 is missing"),
        (primary(7, (4, 3)), FieldError, "BITPIX is 7, none of 8"),
        (primary("-32", (4, 3)), FieldError, "BITPIX is"),
        (primary(-32, (4, 3), PCOUNT=-1), FieldError, "PCOUNT is -1"),
        (primary(-32, (4, 3), GCOUNT=1.5), FieldError, r"GCOUNT is 1\.5"),
        (primary(shape=(10**15, 10**15)), TooLargeError, "more bytes than any file can have"),
        (primary(shape=(2**62,) * 999), TooLargeError, "more bytes than any file can have"),
        (primary(8, (10**8, 10**7)), TooLargeError, "1,000,000,000,000,000 pixels.* too large"),
        (primary(8, (10**6, 10**6)), FieldError, "truncated: its data end at byte 1000000"),
        (header_block(SIMPLE=True, BITPIX=8), FieldError, "NAXIS is missing"),
        (primary(8, (0, 3), GROUPS=True), FieldError, r"no 2-d image; it has 0 .*random groups"),
        (header_block(SIMPLE=False, BITPIX=8, NAXIS=0), FieldError, "no 2-d image"),
        (cards_block(["SIMPLE  =  T"] * 72), FieldError, "before its END card"),
        (cards_block(["SIMPLE  =  T"] * 36100), TooLargeError, "no END card within 2,880,000"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_a_header_that_lies_is_one_line_at_once(
    content: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    started = time.process_time()
    with pytest.raises(error, match=message) as caught:
        opened(tmp_path / "a.fits", content)
    assert time.process_time() - started < 2
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "card", ["naxis1  = 9", "NAXIS1= 9", "HIERARCH NAXIS1 = 9", "HIERARCH naxis1= 9", "NAXIS1  = 9"]
)
def test_a_second_size_is_refused_however_it_is_written(card: str, tmp_path: Path) -> None:
    lines = [f"SIMPLE  = {'T':>20}", "BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 3"]
    content = cards_block([*lines, card, "END"]) + padded(PIXELS.tobytes())
    with pytest.raises(FieldError, match="NAXIS1 stands twice"):
        opened(tmp_path / "a.fits", content)


def test_a_header_without_end_on_a_huge_file_is_read_no_further_than_a_header_goes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.fits"
    with path.open("wb") as file:
        file.write(primary(-32, (4, 3))[:1600])
        file.truncate(1 << 35)
    with open_files() as files, pytest.raises(TooLargeError, match="no END card"):
        files.plane(ImageRef(str(path)))


def test_a_mosaic_of_40_gb_is_read_by_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    edge = 100_000
    head = primary(-32, (edge, edge))
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 4 * edge**2)
        file.seek(len(head) + 4 * (90_001 * edge + 50_002))
        file.write(np.array(7, ">f4").tobytes())
    with open_files() as files:
        window = files.plane(ImageRef(str(path))).read(slice(90_000, 90_004), slice(50_000, 50_005))
    assert window.sum() == window[1, 2] == 7


def many(count: int, last: bytes) -> bytes:
    tiny = extension("IMAGE", 8, (1, 1), EXTNAME="TINY") + padded(b"\1")
    return header_block(SIMPLE=True, BITPIX=8, NAXIS=0) + tiny * count + last


IMAGE = extension("IMAGE", -32, (4, 3), EXTNAME="SCI") + padded(PIXELS.tobytes())


def test_thousands_of_hdus_are_searched_in_a_moment(tmp_path: Path) -> None:
    started = time.process_time()
    np.testing.assert_array_equal(opened(tmp_path / "a.fits", many(4000, IMAGE), "SCI"), PIXELS)
    assert time.process_time() - started < 5


def test_hdus_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "MAX_HDUS", 50)
    content = many(60, IMAGE)
    with pytest.raises(TooLargeError, match="more than 50 HDUs; divide it"):
        opened(tmp_path / "a.fits", content, "SCI")
    np.testing.assert_array_equal(opened(tmp_path / "a.fits", content, 3), [[1]])


@pytest.mark.parametrize(
    "before",
    [
        extension("FOREIGN", 8, (5, 7)) + padded(bytes(35)),
        extension("IMAGE", 16, (0, 3)),
        extension("TABLE", 8, (5, 7), TFIELDS=0) + padded(bytes(35)),
        header_block(XTENSION="BINTABLE", BITPIX=8, NAXIS=0, PCOUNT=10**9, GCOUNT=1),
        extension("IMAGE", 8, (5, 7), EXTNAME="A", EXTVER="none") + padded(bytes(35)),
        extension("IMAGE", 8, (5, 7), EXTNAME="A/B", BLOCKED=True) + padded(bytes(35)),
    ],
    ids=["foreign", "empty", "table", "no axes", "version", "blocked"],
)
@pytest.mark.parametrize("behind", [b"", bytes(5000), b"junk" * 2000], ids=["", "zeros", "junk"])
def test_what_stands_beside_an_image_is_passed_over(
    before: bytes, behind: bytes, tmp_path: Path
) -> None:
    content = header_block(SIMPLE=True, BITPIX=8, NAXIS=0) + before + IMAGE + behind
    np.testing.assert_array_equal(opened(tmp_path / "a.fits", content, "SCI"), PIXELS)
    listed = r"has no HDU 'X'; it has 0 PRIMARY \(no data\), 1 .*, 2 SCI \(3 x 4\)$"
    with pytest.raises(FieldError, match=listed):
        opened(tmp_path / "a.fits", content, "X")


def test_a_broken_header_behind_an_image_does_not_cost_the_image(tmp_path: Path) -> None:
    content = (
        header_block(SIMPLE=True, BITPIX=8, NAXIS=0) + IMAGE + extension("IMAGE", 8, (2,))[:99]
    )
    np.testing.assert_array_equal(opened(tmp_path / "a.fits", content, 1), PIXELS)
    with pytest.raises(FieldError, match=r"a\.fits\[2\]: its header is damaged \(the file ends"):
        opened(tmp_path / "a.fits", content, "X")


def test_cards_of_megabytes_are_read_in_a_moment(tmp_path: Path) -> None:
    text = "'" + "x" * 60 + "&'"
    long = ["LONG    = " + text, *["CONTINUE  " + text] * 5_000]
    keys = [f"HIERARCH ESO A{n} = {n}" for n in range(3_000)]
    lines = ["SIMPLE  =  T", "BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 3"]
    content = cards_block([*lines, *long, *keys, "FILTER  = 'r'", "FLAWED  = 'r", "END"])
    (tmp_path / "a.fits").write_bytes(content + padded(PIXELS.tobytes()))
    started = time.process_time()
    with open_files() as files:
        header = files.plane(ImageRef(str(tmp_path / "a.fits"))).headers[0]
    assert time.process_time() - started < 20
    assert header["FILTER"] == "r"
    assert header["ESO A2999"] == 2999


def test_an_hdu_costs_one_read_of_its_header_wherever_it_is() -> None:
    class Counting(io.BytesIO):
        fetched = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.fetched += len(data)
            return data

    far = extension("IMAGE", 8, (10**6,)) + padded(bytes(10**6))
    file = Counting(header_block(SIMPLE=True, BITPIX=8, NAXIS=0) + 5 * far)
    assert len(list(structure.walk(file, "a.fits"))) == 6
    assert file.fetched == 6 * BLOCK


def spoilt(content: bytes, places: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, byte in places:
        changed[place % len(changed)] = byte
    return bytes(changed)


@settings(max_examples=300, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6))
def test_any_change_to_a_file_is_read_or_is_one_line(places: list[tuple[int, int]]) -> None:
    content = spoilt(many(2, IMAGE), places)
    said, units = "a.fits", []
    try:
        units = list(structure.walk(io.BytesIO(content), "a.fits"))
    except (FieldError, TooLargeError) as error:
        said = str(error)
    assert said.startswith("a.fits")
    assert "\n" not in said
    assert all(unit.stop % BLOCK == 0 for unit in units)


@pytest.fixture(params=["plain", "compressed"])
def varied(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    make: Callable[..., Any] = fits.CompImageHDU if request.param == "compressed" else fits.ImageHDU
    hdus = [
        fits.PrimaryHDU(noise_image((5, 6)), celestial_header()),
        make(noise_image((7, 8)), name="SCI"),
        fits.BinTableHDU.from_columns([fits.Column("a", "PJ()", array=[[1, 2], [3]])], name="T"),
        make(np.ones((2, 1, 9), np.int16), name="CUBE", ver=3)
        if request.param == "plain"
        else make(np.ones((3, 9), np.int16)),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "varied.fits")
    return str(tmp_path / "varied.fits")


def test_hdus_are_those_that_astropy_finds(varied: str) -> None:
    with fits.open(varied) as hdus, Path(varied).open("rb") as file:
        units = list(structure.walk(file, varied))
        assert [unit.name for unit in units] == [hdu.name for hdu in hdus]
        assert [unit.start for unit in units] == [hdu.fileinfo()["hdrLoc"] for hdu in hdus]
        assert [unit.stop for unit in units] == [
            hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in hdus
        ]
        assert [unit.shape for unit in units if unit.shape] == [h.shape for h in hdus if h.is_image]
