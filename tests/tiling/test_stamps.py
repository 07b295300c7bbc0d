"""Stamps hold the pixels round the central, whatever is near the edge, and say what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch import flags
from deblend_batch.errors import BadDataError
from deblend_batch.field.layout import Field, create_field, finish_field
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.reader import TilePixels, read_tile
from deblend_batch.tiling.stamps import StampCutter
from deblend_batch.tiling.tile import Box
from tests.blends import blends_of_two
from tests.support import make_meta, member

SIZE = 16


def pairs_at(
    central: list[tuple[float, float]], offset: tuple[float, float] = (3.0, 2.0)
) -> Blends:
    """Pairs at given positions; everything else is of no interest."""
    yx = np.array(central, np.float64)
    return blends_of_two(np.stack([yx, yx + offset], axis=1), SIZE)


def tile_of(
    image: np.ndarray, variance: np.ndarray | None = None, margin: int = SIZE
) -> TilePixels:
    """The whole image as one tile with a margin outside it, as the reader gives it."""
    inside = Box(0, 0, *image.shape[1:])
    pad = ((0, 0), (margin, margin), (margin, margin))
    wide = np.pad(image, pad, constant_values=np.nan)
    noise = None if variance is None else np.pad(variance, pad, constant_values=np.nan)
    return TilePixels(inside.grown(margin), wide, noise, None, inside)


def cutter(tile: TilePixels, sigma: float = 1.0) -> StampCutter:
    """A cutter of 16 px stamps."""
    return StampCutter(tile, np.full(tile.image.shape[0], sigma, np.float32), with_weights=True)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-0.5, 39.49), st.floats(-0.5, 59.49)), min_size=1, max_size=8),
    st.integers(1, 3),
)
def test_every_pixel_is_the_field_s_and_the_central_is_at_the_centre(
    central: list[tuple[float, float]], bands: int
) -> None:
    image = np.random.default_rng(0).normal(0, 1, (bands, 40, 60)).astype(np.float32)
    stamps = cutter(tile_of(image)).cut(pairs_at(central))
    assert stamps.pixels.shape == (len(central), bands, SIZE, SIZE)
    for row, (y, x) in enumerate(central):
        cy, cx = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        for dy, dx in ((0, 0), (-8, -8), (7, 7), (3, -5)):
            inside = 0 <= cy + dy < 40 and 0 <= cx + dx < 60
            expected = image[:, cy + dy, cx + dx] if inside else np.zeros(bands)
            np.testing.assert_array_equal(stamps.pixels[row, :, 8 + dy, 8 + dx], expected)
        np.testing.assert_allclose(
            stamps.cut.members_yx[row, 0], (8 + y - cy, 8 + x - cx), atol=1e-4
        )
        np.testing.assert_allclose(
            stamps.cut.members_yx[row, 1] - stamps.cut.members_yx[row, 0], (3, 2), atol=1e-4
        )


@pytest.mark.parametrize(
    ("central", "edge"),
    [
        ((20.0, 30.0), False),
        ((8.0, 30.0), False),
        ((7.0, 30.0), True),
        ((20.0, 53.0), True),
        ((32.0, 30.0), False),
        ((33.0, 30.0), True),
    ],
)
def test_edge_is_flagged_exactly_where_the_stamp_leaves_the_image(
    central: tuple[float, float], edge: bool
) -> None:
    stamps = cutter(tile_of(np.zeros((1, 40, 60), np.float32))).cut(pairs_at([central]))
    assert bool(stamps.cut.flags[0, 0] & flags.EDGE.value) is edge
    assert not stamps.cut.flags[0, 0] & flags.BAD_PIXELS.value


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 59)), max_size=6),
    st.tuples(st.integers(0, 39), st.integers(0, 59)),
)
def test_bad_pixels_are_counted_where_they_are(
    bad: list[tuple[int, int]], at: tuple[int, int]
) -> None:
    image = np.ones((1, 40, 60), np.float32)
    for y, x in bad:
        image[0, y, x] = np.nan
    stamps = cutter(tile_of(image)).cut(pairs_at([(float(at[0]), float(at[1]))]))
    dy = np.array([y - at[0] for y, _ in bad])
    dx = np.array([x - at[1] for _, x in bad])
    in_stamp = ((dy >= -8) & (dy < 8) & (dx >= -8) & (dx < 8)).any() if bad else False
    centre = ((abs(dy) <= 2) & (abs(dx) <= 2)).any() if bad else False
    companion = ((abs(dy - 3) <= 2) & (abs(dx - 2) <= 2)).any() if bad else False
    got = stamps.cut.flags[0]
    assert bool(got[0] & flags.BAD_PIXELS.value) is bool(in_stamp)
    if in_stamp:
        assert bool(got[0] & flags.BAD_CENTRE.value) is bool(centre)
        assert bool(got[1] & flags.BAD_CENTRE.value) is bool(companion)
    assert np.isfinite(stamps.pixels).all()


def test_a_companion_outside_the_stamp_is_flagged() -> None:
    stamps = cutter(tile_of(np.zeros((1, 40, 60), np.float32)))
    assert stamps.cut(pairs_at([(20, 30)], (0, 9))).cut.flags[0, 0] & flags.COMPANION_OUTSIDE.value
    assert (
        not stamps.cut(pairs_at([(20, 30)], (0, 7))).cut.flags[0, 0] & flags.COMPANION_OUTSIDE.value
    )


def test_noise_comes_from_the_variance_plane_else_from_the_field() -> None:
    image = np.zeros((2, 40, 60), np.float32)
    variance = np.stack([np.full((40, 60), 4.0), np.full((40, 60), 9.0)]).astype(np.float32)
    at = pairs_at([(20, 30), (1, 1)])
    assert cutter(tile_of(image, variance)).cut(at).cut.sigma.tolist() == [[2, 3], [2, 3]]
    assert cutter(tile_of(image), 0.5).cut(at).cut.sigma.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    variance[:] = np.nan
    assert cutter(tile_of(image, variance), 0.25).cut(at).cut.sigma.tolist() == [[0.25] * 2] * 2


def test_neighbours_move_into_the_stamp() -> None:
    pairs = pairs_at([(20.2, 30.4)])
    pairs.others_yx[0, 0] = (25, 33)
    stamps = cutter(tile_of(np.zeros((1, 40, 60), np.float32))).cut(pairs)
    assert stamps.cut.others_yx[0, 0].tolist() == [13, 11]
    assert np.isnan(stamps.cut.others_yx[0, 1:]).all()


def test_stamps_do_not_depend_on_how_pairs_are_grouped() -> None:
    image = np.random.default_rng(1).normal(0, 1, (1, 40, 60)).astype(np.float32)
    image[0, 10, 10] = np.nan
    pairs = pairs_at(
        [(float(y), float(x)) for y, x in np.random.default_rng(2).uniform(0, 39, (9, 2))]
    )
    tool = cutter(tile_of(image))
    whole = tool.cut(pairs)
    parts = [tool.cut(pairs[start : start + 2]) for start in range(0, 9, 2)]
    for name in ("pixels", "weights"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), joined)
    for name in ("members_yx", "sigma", "flags", "saturated"):
        joined = np.concatenate([getattr(part.cut, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole.cut, name), joined)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    """90 x 110 px with a mask, variance and NaN."""
    url = str(tmp_path_factory.mktemp("field") / "f.zarr")
    meta = make_meta(noise_sigma=None)
    group = create_field(url, meta, (90, 110), with_variance=True, mask=True)
    image = np.arange(90 * 110, dtype=np.float32).reshape(90, 110)
    image[3, 4] = np.nan
    mask = np.zeros((90, 110), np.uint8)
    mask[50, 60] = 4
    for name, plane in (("image", image), ("variance", np.ones_like(image)), ("mask", mask)):
        member(group, name)[0] = plane
    finish_field(group, meta)
    return Field.open(url)


@pytest.mark.parametrize(
    "box",
    [
        Box(10, 20, 40, 50),
        Box(-5, -7, 20, 20),
        Box(80, 100, 120, 130),
        Box(0, 0, 90, 110),
        Box(200, 200, 210, 210),
    ],
    ids=["inside", "low corner", "high corner", "all", "outside"],
)
def test_a_tile_is_its_box_with_nan_outside(field: Field, box: Box) -> None:
    pixels = read_tile(field, box)
    assert pixels.image.shape == (1, *box.shape_yx)
    expected = np.full(box.shape_yx, np.nan, np.float32)
    image = np.arange(90 * 110, dtype=np.float32).reshape(90, 110)
    image[3, 4] = image[50, 60] = np.nan
    for y in range(box.y0, box.y1):
        for x in range(box.x0, box.x1):
            if 0 <= y < 90 and 0 <= x < 110:
                expected[y - box.y0, x - box.x0] = image[y, x]
    np.testing.assert_array_equal(pixels.image[0], expected)
    assert pixels.variance is not None


def test_a_read_never_exceeds_its_box(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[slice, ...]] = []
    original = zarr.Array.__getitem__

    def watch(self: zarr.Array[Any], key: Any) -> Any:
        asked.append(key)
        return original(self, key)

    monkeypatch.setattr(zarr.Array, "__getitem__", watch)
    read_tile(Field.open(field.url), Box(10, 20, 40, 50))
    assert asked
    for key in asked:
        *_, rows, columns = key
        if rows.start == rows.stop:
            continue  # Dask asks for nothing, to learn the type
        assert rows.start >= 10
        assert rows.stop <= 40
        assert columns.start >= 20
        assert columns.stop <= 50


def test_a_damaged_chunk_is_bad_data_that_names_its_place(field: Field, tmp_path: object) -> None:
    import shutil
    from pathlib import Path

    copy = Path(str(tmp_path)) / "f.zarr"
    shutil.copytree(field.url, copy)
    chunk = next(path for path in (copy / "image" / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(bytes(content))
    # The chunk's own pixels, and no bytes of its checksum.
    with pytest.raises(
        BadDataError,
        match=r"f.zarr: image\[0:\d+, 0:\d+\]: cannot decode a chunk \([\w ]+ do not match\)$",
    ):
        read_tile(Field.open(str(copy)), Box(10, 20, 40, 50))


def test_a_chunk_that_was_never_stored_is_bad(tmp_path: Path) -> None:
    url = str(tmp_path / "zeros.zarr")
    group = zarr.open_group(
        url,
        mode="w",
        attributes=make_meta(
            bands=("g", "h"), zero_point=(25, 25), psf_fwhm_arcsec=(0.3, 0.3), noise_sigma=(1, 1)
        ).to_attributes(),
    )
    image = np.random.default_rng(0).normal(size=(2, 96, 96)).astype(np.float32)
    image[:, 50, 40:60] = 0  # zeros that were stored
    group.create_array("image", data=image, chunks=(1, 32, 32), fill_value=0)
    for chunk in (tmp_path / "zeros.zarr" / "image" / "c" / "1").rglob("1/2"):
        chunk.unlink()
    pixels = read_tile(Field.open(url), Box(-4, 20, 70, 100)).image
    lost = np.zeros((2, 74, 80), bool)
    lost[1, 36:68, 44:76] = True
    lost[:, :4] = lost[:, :, 76:] = True  # outside the image
    np.testing.assert_array_equal(np.isnan(pixels), lost)


def test_pairs_can_be_replaced_and_sliced() -> None:
    pairs = pairs_at([(1, 1), (2, 2), (3, 3)])
    assert pairs[1:].blend_id.tolist() == [1, 2]
    assert len(replace(pairs[:1])) == 1


@settings(max_examples=30, deadline=None)
@given(
    bad=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 59)), min_size=1, max_size=8),
    central=st.tuples(st.floats(0, 39), st.floats(0, 59)),
    offset=st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
    more=st.tuples(*[st.integers(0, 30)] * 4),
)
def test_a_stamp_does_not_depend_on_how_much_was_read_round_it(
    tmp_path_factory: pytest.TempPathFactory,
    bad: list[tuple[int, int]],
    central: tuple[float, float],
    offset: tuple[float, float],
    more: tuple[int, int, int, int],
) -> None:
    field = _field_with_holes(tmp_path_factory, bad)
    pairs = pairs_at([central], offset)
    corner = np.floor(pairs.yx[0, 0] + 0.5).astype(int) - SIZE // 2
    tight = Box(*corner.tolist(), *(corner + SIZE).tolist())
    wide = Box(tight.y0 - more[0], tight.x0 - more[1], tight.y1 + more[2], tight.x1 + more[3])
    first, second = (cutter(read_tile(field, box)).cut(pairs) for box in (tight, wide))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.cut.flags, second.cut.flags)


def _field_with_holes(
    tmp_path_factory: pytest.TempPathFactory, bad: list[tuple[int, int]]
) -> Field:
    """A field of ones in small chunks, with bad pixels and a corner of zeros, as beyond a footprint."""
    url = str(tmp_path_factory.mktemp("holes") / "field.zarr")
    group = create_field(url, make_meta(), (40, 60), with_variance=False)
    group.create_array("image", shape=(1, 40, 60), chunks=(1, 10, 10), dtype="f4", overwrite=True)
    image = np.ones((40, 60), np.float32)
    image[:25, :15] = 0
    for y, x in bad:
        image[y, x] = np.nan
    member(group, "image")[0] = image
    finish_field(group, make_meta())
    return Field.open(url)
