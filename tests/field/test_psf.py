"""A PSF that varies: written, read, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.detect.places import places_of
from deblend_batch.engine.methods.psf_mixtures import PsfMixtures
from deblend_batch.errors import BadDataError, FieldError, TooLargeError
from deblend_batch.field.layout import Field, create_field, finish_field
from deblend_batch.field.psf.profile import psf_image
from deblend_batch.field.psf.varying import (
    CellGrid,
    FieldPsf,
    PsfKernels,
    even_grid,
    square_grid,
)
from deblend_batch.models.profile_fit.light.psf import psf_of_width
from deblend_batch.tiling.tile import Box
from tests.blends import blends_of_two
from tests.field.test_layout import meta

SHAPE = (300, 700)


def gaussian_kernels(counts: tuple[int, ...], size: int = 11) -> np.ndarray:
    """Kernels whose width grows from cell to cell."""
    y, x = np.indices((size, size)) - size // 2
    sigma = 1.2 + 0.05 * np.arange(np.prod(counts)).reshape(*counts, 1, 1)
    images = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    return np.asarray(images / images.sum(axis=(-2, -1), keepdims=True), np.float32)


def varying(cell_px: float = 200.0) -> FieldPsf:
    grid = square_grid(cell_px, SHAPE)
    images = gaussian_kernels((2, *grid.counts_yx))
    known = np.ones((2, *grid.counts_yx), bool)
    widths = np.linspace(0.5, 0.9, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    return FieldPsf(even_grid((3, 4), SHAPE), widths, PsfKernels(grid, images, known))


def field_with(url: str, psf: FieldPsf | None) -> Field:
    group = create_field(url, meta(), SHAPE, with_variance=False, psf=psf)
    group["image"][...] = np.zeros((2, *SHAPE), np.float32)  # type: ignore[index]
    finish_field(group, meta())
    return Field.open(url)


def test_a_psf_that_varies_comes_back(tmp_path: Path) -> None:
    psf = varying()
    found = field_with(f"{tmp_path}/a.zarr", psf).psf
    assert (found.grid, found.kernels and found.kernels.grid) == (
        psf.grid,
        CellGrid((2, 4), (200.0, 200.0)),
    )
    np.testing.assert_array_equal(found.fwhm_arcsec, psf.fwhm_arcsec)
    assert found.kernels is not None
    assert psf.kernels is not None
    np.testing.assert_array_equal(found.kernels.images, psf.kernels.images)
    assert found.kernels.is_known.all()


def test_a_field_that_says_nothing_has_one_cell(tmp_path: Path) -> None:
    found = field_with(f"{tmp_path}/a.zarr", None).psf
    assert found.kernels is None
    assert found.fwhm_arcsec.tolist() == [[[np.float32(0.7)]], [[np.float32(0.7)]]]
    yx = np.array([[-50.0, 1e6], [150.0, 20.0]])
    np.testing.assert_array_equal(found.fwhm_at(yx), np.full((2, 2), np.float32(0.7)))
    assert not {"psf", "psf_fwhm_map"} & set(zarr.open_group(f"{tmp_path}/a.zarr").keys())


@given(
    cell_px=st.floats(1, 1000),
    yx=st.lists(st.tuples(st.floats(-0.5, 299.4), st.floats(-0.5, 699.4)), min_size=1),
)
def test_every_position_has_the_cell_that_holds_its_pixel(
    cell_px: float, yx: list[tuple[float, float]]
) -> None:
    for grid in (square_grid(cell_px, SHAPE), even_grid((3, 7), SHAPE)):
        cell = grid.cells(np.array(yx))
        edge = np.array(grid.edge_yx)
        assert (cell >= 0).all()
        assert (cell < grid.counts_yx).all()
        assert (cell * edge - 0.5 <= np.array(yx) + 1e-9).all()
        assert (np.array(yx) <= (cell + 1) * edge - 0.5 + 1e-9).all()
        assert (np.array(grid.counts_yx) * edge >= np.array(SHAPE) - 1e-9).all()


def test_kernels_and_widths_of_positions() -> None:
    psf = varying()
    assert psf.kernels is not None
    yx = np.array([[0.0, 0.0], [199.4, 199.6], [299.0, 699.0], [-9.0, 5000.0]])
    at = psf.kernels.at(yx)
    assert at.shape == (4, 2, 11, 11)
    for row, (y, x) in enumerate([(0, 0), (0, 1), (1, 3), (0, 3)]):
        np.testing.assert_array_equal(at[row], psf.kernels.images[:, y, x])
    np.testing.assert_array_equal(psf.fwhm_at(yx), psf.fwhm_arcsec[:, [0, 1, 2, 0], [0, 1, 3, 3]].T)


def test_a_cell_without_a_kernel_has_that_of_the_nearest(tmp_path: Path) -> None:
    psf = varying()
    assert psf.kernels is not None
    known = psf.kernels.is_known.copy()
    known[0, 0, :2] = False
    known[1] = False
    partly = FieldPsf(
        psf.grid, psf.fwhm_arcsec, PsfKernels(psf.kernels.grid, psf.kernels.images, known)
    )
    found = field_with(f"{tmp_path}/a.zarr", partly).psf.kernels
    assert found is not None
    np.testing.assert_array_equal(found.is_known, known)
    np.testing.assert_array_equal(found.images[0, 0, 0], psf.kernels.images[0, 1, 0])
    np.testing.assert_array_equal(found.images[0, 0, 1], psf.kernels.images[0, 1, 1])
    np.testing.assert_array_equal(found.images[0, 1], psf.kernels.images[0, 1])
    assert np.isnan(found.images[1]).all()


def test_a_width_that_is_not_known_is_that_of_the_band(tmp_path: Path) -> None:
    psf = varying()
    psf.fwhm_arcsec[1, 0, 2] = np.nan
    found = field_with(f"{tmp_path}/a.zarr", psf).psf
    assert found.fwhm_arcsec[1, 0, 2] == np.float32(0.7)


def spoil_kernels(change: Callable[[np.ndarray], Any]) -> Callable[[zarr.Group], None]:
    def spoil(group: zarr.Group) -> None:
        array: Any = group["psf/kernels"]
        values = array[...]
        change(values)
        array[...] = values

    return spoil


def spoil_widths(value: float) -> Callable[[zarr.Group], None]:
    def spoil(group: zarr.Group) -> None:
        group["psf_fwhm_map"][1, 2, 3] = value  # type: ignore[index]

    return spoil


def new_kernels(
    shape: tuple[int, ...], dtype: str = "float32", **more: Any
) -> Callable[[zarr.Group], None]:
    def spoil(group: zarr.Group) -> None:
        group.create_array("psf/kernels", shape=shape, dtype=dtype, overwrite=True, **more)

    return spoil


def new_map(shape: tuple[int, ...], dtype: str = "float32") -> Callable[[zarr.Group], None]:
    def spoil(group: zarr.Group) -> None:
        group.create_array("psf_fwhm_map", shape=shape, dtype=dtype, overwrite=True)

    return spoil


def cell_size(value: Any) -> Callable[[zarr.Group], None]:
    return lambda group: group["psf"].attrs.update({"cell_size": value})


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda group: group["psf"].attrs.clear(), FieldError, "'cell_size' of 'psf' is None; it must be"),
        (cell_size("x" * 10**6), FieldError, "'cell_size' of 'psf' is 'x+.*; it must be the edge of a cell"),
        (cell_size(0), FieldError, "'cell_size' of 'psf' is 0; it must"),
        (cell_size(-5.0), FieldError, "'cell_size' of 'psf' is -5.0"),
        (cell_size(True), FieldError, "'cell_size' of 'psf' is True"),
        (cell_size(10**4000), FieldError, "'cell_size' of 'psf' is <13288 bits>"),
        (cell_size(100.0), FieldError, r"has shape .2, 2, 4, 11, 11.*beginning with \(2, 3, 7\)"),
        (lambda group: group.__delitem__("psf/kernels"), FieldError, "'psf' has no array 'kernels'; write"),
        (new_kernels((2, 2, 3, 11, 11)), FieldError, "'psf/kernels' has shape .*cells that cover the image"),
        (new_kernels((1, 2, 4, 11, 11)), FieldError, "'psf/kernels' has shape .*a band for each"),
        (new_kernels((2, 2, 4, 11)), FieldError, r"it must be \(band, cell_y, cell_x, y, x\)"),
        (new_kernels((2, 2, 4, 0, 0)), FieldError, "'psf/kernels' has shape"),
        (new_kernels((2, 2, 4, 10, 10)), FieldError, "are 10 x 10 px; they must be square, of an odd number"),
        (new_kernels((2, 2, 4, 11, 13)), FieldError, "are 11 x 13 px"),
        (new_kernels((2, 2, 4, 301, 301)), FieldError, "are 301 x 301 px; .* up to 255"),
        (new_kernels((2, 2, 4, 11, 11), "float64"), FieldError, "'psf/kernels' is float64; it must be"),
        (new_kernels((2, 2, 4, 10**6, 10**6), chunks=(1, 1, 1, 512, 512)), TooLargeError, "store larger"),
        (new_kernels((2, 2, 4, 99, 99), chunks=(1, 1, 1, 1, 1)), TooLargeError, "in 156,816 chunks"),
        (lambda group: group.create_array("psf", shape=(3,), dtype="f4", overwrite=True), FieldError,
         "'psf' is an array, not a group"),
        (new_map((2, 3), "float32"), FieldError, r"has shape .*it must be \(band, cell_y, cell_x\),"),
        (new_map((3, 3, 4), "float32"), FieldError, "'psf_fwhm_map' has shape"),
        (new_map((2, 3, 4), "float64"), FieldError, "'psf_fwhm_map' is float64"),
        (new_map((2, 10**5, 10**5), "float32"), TooLargeError, "'psf_fwhm_map' has shape"),
    ],
)  # fmt: skip
def test_what_breaks_the_layout_is_refused_when_the_field_is_opened(
    spoil: Callable[[zarr.Group], Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    url = field_with(f"{tmp_path}/a.zarr", varying()).url
    spoil(zarr.open_group(url, mode="a"))
    with pytest.raises(error, match=f"^{url}: .*{message}") as caught:
        Field.open(url)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def _set(index: tuple[Any, ...], value: float) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[index] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_kernels(_set((1, 0, 3), 0.0)), r"band 'r', cell \(0, 3\), .* sums to 0; it must sum to 1"),
        (spoil_kernels(_set((0, 1, 2), 3.0)), r"band 'g', cell \(1, 2\), .* sums to 363; it must sum"),
        (spoil_kernels(_set((0, 1, 2, 5, 5), np.nan)), "holds NaN or infinity; give numbers, or NaN"),
        (spoil_kernels(_set((0, 1, 2, 5, 5), np.inf)), "holds NaN or infinity"),
        (spoil_kernels(_set((0, 1, 2), 3e38)), "sums to 3.63e.40"),
        (spoil_kernels(_set((0, 1, 2, 5, 5), -0.9)), "it must sum to 1"),
        (spoil_kernels(lambda values: np.copyto(values, np.roll(values, 5, (3, 4)))),
         r"peaks at \(10, 10\); it must peak in its middle, \(5, 5\)"),
        (spoil_widths(-1.0), r"'psf_fwhm_map' holds -1 for band 'r', cell \(2, 3\); each must be"),
        (spoil_widths(np.inf), "'psf_fwhm_map' holds inf"),
        (spoil_widths(0.0), "'psf_fwhm_map' holds 0"),
        (spoil_widths(1e30), r"'psf_fwhm_map' holds 1e\+30"),
    ],
)  # fmt: skip
def test_what_is_no_psf_is_refused_when_it_is_read(
    spoil: Callable[[zarr.Group], None], message: str, tmp_path: Path
) -> None:
    url = field_with(f"{tmp_path}/a.zarr", varying()).url
    spoil(zarr.open_group(url, mode="a"))
    with pytest.raises(FieldError, match=f"^{url}: .*{message}") as caught:
        _ = Field.open(url).psf
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["psf/kernels", "psf_fwhm_map"])
def test_a_damaged_chunk_is_bad_data(name: str, tmp_path: Path) -> None:
    url = field_with(f"{tmp_path}/a.zarr", varying()).url
    for chunk in Path(url, name, "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"x" * 100)
    with pytest.raises(BadDataError, match=f"'{name}' has a chunk that cannot be decoded"):
        _ = Field.open(url).psf


nine_numbers = st.lists(st.floats(width=32, allow_subnormal=False), min_size=9, max_size=9)
nine_counts = st.lists(st.integers(0, 9), min_size=9, max_size=9).filter(any)
shares = nine_counts.map(lambda values: [value / sum(values) for value in values])
nothing_known = st.just([float("nan")] * 9)


@settings(max_examples=40)
@given(values=nine_numbers | shares | nothing_known)
def test_any_numbers_are_a_kernel_or_one_line(values: list[float]) -> None:
    url = "memory://any-kernel.zarr"
    images = np.array(values, np.float32).reshape(1, 1, 1, 3, 3)
    group = create_field(url, meta(("r",)), (20, 20), with_variance=False, overwrite=True)
    inner = group.create_group("psf", attributes={"cell_size": 20})
    inner.create_array("kernels", data=images)
    finish_field(group, meta(("r",)))
    field = Field.open(url)
    finite, unknown = np.isfinite(images).all(), np.isnan(images).all()
    total = float(images.sum(dtype=np.float64)) if finite else np.nan
    if not unknown and not abs(total - 1) <= 0.01:
        with pytest.raises(
            FieldError, match=r"^memory://any-kernel\.zarr: .* in 'psf/kernels' [^\n]*$"
        ):
            _ = field.psf
        return
    kernels = field.psf.kernels
    assert kernels is not None
    np.testing.assert_array_equal(kernels.images, images)
    assert kernels.is_known.all() == finite


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_members_of_another_tool_are_read_in_either_format(
    zarr_format: Any, tmp_path: Path
) -> None:
    url = f"{tmp_path}/a.zarr"
    group = zarr.open_group(url, mode="w", zarr_format=zarr_format)
    group.create_array("image", data=np.zeros((2, *SHAPE), np.float32))
    group.create_group("psf").attrs["cell_size"] = 300
    images = gaussian_kernels((2, 1, 3))
    group["psf"].create_array("kernels", data=images)  # type: ignore[union-attr]
    group.attrs.update(meta().to_attributes())
    found = Field.open(url).psf.kernels
    assert found is not None
    np.testing.assert_array_equal(found.images, images)


@given(known=st.lists(st.booleans(), min_size=16, max_size=16), cell_px=st.floats(60.0, 400.0))
def test_a_cell_has_its_own_kernel_the_nearest_or_the_width_at_its_middle(
    known: list[bool], cell_px: float
) -> None:
    grid = square_grid(cell_px, SHAPE)
    is_known = np.resize(known, (2, *grid.counts_yx))
    images = gaussian_kernels(is_known.shape)
    given_images = np.where(is_known[..., None, None], images, np.float32(np.nan))
    widths = np.linspace(0.5, 0.9, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    psf = FieldPsf(even_grid((3, 4), SHAPE), widths, PsfKernels.of_cells(grid, given_images))
    for band, *cell in np.ndindex(is_known.shape):
        (y, x), found = cell, psf.of_cell(band, (cell[0], cell[1]))
        there = np.argwhere(is_known[band])
        if len(there):
            distance = ((there - (y, x)) ** 2).sum(axis=1)
            nearest = there[distance == distance.min()]
            assert any(np.array_equal(found, images[(band, *each)]) for each in nearest)
        else:
            (y0, x0), (y1, x1) = grid.bounds((y, x))
            middle = np.array([[(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2]])
            assert found == psf.fwhm_at(middle)[0, band]


def test_detection_and_fit_take_the_same_psf(tmp_path: Path) -> None:
    """Of a band without kernels, in a field where another has some: of the width of the place."""
    psf = varying()
    assert psf.kernels is not None
    images = psf.kernels.images.copy()
    images[1] = np.nan
    grid = psf.kernels.grid
    psf = FieldPsf(psf.grid, psf.fwhm_arcsec, PsfKernels.of_cells(grid, images))
    field = field_with(f"{tmp_path}/a.zarr", psf)
    scale = field.pixel_scale_arcsec
    places = places_of(field, 1, Box(0, 0, *SHAPE))
    yx = np.array([[100.0, 100.0], [250.0, 650.0]])
    found = PsfMixtures(field).at(blends_of_two(np.repeat(yx[:, None], 2, axis=1)))
    assert found.is_uncertain[:, 1].all()
    for number, place in ((0, places[0]), (1, places[-1])):
        cell = tuple(grid.cells(yx)[number])
        width = psf.of_cell(1, (int(cell[0]), int(cell[1])))
        assert isinstance(width, float)
        np.testing.assert_array_equal(place.psf, psf_image(width / scale, scale))
        from_space = field.is_from_space(1)
        expected = psf_of_width(width / scale, "diffraction" if from_space else "seeing")
        np.testing.assert_array_equal(found.covariance[number, 1], expected.covariance)
