"""Fields: made, opened, read, refused."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from deblend_batch.errors import (
    BadDataError,
    FieldError,
    IrregularFileError,
    NotFoundError,
    OutputConflictError,
    StorageError,
)
from deblend_batch.field.layout import Field, FieldMeta, create_field, finish_field
from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import noise_image
from tests.support import WCS_CARDS

SHAPE = (300, 700)


def meta(bands: tuple[str, ...] = ("g", "r"), **changes: Any) -> FieldMeta:
    values: dict[str, Any] = {
        "name": "a",
        "bands": bands,
        "zero_point": (25.0,) * len(bands),
        "psf_fwhm_arcsec": (0.7,) * len(bands),
        "wcs_cards": WCS_CARDS,
    }
    return FieldMeta(**{**values, **changes})


def make_field(url: str, shape: tuple[int, int] = SHAPE, *, overwrite: bool = False) -> str:
    group = create_field(url, meta(), shape, with_variance=True, mask=True, overwrite=overwrite)
    for band in range(2):
        group["image"][band] = noise_image(shape, sigma=band + 1.0)  # type: ignore[index]
        group["variance"][band] = np.full(shape, band + 1.0, np.float32)  # type: ignore[index]
    finish_field(group, meta())
    return url


def make_plain(url: str, image: np.ndarray, zarr_format: Any, **attributes: Any) -> None:
    """Write a field as another tool would: no sharding, its own dtype and shape."""
    group = zarr.open_group(url, mode="w", zarr_format=zarr_format)
    array = group.create_array("image", shape=image.shape, dtype=image.dtype, chunks=image.shape)
    array[...] = image
    group.attrs.update({**meta(("r",)).to_attributes(), **attributes})


@pytest.mark.parametrize("scheme", ["path", "file", "memory"])
def test_a_field_comes_back(scheme: str, tmp_path: Path) -> None:
    url = {"path": f"{tmp_path}/a.zarr", "file": f"file://{tmp_path}/a.zarr"}.get(
        scheme, f"memory://{tmp_path.name}/a.zarr"
    )
    field = pickle.loads(pickle.dumps(Field.open(make_field(url))))
    assert field.meta == meta()
    assert (field.shape_yx, field.n_bands) == (SHAPE, 2)
    assert field.variance is not None
    assert field.mask is not None
    window = field.plane(1, slice(10, 20), slice(600, 650))
    np.testing.assert_array_equal(window, noise_image(SHAPE, sigma=2.0)[10:20, 600:650])
    assert field.plane(1, slice(0, 2), slice(0, 3), "variance").tolist() == [[2.0] * 3] * 2
    assert field.pixel_scale_arcsec == pytest.approx(0.1, rel=1e-4)


def test_an_opened_field_pickles_small_and_without_its_arrays(tmp_path: Path) -> None:
    field = Field.open(make_field(f"{tmp_path}/a.zarr"))
    field.plane(0, slice(0, 1), slice(0, 1))
    assert len(pickle.dumps(field)) < 2000


@pytest.mark.parametrize(
    ("shape", "chunks", "shards"),
    [
        ((300, 200), (1, 300, 200), None),
        ((600, 300), (1, 512, 300), (1, 1024, 300)),
        ((5000, 9000), (1, 512, 512), (1, 4096, 4096)),
    ],
)
def test_chunks_and_shards_fit_the_image(
    shape: tuple[int, int], chunks: tuple[int, ...], shards: tuple[int, ...] | None
) -> None:
    url = f"memory://chunks/{shape[0]}.zarr"
    group = create_field(url, meta(), shape, with_variance=False, overwrite=True)
    image = group["image"]
    assert isinstance(image, zarr.Array)
    assert (image.shape, image.chunks, image.shards) == ((2, *shape), chunks, shards)
    assert image.metadata.zarr_format == 3
    assert image.metadata.dimension_names == ("band", "y", "x")


@pytest.mark.parametrize("what", ["zarr.json", "image/zarr.json", "image/c/0/0/0"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_an_object_without_an_end_is_one_line(what: str, kind: str, tmp_path: Path) -> None:
    url = make_field(f"{tmp_path}/a.zarr")
    path = Path(url, what)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(IrregularFileError, match=rf"{what}: not a regular file but a device"):
        Field.open(url).plane(0, slice(0, 1), slice(0, 1))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_a_two_dimensional_image_of_another_tool_is_one_band(
    zarr_format: int, dtype: str, tmp_path: Path
) -> None:
    image = noise_image((40, 50))
    make_plain(f"{tmp_path}/a.zarr", image.astype(dtype), zarr_format)
    field = Field.open(f"{tmp_path}/a.zarr")
    assert (field.n_bands, field.shape_yx) == (1, (40, 50))
    assert (field.variance, field.mask) == (None, None)
    np.testing.assert_array_equal(field.plane(0, slice(5, 9), slice(6, 8)), image[5:9, 6:8])


@pytest.mark.parametrize("shape", [SHAPE, (2, *SHAPE)])
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "bool"])
def test_masks_of_either_shape(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    url = make_field(f"{tmp_path}/a.zarr")
    group = zarr.open_group(url, mode="a")
    mask = group.create_array("mask", shape=shape, dtype=dtype, overwrite=True)
    mask[..., 3, 4] = 1
    assert Field.open(url).plane(1, slice(3, 4), slice(3, 6), "mask").astype(int).tolist() == [
        [0, 1, 0]
    ]


def test_noise_is_measured_from_blocks_unless_given(tmp_path: Path) -> None:
    field = Field.open(make_field(f"{tmp_path}/a.zarr"))
    assert field.measure_noise() == pytest.approx((1.0, 2.0), rel=0.03)
    group = zarr.open_group(field.url, mode="a")
    group.attrs["noise_sigma"] = [3.0, 4.0]
    assert Field.open(field.url).measure_noise() == (3.0, 4.0)


def test_masked_pixels_do_not_count_as_noise(tmp_path: Path) -> None:
    url = make_field(f"{tmp_path}/a.zarr")
    group = zarr.open_group(url, mode="a")
    group["image"][0, :, ::2] = 1e6  # type: ignore[index]
    group["mask"][0, :, ::2] = 1  # type: ignore[index]
    assert Field.open(url).measure_noise()[0] == pytest.approx(1.0, rel=0.03)


def test_bits_that_are_remarks_make_no_pixel_bad(tmp_path: Path) -> None:
    """As where a mask has DETECTED on every source: noise and tiles take those pixels as they are."""
    bits = MaskBits({"BAD": 0, "DETECTED": 9}, ("BAD",))
    named = meta(("r",), mask_bits=bits)
    url = f"{tmp_path}/a.zarr"
    group = create_field(url, named, (40, 50), with_variance=False, mask=True)
    mask: Any = group["mask"]
    assert mask.dtype == np.uint16
    image = noise_image((40, 50))
    image[:, 25:] *= 100
    mask[0, :, :25] = 512
    mask[0, :, 25:] = 513
    group["image"][0] = image  # type: ignore[index]
    finish_field(group, named)
    field = Field.open(url)
    assert field.meta.mask_bits == bits
    assert field.measure_noise()[0] == pytest.approx(1.0, rel=0.1)
    pixels = read_tile(field, Box(0, 0, 40, 50)).image[0]
    np.testing.assert_array_equal(pixels[:, :25], image[:, :25])
    assert np.isnan(pixels[:, 25:]).all()


def test_an_image_without_noise_asks_for_it(tmp_path: Path) -> None:
    make_plain(f"{tmp_path}/a.zarr", np.zeros((40, 50), np.float32), 3)
    with pytest.raises(FieldError, match=r"noise of band 'r' .* set the attribute 'noise_sigma'"):
        Field.open(f"{tmp_path}/a.zarr").measure_noise()


def test_a_member_that_is_not_there_is_named(tmp_path: Path) -> None:
    make_plain(f"{tmp_path}/a.zarr", noise_image((40, 50)), 3)
    with pytest.raises(FieldError, match="has no 'mask'"):
        Field.open(f"{tmp_path}/a.zarr").plane(0, slice(0, 1), slice(0, 1), "mask")


def test_pixels_never_written_are_bad() -> None:
    group = create_field("memory://holes.zarr", meta(), SHAPE, with_variance=False, overwrite=True)
    finish_field(group, meta())
    field = Field.open("memory://holes.zarr")
    assert np.isnan(field.plane(0, slice(0, 5), slice(0, 5))).all()


def _write(path: str, content: str) -> Callable[[Path], Any]:
    return lambda root: (root / path).write_text(content)


def _in_its_place(content: bytes) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        shutil.rmtree(root)
        root.write_bytes(content)

    return spoil


def _array(name: str, shape: tuple[int, ...], dtype: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        group = zarr.open_group(str(root), mode="a")
        group.create_array(name, shape=shape, dtype=dtype, overwrite=True)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (shutil.rmtree, NotFoundError, "no Zarr group here; check the URL"),
        (
            _in_its_place(b"SIMPLE  =                    T"),
            FieldError,
            "this is FITS, no .*-batch ingest",
        ),
        (
            _in_its_place(b"#ASDF 1.0.0"),
            FieldError,
            "this is ASDF, no Zarr group; .* deblend-batch ingest",
        ),
        (
            _in_its_place(b"hello"),
            FieldError,
            r"this is a file, .*makes of images \(FITS, ASDF or Zarr\)",
        ),
        (_write("zarr.json", "{bad"), FieldError, "cannot read the group's metadata .*damaged"),
        (_write("zarr.json", "[]"), FieldError, "cannot read the group's metadata"),
        (_write("image/zarr.json", "{}"), FieldError, "cannot read 'image'"),
        (_write("variance/zarr.json", "{bad"), FieldError, "cannot read 'variance'"),
        (lambda root: shutil.rmtree(root / "image"), FieldError, "array 'image' is missing"),
        (_array("image", (2, *SHAPE), "int16"), FieldError, "'image' is int16; it must be float32"),
        (_array("image", (2, *SHAPE), "float64"), FieldError, "it must be float32"),
        (_array("image", (9,), "float32"), FieldError, r"shape \(9,\); it must be \(band, y, x\)"),
        (_array("image", (1, 2, 3, 4), "float32"), FieldError, "it must be"),
        (
            _array("image", (3, *SHAPE), "float32"),
            FieldError,
            "3 planes .* names 2; make them agree",
        ),
        (_array("image", SHAPE, "float32"), FieldError, "has 1 planes"),
        (_array("image", (2, 0, 5), "float32"), FieldError, "rows and columns must be 1 to"),
        (_array("image", (2, 5, 10**8), "float32"), FieldError, "rows and columns must be 1 to"),
        (_array("variance", (2, 5, 5), "float32"), FieldError, "'variance' has shape"),
        (_array("variance", (2, *SHAPE), "float64"), FieldError, "'variance' is float64"),
        (_array("mask", (1, *SHAPE), "uint8"), FieldError, "'mask' has shape"),
        (_array("mask", SHAPE, "int16"), FieldError, "must be an unsigned integer type"),
    ],
)
def test_a_broken_field_is_refused_in_one_line(
    spoil: Callable[[Path], Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    url = make_field(f"{tmp_path}/a.zarr")
    spoil(Path(url))
    with pytest.raises(error, match=f"^{url}: .*{message}") as caught:
        Field.open(url)
    assert "\n" not in str(caught.value)


def test_an_array_is_no_field(tmp_path: Path) -> None:
    url = make_field(f"{tmp_path}/a.zarr")
    with pytest.raises(FieldError, match="this is a Zarr array, not a group"):
        Field.open(f"{url}/image")


def test_a_wcs_without_celestial_axes_is_refused(tmp_path: Path) -> None:
    make_plain(f"{tmp_path}/a.zarr", noise_image((40, 50)), 3, wcs={"CTYPE1": "LINEAR"})
    with pytest.raises(FieldError, match="no usable celestial WCS"):
        Field.open(f"{tmp_path}/a.zarr")


def test_a_field_is_closed_until_it_is_finished(tmp_path: Path) -> None:
    url = f"{tmp_path}/a.zarr"
    group = create_field(url, meta(), SHAPE, with_variance=False, attributes={"truth": "here"})
    with pytest.raises(FieldError, match="never finished"):
        Field.open(url)
    finish_field(group, meta())
    assert Field.open(url).meta == meta()
    assert json.loads(Path(url, "zarr.json").read_text())["attributes"]["truth"] == "here"


def test_a_finished_field_is_replaced_only_when_asked(tmp_path: Path) -> None:
    url = make_field(f"{tmp_path}/a.zarr")
    with pytest.raises(OutputConflictError, match=r"exists already; .* --overwrite"):
        make_field(url)
    make_field(url, (50, 60), overwrite=True)
    assert Field.open(url).shape_yx == (50, 60)


def test_an_unfinished_field_is_replaced_without_asking(tmp_path: Path) -> None:
    create_field(f"{tmp_path}/a.zarr", meta(), SHAPE, with_variance=False)
    assert Field.open(make_field(f"{tmp_path}/a.zarr")).shape_yx == SHAPE


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_field_is_never_removed(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "thesis"
    if kind == "file":
        target.write_text("years of work")
    else:
        target.mkdir()
        (target / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputConflictError, match="is something else than a field"):
        make_field(str(target), overwrite=True)
    assert target.exists()


def test_a_damaged_chunk_is_bad_data(tmp_path: Path) -> None:
    url = make_field(f"{tmp_path}/a.zarr")
    for shard in Path(url, "image", "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(b"x" * 100)
    field = Field.open(url)
    with pytest.raises(BadDataError, match="'image' has a chunk that cannot be decoded"):
        field.plane(0, slice(0, 5), slice(0, 5))


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_field_is_read_over_http(web: str, tmp_path: Path) -> None:
    image = noise_image((40, 50))
    make_plain(f"{tmp_path}/a.zarr", image, 3)
    field = Field.open(f"{web}/a.zarr")
    np.testing.assert_array_equal(field.plane(0, slice(0, 40), slice(0, 50)), image)
    with pytest.raises(NotFoundError, match=r"none\.zarr: no Zarr group here"):
        Field.open(f"{web}/none.zarr")


def test_the_web_is_read_only() -> None:
    with pytest.raises(StorageError, match=r"http\(s\):// is read-only; write to a local path"):
        make_field("http://127.0.0.1:9/a.zarr")


def test_a_store_that_does_not_answer_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9/a\.zarr: "):
        Field.open("http://127.0.0.1:9/a.zarr")


def test_an_endpoint_that_refuses_leaves_no_tracebacks() -> None:
    """Zarr asks for several objects at once, and the interpreter shows each that nobody awaited."""
    pytest.importorskip("s3fs")
    code = (
        "from deblend_batch.errors import StorageError\n"
        "from deblend_batch.arrays.stores import open_group\n"
        "try:\n    open_group('s3://bucket/f.zarr')\n"
        "except StorageError as error:\n    print(error)\n"
    )
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    environ = {**os.environ, **keys, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"s3://bucket/f.zarr: Could not connect .*; check the.*\n", ended.stdout)
    assert ended.stderr == ""


def test_an_unknown_protocol_is_named_once() -> None:
    with pytest.raises(StorageError, match=r"^zork://f.zarr: unknown protocol; use [^:]*, s3://"):
        Field.open("zork://f.zarr")
