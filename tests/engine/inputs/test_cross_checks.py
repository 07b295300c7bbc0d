"""Detections against the pixels: what one mistake moves alike in all sources is said, or stops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr

from deblend_batch.engine.inputs.cross_checks import (
    Sources,
    check_magnitudes,
    compare_with_pixels,
    far_shift,
    rank_correlation,
)
from deblend_batch.errors import DetectionsError
from deblend_batch.field.layout import Field, create_field, finish_field
from deblend_batch.field.mask_bits import MaskBits
from tests.support import gaussian_image, make_meta

SHAPE = (300, 400)
BITS = MaskBits({"CR": 0, "DETECTED": 1, "NO_DATA": 2}, ("CR", "NO_DATA"))


def sources() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(4)
    rows, columns = np.arange(30, 280, 35), np.arange(30, 380, 35)
    yx = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    return yx + rng.uniform(-2, 2, yx.shape), 10 ** rng.uniform(1, 2, len(yx))


def field_of(folder: Path, mask: NDArray[np.unsignedinteger] | None = None) -> Field:
    yx, flux = sources()
    meta = make_meta(mask_bits=None if mask is None else BITS)
    group = create_field(
        f"{folder}/f.zarr", meta, SHAPE, with_variance=False, mask=mask is not None
    )
    group["image"][0] = gaussian_image(SHAPE, yx, flux)  # type: ignore[index]
    if mask is not None:
        group["mask"][0] = mask  # type: ignore[index]
    finish_field(group, meta)
    return Field.open(f"{folder}/f.zarr")


def magnitudes(field: Field) -> NDArray[np.float64]:
    return np.asarray(field.meta.zero_point[0] - 2.5 * np.log10(sources()[1]))


def test_what_fits_is_said_in_a_line_each(tmp_path: Path) -> None:
    field = field_of(tmp_path)
    lines = compare_with_pixels(field, sources()[0], magnitudes(field), "t", ())
    assert len(lines) == 2
    assert lines[0].startswith("positions: peaks are ")
    assert lines[1].startswith("magnitudes: -0.")


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (
            (1.0, 1.0),
            r"^t: .* -1\.\d\d px in x and -1\.\d\d in y off; .*'origin: 1'.* 'meant: \[pos",
        ),
        (
            (0.0, 0.6),
            r"peaks of \d+ sources are -0\.6\d px in x and [+-]0\.0\d in y off, in .*f.zarr",
        ),
        (
            (0.5, 0.5),
            r"peaks of \d+ sources are -0\.(4[5-9]|5\d) px in x and -0\.(4[5-9]|5\d) in y",
        ),
        (
            (7.0, -4.0),
            r"the image's peaks are \+4\.\d px in x and -7\.\d in y off its positions, in",
        ),
        ((-11.0, 13.0), r"the image's peaks are -1[23]\.\d px in x and \+1[01]\.\d in y off"),
    ],
)
def test_positions_that_are_off_stop(
    shift: tuple[float, float], message: str, tmp_path: Path
) -> None:
    field = field_of(tmp_path)
    yx, mag = sources()[0] + shift, magnitudes(field)
    with pytest.raises(DetectionsError, match=message):
        compare_with_pixels(field, yx, mag, "t", ())
    assert "px in x" in compare_with_pixels(field, yx, mag, "t", ["positions"])[0]


def test_an_origin_of_1_is_found_where_no_source_stands_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    first, flux = sources()
    angle = rng.uniform(0, 2 * np.pi, len(first))
    yx = np.concatenate([first, first + 6 * np.stack([np.sin(angle), np.cos(angle)], axis=1)])
    fluxes = np.concatenate([flux, flux * rng.uniform(0.2, 1, len(flux))])
    group = create_field(f"{tmp_path}/f.zarr", make_meta(), SHAPE, with_variance=False, mask=False)
    group["image"][0] = gaussian_image(SHAPE, yx, fluxes)  # type: ignore[index]
    finish_field(group, make_meta())
    field, unknown = Field.open(f"{tmp_path}/f.zarr"), np.full(len(yx), np.nan)
    lines = compare_with_pixels(field, yx, unknown, "t", ())
    assert "sources, most of them in blends)" in lines[0]
    with pytest.raises(DetectionsError, match="they seem to count from 1"):
        compare_with_pixels(field, yx + 1, unknown, "t", ())


@settings(max_examples=20, deadline=None)
@given(
    shift=st.tuples(*[st.integers(-36, 36)] * 2).filter(lambda each: max(map(abs, each)) > 4),
    others=st.integers(0, 2000),
    missing=st.floats(0, 0.5),
    scatter=st.floats(0, 0.5),
)
def test_a_shift_is_found_among_others(
    shift: tuple[int, int], others: int, missing: float, scatter: float
) -> None:
    rng = np.random.default_rng(3)
    peaks = rng.uniform(0, 500, (120, 2))
    table = peaks[rng.uniform(size=120) >= missing]
    table = np.concatenate(
        [table + rng.normal(0, scatter, table.shape), rng.uniform(0, 500, (others, 2))]
    )

    def ways(yx: NDArray[np.float64]) -> NDArray[np.float64]:
        pairs = (peaks[:, None] - yx).reshape(-1, 2)
        return np.asarray(pairs[np.hypot(*pairs.T) < 60])

    assert far_shift(ways(table)) is None
    assert far_shift(ways(rng.uniform(0, 500, table.shape))) is None
    assert far_shift(ways(table - shift)) == pytest.approx(shift, abs=1.0)


def test_bright_sources_that_show_no_peak_stop(tmp_path: Path) -> None:
    field = field_of(tmp_path)
    yx = np.random.default_rng(5).uniform(20, 280, (40, 2))
    with pytest.raises(DetectionsError, match=r"of \d+ bright sources \d show a peak in .*f.zarr"):
        compare_with_pixels(field, yx, np.full(40, 10.0), "t", ())
    lines = compare_with_pixels(field, yx, np.full(40, np.nan), "t", ())
    assert lines[0].startswith("positions not compared")


def test_an_order_by_chance_is_no_flux() -> None:
    seen = np.random.default_rng(0).normal(20, 0.01, 400)
    nothing, alone = np.zeros(20, bool), np.ones(20, bool)
    wrong = 0
    for part in np.asarray(seen.reshape(20, 20), np.float64):
        given = np.linspace(20.0, 20.02, 20, dtype=np.float64)
        pairs = np.empty((0, 2))
        found = Sources(np.zeros((20, 2)), part, given, nothing, alone, nothing, pairs, pairs)
        wrong += bool(check_magnitudes(found)[1])
    assert wrong == 0


def test_magnitudes_that_are_fluxes_stop(tmp_path: Path) -> None:
    field = field_of(tmp_path)
    yx, flux = sources()
    with pytest.raises(DetectionsError, match=r"brighter sources have larger magnitudes .*fluxes"):
        compare_with_pixels(field, yx, flux, "t", ())
    with pytest.raises(DetectionsError, match=r"magnitudes are [+]5\.\d of what the pixels hold"):
        compare_with_pixels(field, yx, magnitudes(field) + 6, "t", ())
    assert compare_with_pixels(field, yx, magnitudes(field) + 6, "t", ["magnitudes"])


@pytest.mark.parametrize(("bit", "share"), [(0, 1.0), (1, 0.0), (2, 0.0)])
def test_sources_that_a_mask_calls_bad_stop(bit: int, share: float, tmp_path: Path) -> None:
    yx, _ = sources()
    mask = np.zeros(SHAPE, np.uint8)
    for y, x in np.round(yx).astype(int):
        mask[y - 2 : y + 3, x - 2 : x + 3] = 1 << bit
    field = field_of(tmp_path, mask)
    if share:
        with pytest.raises(
            DetectionsError, match=r"100% of \d+ sources are on pixels that the mask"
        ):
            compare_with_pixels(field, yx, magnitudes(field), "t", ())
        assert (
            "mask: 100.0%" in compare_with_pixels(field, yx, magnitudes(field), "t", ["mask"])[-1]
        )
    else:
        lines = compare_with_pixels(field, yx, magnitudes(field), "t", ())
        assert not any(line.startswith("mask") for line in lines)


def test_without_sources_nothing_is_compared(tmp_path: Path) -> None:
    field = field_of(tmp_path)
    for yx in (np.empty((0, 2)), np.full((3, 2), np.nan), np.array([[150.0, 150.0]])):
        lines = compare_with_pixels(field, yx, np.full(len(yx), np.nan), "t", ())
        assert [line.partition(":")[0] for line in lines] == [
            "positions not compared",
            "magnitudes not compared",
        ]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9)), min_size=2, max_size=20))
def test_the_correlation_of_ranks_is_spearman_s(pairs: list[tuple[int, float]]) -> None:
    first, second = np.array(pairs).T
    if np.ptp(first) > 0 and np.ptp(second) > 0:
        expected = spearmanr(first, second).statistic
        assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)
