"""Tile-compressed images: what tiles decode to is bounded before they are decoded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import FieldError, TooLargeError
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.files.tiles import BLOCK_PX, TileLayout
from deblend_batch.ingest.reference import ImageRef
from tests.ingest.fits_files import noise_image
from tests.ingest.hostile_files import (
    GIB,
    gzipped,
    hcompressed,
    write_compressed,
    zeros_gzipped,
)
from tests.limited import run_limited

WHOLE = slice(0, 64), slice(0, 64)
TILE = np.arange(64 * 64, dtype=">i4").reshape(64, 64)
PLAIN = gzipped(TILE.tobytes())
ROWS = [gzipped(row.tobytes()) for row in TILE]


def read(url: str, window: tuple[slice, slice] = WHOLE) -> np.ndarray:
    with open_files() as files:
        return files.plane(ImageRef(url)).read(*window)


def test_the_files_of_these_tests_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(write_compressed(tmp_path / "a.fz", [PLAIN])), TILE)
    rows = write_compressed(tmp_path / "b.fz", ROWS, tile_yx=(1, 64))
    np.testing.assert_array_equal(read(rows), TILE)
    larger = write_compressed(tmp_path / "c.fz", [PLAIN], tile_yx=(100, 2**31 - 1))
    np.testing.assert_array_equal(read(larger), TILE)
    fallback = write_compressed(
        tmp_path / "d.fz", [b""], fallback=[gzipped(TILE.astype(">f4").tobytes())], zbitpix=-32
    )
    np.testing.assert_array_equal(read(fallback), TILE)


HEADERS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a tile of 44,000 squared": (
        {"shape_yx": (44_000, 44_000), "tile_yx": (44_000, 44_000)},
        TooLargeError,
        r"tiles of 44000 x 44000 px, more than 134,217,728 px or 512 MiB",
    ),
    "a long tile": (
        {"shape_yx": (2, 1 << 20), "tile_yx": (2, 1 << 20)},
        TooLargeError,
        "none longer than 262,144 px",
    ),
    "a tile of 10^12": ({"tile_yx": (64, 10**12)}, FieldError, "ZTILE1 is 1000000000000"),
    "a tile of nothing": ({"tile_yx": (0, 64)}, FieldError, "ZTILE2 is 0"),
    "10^9 axes": ({"ZNAXIS": 10**9}, FieldError, "ZNAXIS is 1000000000"),
    "an axis too many": ({"ZNAXIS": 3}, FieldError, "ZNAXIS3 is missing"),
    "an axis of 2^62": ({"ZNAXIS1": 2**62}, TooLargeError, "announces .* pixels"),
    "other tiles": ({"ZNAXIS1": 100}, FieldError, "announces 2 tiles and a table of 1"),
    "another coding": ({"algorithm": "BZIP2"}, FieldError, "ZCMPTYPE 'BZIP2' is none of GZIP_1"),
    "no coding": ({"ZCMPTYPE": 5}, FieldError, "ZCMPTYPE '' is none of"),
    "another depth": ({"zbitpix": 12}, FieldError, "ZBITPIX is 12"),
    "no streams": ({"TTYPE1": "DATA"}, FieldError, "no column COMPRESSED_DATA"),
    "streams of numbers": ({"TFORM1": "2D"}, FieldError, "none of compressed bytes"),
    "columns": ({"TFIELDS": 10**6}, FieldError, "TFIELDS is 1000000"),
    "a negative heap": ({"THEAP": -5}, FieldError, "THEAP is -5"),
    "a heap beyond": ({"THEAP": 10**9}, FieldError, "THEAP is beyond"),
    "rice blocks": (
        {"algorithm": "RICE_1", "ZNAME1": "BLOCKSIZE", "ZVAL1": 0},
        FieldError,
        "BLOCKSIZE is 0",
    ),
    "rice bytes": (
        {"algorithm": "RICE_1", "ZNAME1": "BYTEPIX", "ZVAL1": 8},
        FieldError,
        "BYTEPIX is 8",
    ),
    "a seed": (
        {"ZQUANTIZ": "SUBTRACTIVE_DITHER_1", "ZDITHER0": -5},
        FieldError,
        "ZDITHER0 is -5",
    ),
    "no seed": ({"ZQUANTIZ": "SUBTRACTIVE_DITHER_2"}, FieldError, "ZDITHER0 is missing"),
}


@pytest.mark.parametrize(("changes", "error", "message"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_asks_for_too_much_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    url = write_compressed(tmp_path / "a.fz", [PLAIN], **changes)
    with open_files() as files, pytest.raises(error, match=message) as caught:
        files.plane(ImageRef(url))
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pointers", "message"),
    [
        ([(5, -1)], "tile 0 points outside its data"),
        ([(-5, 0)], "tile 0 points outside its data"),
        ([(100, len(PLAIN))], "tile 0 points outside its data"),
        ([(2**62, 2**62)], "tile 0 points outside its data"),
        ([(2**63 - 1, 2**63 - 1)], "tile 0 points outside its data"),
    ],
)
def test_a_pointer_out_of_the_data_is_refused(
    pointers: list[tuple[int, int]], message: str, tmp_path: Path
) -> None:
    url = write_compressed(tmp_path / "a.fz", [PLAIN], pointers=pointers)
    with open_files() as files, pytest.raises(FieldError, match=message):
        files.plane(ImageRef(url))


def test_a_length_that_wraps_around_is_refused(tmp_path: Path) -> None:
    url = write_compressed(tmp_path / "a.fz", [PLAIN], pointers=[(2**62, 0)], TFORM1="1QJ")
    with open_files() as files, pytest.raises(FieldError, match="points outside its data"):
        files.plane(ImageRef(url))


def test_tiles_that_share_bytes_are_refused(tmp_path: Path) -> None:
    shared = [(len(ROWS[0]), 0)] * 64
    url = write_compressed(tmp_path / "a.fz", ROWS[:1], tile_yx=(1, 64), pointers=shared)
    with open_files() as files, pytest.raises(FieldError, match="tiles share compressed bytes"):
        files.plane(ImageRef(url))


SHORT = zeros_gzipped(GIB // 20)
"""What a tile of 64 x 64 px may be long, but inflates to 51 MB."""
BOMBS: dict[str, tuple[Callable[[Path], str], str]] = {
    "8 GB": (
        lambda path: write_compressed(path, [zeros_gzipped(8 * GIB)]),
        r"TooLargeError .*tile 0 has 8,\d{3},\d{3} compressed bytes, more than 66,560",
    ),
    "GZIP_1": (
        lambda path: write_compressed(path, [SHORT]),
        r"TooLargeError .*tile 0 inflates to more than its 4,096 px",
    ),
    "GZIP_2": (
        lambda path: write_compressed(path, [SHORT], algorithm="GZIP_2"),
        r"TooLargeError .*tile 0 inflates to more than its 4,096 px",
    ),
    "fallback": (
        lambda path: write_compressed(
            path, [b""], fallback=[SHORT], algorithm="RICE_1", zbitpix=-32
        ),
        r"TooLargeError .*tile 0 inflates to more than its 4,096 px",
    ),
    "a large tile": (
        lambda path: write_compressed(
            path, [zeros_gzipped(8 * GIB)], shape_yx=(4000, 4000), tile_yx=(4000, 4000)
        ),
        r"TooLargeError .*tile 0 inflates to more than its 16,000,000 px",
    ),
    "members": (
        lambda path: write_compressed(path, [PLAIN + SHORT]),
        r"FieldError .*cannot decode rows 0:64 \(more than one gzip stream",
    ),
    "one of many": (
        lambda path: write_compressed(
            path, [*ROWS[:-1], zeros_gzipped(1 << 24)[:1500]], tile_yx=(1, 64)
        ),
        r"TooLargeError .*tile 63 inflates to more than its 64 px",
    ),
    "a long stream": (
        lambda path: write_compressed(path, [PLAIN], pointers=[(20 * GIB, 0)], heap_bytes=20 * GIB),
        r"TooLargeError .*tile 0 has 21,474,836,480 compressed bytes",
    ),
    "a long heap": (
        lambda path: write_compressed(path, [PLAIN], heap_bytes=20 * GIB),
        r"TooLargeError .*has 21,474,836,480 compressed bytes, more than its 1 tiles",
    ),
    "HCOMPRESS": (
        lambda path: write_compressed(path, [hcompressed(200, 150)], algorithm="HCOMPRESS_1"),
        r"FieldError .*tile 0 is no HCOMPRESS stream of 4096 px",
    ),
    "HCOMPRESS, far": (
        lambda path: write_compressed(path, [hcompressed(40000, 40000)], algorithm="HCOMPRESS_1"),
        r"FieldError .*tile 0 is no HCOMPRESS stream of 4096 px",
    ),
    "PLIO": (
        lambda path: write_compressed(
            path,
            [np.array([0, 7, -100, 32767, 30000, 0, 0, 1], ">i2").tobytes()],
            algorithm="PLIO_1",
            TFORM1="1QI",
            pointers=[(8, 0)],
        ),
        r"FieldError .*tile 0 is no PLIO stream of 4096 px, but 16 bytes",
    ),
    "RICE, cut": (
        lambda path: write_compressed(path, [b"\1\2"], algorithm="RICE_1"),
        r"FieldError .*cannot decode rows 0:64 \(tile 0 has 2 bytes",
    ),
    "a tile too short": (
        lambda path: write_compressed(path, [gzipped(bytes(100))]),
        r"FieldError .*cannot decode rows 0:64",
    ),
}
_SCRIPT = """
import json, sys, time
from deblend_batch.errors import DeblendError
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.reference import ImageRef
for url in sys.argv[1:]:
    started = time.process_time()
    with open_files() as files:
        try:
            plane = files.plane(ImageRef(url))
            plane.read(slice(0, 64), slice(0, 64))
        except DeblendError as error:
            print(json.dumps([f"{type(error).__name__} {error}", time.process_time() - started]))
"""


def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    urls = [make(tmp_path / f"{name}.fz") for name, (make, _) in BOMBS.items()]
    ended = run_limited(["python", "-c", _SCRIPT, *urls], memory=600_000_000)
    assert (ended.code, ended.err) == (0, "")
    said = [json.loads(line) for line in ended.out.splitlines()]
    for url, (_, message), (text, seconds) in zip(urls, BOMBS.values(), said, strict=True):
        with pytest.raises(Exception, match=message):
            raise Exception(text)  # noqa: TRY002
        assert url in text
        assert seconds < 3


def test_a_bomb_is_the_user_s_mistake_in_one_line(tmp_path: Path) -> None:
    url = write_compressed(tmp_path / "a.fz", [zeros_gzipped(8 * GIB)])
    ended = run_limited(["deblend-batch", "ingest", url, str(tmp_path / "a.zarr")])
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "a.fz[COMPRESSED_IMAGE]: tile 0 has" in ended.err


_NO_NAN = ("NOCOMPRESS", "HCOMPRESS_1", "PLIO_1")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"compression_type": "GZIP_1"},
        {"compression_type": "GZIP_2", "tile_shape": (32, 48)},
        {"compression_type": "RICE_1", "tile_shape": (120, 130)},
        {"compression_type": "RICE_1", "quantize_method": 2, "dither_seed": 7},
        {"compression_type": "HCOMPRESS_1", "tile_shape": (30, 26)},
        {"compression_type": "PLIO_1"},
        {"compression_type": "NOCOMPRESS"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_coding_is_read_as_astropy_reads_it_whole(
    options: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    data = (noise_image((120, 130), sigma=20.0) + 120).clip(0, 255).astype(dtype)
    if dtype == "float32" and options["compression_type"] not in _NO_NAN:
        data[50, 60], data[51] = np.nan, 7.0
    path = tmp_path / "a.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, **options)]).writeto(path)
    window = slice(37, 81), slice(5, 111)
    np.testing.assert_array_equal(
        read(str(path), window), fits.getdata(path)[window].astype(np.float32)
    )


edges = st.integers(1, 1 << 18)


@given(edges, edges, edges, edges, st.data())
def test_blocks_cover_a_window_once_and_cut_no_tile(
    height: int, width: int, tile_y: int, tile_x: int, data: st.DataObject
) -> None:
    layout = TileLayout((height, width), (tile_y, tile_x), 1, "RICE_1", 4, 1, {}, 0, 0, False, "")
    window = []
    for edge in (height, width):
        start = data.draw(st.integers(0, edge - 1))
        window.append(slice(start, data.draw(st.integers(start + 1, min(edge, start + 8192)))))
    blocks = [block for block, _ in zip(layout.blocks(*window), range(2000), strict=False)]
    if len(blocks) < 2000:
        area = sum((y.stop - y.start) * (x.stop - x.start) for y, x in blocks)
        assert area == math.prod(s.stop - s.start for s in window)
    for block in blocks:
        whole = 1
        for cut, full, tile in zip(block, window, (tile_y, tile_x), strict=True):
            assert cut.start == full.start or cut.start % tile == 0
            assert cut.stop == full.stop or cut.stop % tile == 0
            whole *= (-(-cut.stop // tile) - cut.start // tile) * tile
        assert whole <= max(BLOCK_PX, tile_y * tile_x)
