"""Images that lie in Zarr already: copied into a field, or used where they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.catalog.output import Output
from deblend_batch.config import RunConfig
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.plan import plan_run
from deblend_batch.engine.run import process_field
from deblend_batch.errors import (
    ConfigError,
    FieldError,
    NotFoundError,
    OutputConflictError,
    UserError,
)
from deblend_batch.field.layout import Field
from deblend_batch.field.references import Reference
from deblend_batch.ingest.ingest import ingest
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import noise_image, write_image
from tests.support import (
    WCS_CARDS,
    SmallField,
    gaussian_image,
    read_shards,
    same_rows,
    write_tiny_model,
)

SHAPE = (96, 110)
HOW: dict[str, Any] = {"zero_points": [25.0], "psf_fwhm_arcsec": [0.4], "bands": ["r"]}
WHOLE = slice(0, SHAPE[0]), slice(0, SHAPE[1])


def sky() -> np.ndarray:
    return noise_image(SHAPE)


def written(
    folder: Path, zarr_format: Any = 3, *, attributes: dict[str, Any] | None = None, **planes: Any
) -> Path:
    """Write a group as others would; ``planes`` are arrays, or arrays and how to store them."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=zarr_format)
    group.attrs.update({"fits": dict(WCS_CARDS)} if attributes is None else attributes)
    for name, plane in planes.items():
        values, how = plane if isinstance(plane, tuple) else (plane, {})
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, **{"chunks": (40, 50), **how}
        )
        array[...] = values
    return folder


@settings(max_examples=12)
@given(
    zarr_format=st.sampled_from([2, 3]),
    dtype=st.sampled_from(["<f4", ">f4", "<f8"]),
    chunks=st.tuples(st.integers(7, 120), st.integers(7, 120)),
    is_group=st.booleans(),
    refer=st.booleans(),
)
def test_any_array_is_a_field(
    tmp_path_factory: pytest.TempPathFactory,
    zarr_format: int, dtype: str, chunks: tuple[int, int], is_group: bool, refer: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("zarr")
    how = {"chunks": tuple(min(edge) for edge in zip(chunks, SHAPE, strict=True))}
    url = written(folder / "a.zarr", zarr_format, data=(sky().astype(dtype), how))
    place = str(url if is_group else url / "data")
    summary = ingest([place], f"{folder}/f.zarr", by_reference=refer, **HOW)
    field = Field.open(f"{folder}/f.zarr")
    assert (summary.bad_fraction, field.shape_yx, field.is_local) == (0, SHAPE, True)
    np.testing.assert_array_equal(field.plane(0, *WHOLE), sky())
    np.testing.assert_array_equal(read_tile(field, Box(0, 0, *SHAPE)).image[0], sky())
    assert Path(f"{folder}/f.zarr/image").exists() is not refer


@settings(max_examples=10)
@given(
    order=st.permutations(["y", "x", "band", "time"]),
    y=st.sampled_from(["y", "Row", "dec", "m"]),
    x=st.sampled_from(["x", "column", "ra", "l"]),
    zarr_format=st.sampled_from([2, 3]),
)
def test_axes_are_those_that_their_names_say(
    tmp_path_factory: pytest.TempPathFactory,
    order: list[str], y: str, x: str, zarr_format: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("zarr")
    names = [{"y": y, "x": x}.get(name, name) for name in order]
    usual = np.stack([sky(), 2 * sky()])[..., None]  # band, y, x, time
    image = np.transpose(usual, [["band", "y", "x", "time"].index(name) for name in order])
    how: dict[str, Any] = {"chunks": tuple(min(edge, 50) for edge in image.shape)}
    if zarr_format == 3:
        how["dimension_names"] = names
    url = written(folder / "a.zarr", zarr_format, image=(image, how))
    if zarr_format == 2:
        zarr.open_array(f"{url}/image", mode="r+").attrs["_ARRAY_DIMENSIONS"] = names
    own = {**HOW, "bands": ["g", "r"], "background": "keep"}
    ingest([str(url)], f"{folder}/f.zarr", **own)
    np.testing.assert_array_equal(Field.open(f"{folder}/f.zarr").image[:], usual[..., 0])
    with pytest.raises(
        FieldError, match=r"its axes are not \(y, x\) or \(band, y, x\); or leave out"
    ):
        ingest([str(url)], f"{folder}/g.zarr", by_reference=True, **own)


@pytest.mark.parametrize(
    ("key", "value", "zarr_format"),
    [
        ("_FillValue", -5.5, 3),
        ("_FillValue", "AAAAAAAAFsA=", 3),  # as xarray writes it in format 3
        ("missing_value", [77.0, -5.5], 3),
        ("fill value", -5.5, 2),
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_numbers_that_attributes_call_missing_are_no_data(
    key: str, value: Any, zarr_format: Any, dtype: str, tmp_path: Path
) -> None:
    number = -5.5 if dtype == "f4" else -6
    value = json.loads(json.dumps(value).replace("-5.5", str(number)))
    if dtype == "i2" and isinstance(value, str):
        value = number  # xarray writes integers as they are
    image = np.clip(10 * sky(), 0, None).astype(dtype) + np.array(1, dtype)
    image[30:33, 40] = number
    fill = {"fill_value": number} if key == "fill value" else {}
    url = written(tmp_path / "a.zarr", zarr_format, image=(image, fill))
    attributes = zarr.open_array(f"{url}/image", mode="r+").attrs
    attributes.update({"_ARRAY_DIMENSIONS": ["y", "x"]} if fill else {key: value})
    ingest([str(url)], f"{tmp_path}/f.zarr", background="keep", **HOW)
    tile = read_tile(Field.open(f"{tmp_path}/f.zarr"), Box(0, 0, *SHAPE))
    expected = np.zeros(SHAPE, bool)
    expected[30:33, 40] = True
    np.testing.assert_array_equal(np.isnan(tile.image[0]), expected)
    if dtype == "f4":
        with pytest.raises(FieldError, match=r"its pixels of (-5\.5|77\.0) are no data; or leave"):
            ingest([str(url)], f"{tmp_path}/g.zarr", background="keep", by_reference=True, **HOW)


@pytest.mark.parametrize(
    ("fill_value", "dtype", "refer"),
    [
        *((fill, "f4", refer) for fill in (None, 0, np.nan, -999.0) for refer in (False, True)),
        *((fill, "i4", False) for fill in (None, 0, -999)),
    ],
)
def test_chunks_that_were_never_stored_are_no_data(
    fill_value: float | None, dtype: str, *, refer: bool, tmp_path: Path
) -> None:
    image = (100 * sky() + 7).astype(dtype)
    group = zarr.open_group(
        f"{tmp_path}/a.zarr", mode="w", zarr_format=2 if fill_value is None else 3
    )
    group.attrs["fits"] = dict(WCS_CARDS)
    array = group.create_array(
        "image", shape=SHAPE, dtype=dtype, chunks=(40, 50), fill_value=fill_value
    )
    array[:40], array[40:, 50:] = image[:40], image[40:, 50:]
    ingest(
        [f"{tmp_path}/a.zarr"], f"{tmp_path}/f.zarr", by_reference=refer, background="keep", **HOW
    )
    tile = read_tile(Field.open(f"{tmp_path}/f.zarr"), Box(0, 0, *SHAPE))
    expected = np.zeros(SHAPE, bool)
    expected[40:, :50] = True
    np.testing.assert_array_equal(np.isnan(tile.image[0]), expected)


def test_masks_may_have_a_sign(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, ">i4")
    mask[3], mask[5] = 1, -(1 << 31)
    url = written(tmp_path / "a.zarr", image=sky(), flags=mask)
    ingest([str(url)], f"{tmp_path}/f.zarr", mask_hdu=["flags"], **HOW)
    tile = read_tile(Field.open(f"{tmp_path}/f.zarr"), Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(np.isnan(tile.image[0]), mask != 0)
    with pytest.raises(FieldError, match=r"flags: cannot be used .* a mask unsigned integers; or"):
        ingest([str(url)], f"{tmp_path}/g.zarr", mask_hdu=["flags"], by_reference=True, **HOW)


def test_planes_and_bands_are_referred_to(tmp_path: Path) -> None:
    image = np.stack([sky(), 2 * sky()])
    variance = np.stack([np.ones(SHAPE), np.full(SHAPE, 4.0)])
    variance[:, :4] = 0  # no data
    mask = np.zeros(SHAPE, np.uint8)
    mask[90:] = 8
    how = {"chunks": (1, 40, 50)}
    url = written(tmp_path / "a.zarr", image=(image, how), var=(variance, how), flags=mask)
    ingest(
        [f"{url}/image"], f"{tmp_path}/f.zarr", by_reference=True, variance_hdu=["var"],
        mask_hdu=["flags"], bands=["g", "r"], zero_points=[25.0, 26.0], psf_fwhm_arcsec=[0.4],
    )  # fmt: skip
    field = Field.open(f"{tmp_path}/f.zarr")
    assert field.meta.bands == ("g", "r")
    assert sorted(path.name for path in Path(f"{tmp_path}/f.zarr").iterdir()) == ["zarr.json"]
    tile = read_tile(field, Box(0, 0, *SHAPE))
    assert tile.variance is not None
    np.testing.assert_array_equal(tile.image[:, 4:90], image[:, 4:90])
    assert np.isnan(tile.image[:, :4]).all()
    assert np.isnan(tile.image[:, 90:]).all()
    np.testing.assert_array_equal(tile.variance[:, 4:], variance[:, 4:].astype("f4"))


@pytest.mark.parametrize("where", ["array", "group", "header"])
def test_what_an_image_is_stands_in_its_attributes_or_in_a_header(
    where: str, tmp_path: Path
) -> None:
    cards = {**WCS_CARDS, "BUNIT": "nJy", "FILTER": "i", "PSF_FWHM": 0.4}
    url = written(tmp_path / "a.zarr", attributes=cards if where == "group" else {}, image=sky())
    header = None
    if where == "array":
        node = zarr.open_array(f"{url}/image", mode="r+")
        del cards["BUNIT"]
        node.attrs.update({"wcs": cards, "units": "nJy"})
    elif where == "header":
        header = write_image(
            tmp_path / "h.fits", np.zeros((2, 2)), BUNIT="nJy", FILTER="i", PSF_FWHM=0.4
        )
    ingest([str(url)], f"{tmp_path}/f.zarr", header=header)
    meta = Field.open(f"{tmp_path}/f.zarr").meta
    assert (meta.bands, meta.zero_point, meta.psf_fwhm_arcsec) == (("i",), (31.4,), (0.4,))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: {"image": sky() + 9}, {}, r"its background of [89]\.\d* is not subtracted"),
        (
            lambda: {"image": 1e-24 * sky().astype("f8")},
            {"zero_points": [-35.0]},
            "beyond the range of float32",
        ),
        (lambda: {"image": _rimmed()}, {}, "blocks of zeros, which are no data"),
        (lambda: {"image": _rimmed() - 99 * (_rimmed() == 0)}, {}, "its pixels of -99 are no data"),
        (lambda: {"image": (100 * sky()).astype("i4")}, {}, "its pixels are no float32"),
        (
            lambda: {"image": sky(), "rms": np.ones(SHAPE, "f4")},
            {"rms_hdu": ["rms"]},
            "noise plane is of the kind rms",
        ),
        (
            lambda: {"image": sky(), "b": sky()},
            {"hdu": ["image", "b"], "bands": ["g", "r"]},
            "several arrays",
        ),
    ],
)
def test_pixels_that_cannot_stay_as_they_are_are_refused(
    make: Callable[[], dict[str, Any]], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    url = written(tmp_path / "a.zarr", **make())
    with pytest.raises(UserError, match=f"{message}.*leave out --by-reference"):
        ingest([str(url)], f"{tmp_path}/f.zarr", by_reference=True, **{**HOW, **options})
    ingest([str(url)], f"{tmp_path}/f.zarr", **{**HOW, **options})


def _rimmed() -> np.ndarray:
    image = sky()
    image[:12] = 0
    return image


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: written(p, a=sky(), b=sky()), r"is a Zarr group; name the array: .*a, b"),
        (
            lambda p: written(p, image=(np.zeros((2, 2, 3, 4), "f4"), {"chunks": (2, 2, 3, 4)})),
            r"must be \(y, x\) or \(band, y, x\)",
        ),
        (lambda p: written(p, image=np.zeros((4, 4), "c8")), "must hold numbers"),
        (
            lambda p: written(p, image=(np.zeros((*SHAPE, 2), "f4"), {"chunks": (9, 9, 2)})),
            r"seems to be \(y, x, band\); store it as \(band, y, x\), or name its axes",
        ),
        (
            lambda p: written(p, image=(sky(), {"dimension_names": ("x", "other")})),
            "calls its axes x, other, and which are y and x nobody can tell",
        ),
        (lambda p: written(p, attributes={}, image=sky()), "no celestial WCS in its header"),
    ],
)
def test_what_is_no_image_is_one_line(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    url = make(tmp_path / "a.zarr")
    with pytest.raises(FieldError, match=message) as caught:
        ingest([str(url)], f"{tmp_path}/f.zarr", **HOW)
    assert "\n" not in str(caught.value)


def test_packed_numbers_are_no_pixel_values(tmp_path: Path) -> None:
    url = written(tmp_path / "a.zarr", image=sky())
    zarr.open_array(f"{url}/image", mode="r+").attrs["scale_factor"] = 0.1
    with pytest.raises(FieldError, match="attribute scale_factor"):
        ingest([str(url)], f"{tmp_path}/f.zarr", **HOW)


def test_fits_has_no_array_to_refer_to(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", sky())
    with pytest.raises(ConfigError, match=r"a.fits is no array of Zarr; leave out --by-reference"):
        ingest([url], f"{tmp_path}/f.zarr", by_reference=True, **HOW)


def referring(folder: Path, place: object) -> str:
    """A field of a stranger, that refers to some place."""
    url = written(folder / "in" / "a.zarr", image=sky())
    field = str(folder / "in" / "f.zarr")
    if not Path(field).exists():
        ingest([f"{url}/image"], field, by_reference=True, **HOW)
    document = Path(field, "zarr.json")
    content = json.loads(document.read_text())
    content["attributes"]["references"]["image"]["place"] = place
    document.write_text(json.dumps(content))
    return field


@pytest.mark.parametrize(
    "place",
    [
        "../secret.zarr/image", "a.zarr/../../secret.zarr/image", "/etc", "SECRET", "a.zarr//image",
        ".hidden/image", "link/image", "*", "file:///etc/a.zarr", "local://etc/a.zarr", "s3://bucket/a.zarr",
        "http://127.0.0.1:1/a.zarr", "reference://x.json", "zip://a::http://127.0.0.1:1/x", "memory://a",
        "", 7, None, "a" * 9000,
    ],
)  # fmt: skip
def test_a_field_of_a_stranger_refers_to_nothing_of_its_user(place: object, tmp_path: Path) -> None:
    secret = written(tmp_path / "secret.zarr", image=sky())
    place = str(secret / "image") if place == "SECRET" else place
    field = referring(tmp_path, place)
    (tmp_path / "in" / "link").symlink_to(secret)
    for opened in (Field.open, Field.reopen):
        with pytest.raises(UserError) as caught:
            opened(field)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_another_store_is_read_where_the_user_names_it(tmp_path: Path) -> None:
    """Of two fields with the same reference only the one whose user knows the store is opened."""
    store = "memory://public/a.zarr"
    url = written(tmp_path / "a.zarr", image=sky())
    fs = fsspec.filesystem("memory")
    fs.put(str(url), "/public/a.zarr", recursive=True)
    known: dict[str, Any] = {"memory://public": {}}
    with pytest.raises(FieldError, match=r"refers to memory://.*as a section 'memory://public'"):
        ingest([f"{store}/image"], f"{tmp_path}/f.zarr", by_reference=True, **HOW)
    ingest([f"{store}/image"], f"{tmp_path}/f.zarr", by_reference=True, options=known, **HOW)
    assert not Field.open(f"{tmp_path}/f.zarr", known).is_local
    with pytest.raises(
        FieldError, match=r"if you trust it, name that store in your storage options"
    ):
        Field.open(f"{tmp_path}/f.zarr", {"memory://pub": {}})
    fs.rm("/public", recursive=True)


def test_a_field_is_written_beside_its_array(tmp_path: Path) -> None:
    url = written(tmp_path / "in" / "a.zarr", image=sky())
    with pytest.raises(
        ConfigError, match=r"refers to arrays beside or below it only; write it into .*in/a"
    ):
        ingest([f"{url}/image"], f"{tmp_path}/out/f.zarr", by_reference=True, **HOW)
    ingest([f"{url}/image"], f"{tmp_path}/f.zarr", by_reference=True, **HOW)
    (tmp_path / "moved").mkdir()
    shutil.copytree(tmp_path / "in", tmp_path / "moved" / "in", copy_function=shutil.copy2)
    shutil.move(tmp_path / "f.zarr", tmp_path / "moved" / "f.zarr")
    shutil.rmtree(tmp_path / "in")
    field = Field.open(f"{tmp_path}/moved/f.zarr")
    np.testing.assert_array_equal(field.plane(0, *WHOLE), sky())


def test_a_run_on_pixels_of_others(tmp_path: Path) -> None:
    """The rows are those of a copy; an array that changes, or goes, is found by whatever opens the field."""
    shape, rng = (300, 320), np.random.default_rng(1)
    yx = rng.uniform(20, 280, (30, 2))
    yx[1::2] = yx[::2] + 8
    image = gaussian_image(shape, yx, rng.uniform(50, 300, len(yx)), noise=1.0)
    url = written(tmp_path / "a.zarr", image=image, variance=np.ones(shape, "f4"))
    table = pa.table({"id": np.arange(len(yx)), "x": yx[:, 1], "y": yx[:, 0]})
    pq.write_table(table, tmp_path / "d.parquet")
    model = write_tiny_model(f"{tmp_path}/tiny.safetensors")
    for name, refer in (("there", True), ("here", False)):
        ingest(
            [f"{url}/image"], f"{tmp_path}/{name}.zarr", variance_hdu=["variance"],
            by_reference=refer, background="keep", **HOW,
        )  # fmt: skip
        found = process_field(config(tmp_path, name, model))
        assert found.state == "complete"
    rows = read_shards(f"{tmp_path}/there")
    assert len(rows) > 20
    assert same_rows(rows, read_shards(f"{tmp_path}/here"))
    assert not verify_run(Output(f"{tmp_path}/there")).problems
    inside = {**config(tmp_path, "there", model), "output": f"{url}/image/out"}
    with pytest.raises(OutputConflictError, match=r"lies in .*a.zarr/image, which is read"):
        plan_run(RunConfig.model_validate(inside))
    zarr.open_array(f"{url}/image", mode="r+")[0, 0] = 5
    message = r"a.zarr/image, to which it refers, has changed since; ingest it again by reference"
    with pytest.raises(FieldError, match=message):
        plan_run(RunConfig.model_validate(config(tmp_path, "there", model)))
    with pytest.raises(FieldError, match=message):
        process_field(config(tmp_path, "there", model))
    shutil.rmtree(url)
    with pytest.raises(
        NotFoundError, match=r"a.zarr/image, to which it refers, has gone; bring it"
    ):
        process_field(config(tmp_path, "there", model))


def config(folder: Path, name: str, model: str) -> dict[str, Any]:
    nothing = np.empty(0, np.int64), np.empty((0, 2)), np.empty(0, np.float32)
    field = SmallField(f"{folder}/{name}.zarr", f"{folder}/d.parquet", *nothing, model)
    return field.config(f"{folder}/{name}", engine={"actors": 1})


def test_a_reference_speaks_of_its_place_alone() -> None:
    """Nothing is read to tell where a reference leads, and no path of this machine is one."""
    assert (
        Reference("a.zarr/image", "x").url("s3://mine/in/f.zarr", None)
        == "s3://mine/in/a.zarr/image"
    )
    with pytest.raises(UserError, match="cannot be the name"):
        Reference("../a.zarr", "x").url("s3://mine/in/f.zarr", None)
