"""Catalogue rows: right numbers in right units, flags that say why one is missing, bytes of rows alone."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import flags
from deblend_batch.catalog.schema import shard_schema
from deblend_batch.catalog.shard import Measurement, encode, make_rows
from deblend_batch.tiling.blends import Blends
from tests.blends import blends_of_two
from tests.support import make_meta

ZERO_POINTS = (25.96, 27.0)
BANDS = ("g", "r")


def pairs_of(n: int) -> Blends:
    """Pairs whose every number names its place."""
    base = np.arange(2 * n, dtype=np.float64).reshape(n, 2)
    return blends_of_two(
        np.stack([base + 0.25, base + 1000.5], axis=-1),
        blend_id=np.arange(n) + 7,
        source_id=base.astype(np.int64) + 100,
        radec=np.stack([150 + base / 100, base / 100 - 1], axis=-1),
        separation_arcsec=np.repeat(np.linspace(0.5, 2, n)[:, None], 2, axis=1),
        is_primary=base % 3 == 0,
    )


def meta_of(bands: Any = BANDS, zero_points: Any = ZERO_POINTS) -> Any:
    """What a field says of its bands."""
    return make_meta(
        bands=tuple(bands),
        zero_point=tuple(zero_points),
        psf_fwhm_arcsec=(0.3,) * len(bands),
        noise_sigma=None,
    )


def measured(flux: Any, bits: Any = 0, flux_err: float = 0.5) -> Measurement:
    """A measurement; ``flux`` is (n, band, member)."""
    values = np.array(flux, np.float32)
    n = len(values)
    return Measurement(
        {
            "flux": values,
            "flux_err": np.full(values.shape, flux_err, np.float32),
            "mask_area": np.arange(2 * n, dtype=np.float32).reshape(n, 2),
            "mask_overlap": np.full((n, 2), 3, np.float32),
            "flags": np.broadcast_to(np.array(bits, np.int32), (n, 2)).copy(),
        }
    )


def rows_of(flux: Any, **changes: Any) -> pa.Table:
    """Rows of as many pairs as there are fluxes, in two bands."""
    found = measured(flux, **changes)
    return make_rows("y0003x0004", pairs_of(len(flux)), found, meta_of(), "a network")


def test_two_rows_a_pair_the_central_first() -> None:
    rows = rows_of(np.ones((3, 2, 2))).to_pydict()
    assert rows["blend_id"] == [7, 7, 8, 8, 9, 9]
    assert rows["source_id"] == [100, 101, 102, 103, 104, 105]
    assert rows["neighbour_id"] == [101, 100, 103, 102, 105, 104]
    assert rows["role"] == ["central", "companion"] * 3
    assert rows["is_primary"] == [True, False, False, True, False, False]
    assert rows["separation"] == [0.5, 0.5, 1.25, 1.25, 2.0, 2.0]
    assert rows["y"] == [0.25, 1.25, 2.25, 3.25, 4.25, 5.25]
    assert rows["x"] == [1000.5, 1001.5, 1002.5, 1003.5, 1004.5, 1005.5]
    assert rows["mask_area"] == [0, 1, 2, 3, 4, 5]
    assert rows["mask_overlap"] == [3] * 6
    assert set(rows["tile"]) == {"y0003x0004"}
    np.testing.assert_allclose(rows["dec"], np.arange(6) / 100 - 1)


def test_rows_have_the_schema_of_the_contract() -> None:
    assert rows_of(np.ones((2, 2, 2))).schema.equals(shard_schema(BANDS), check_metadata=True)
    assert rows_of(np.ones((0, 2, 2))).schema.equals(shard_schema(BANDS), check_metadata=True)


@given(
    st.floats(2.0**-20, 2.0**20, width=32),
    st.floats(2.0**-20, 2.0**10, width=32),
    st.floats(15, 35),
)
def test_fluxes_and_magnitudes_are_those_of_astropy(
    flux: float, flux_err: float, zero_point: float
) -> None:
    said = measured([[[flux, 2 * flux]]], flux_err=flux_err)
    meta = meta_of(["h"], [zero_point])
    found = make_rows("t", pairs_of(1), said, meta, "a network").to_pydict()
    magnitude = (zero_point - 2.5 * np.log10(flux)) * u.ABmag
    assert found["flux_h"][0] == pytest.approx(magnitude.to_value(u.nJy), rel=1e-6)
    assert found["flux_h"][1] == pytest.approx(2 * magnitude.to_value(u.nJy), rel=1e-6)
    assert found["mag_h"][0] == pytest.approx(magnitude.value, rel=1e-6, abs=1e-6)
    one = (zero_point * u.ABmag).to_value(u.nJy)
    assert found["flux_err_h"][0] == pytest.approx(flux_err * one, rel=1e-6)
    assert found["mag_err_h"][0] == pytest.approx(2.5 / np.log(10) * flux_err / flux, rel=1e-6)


def test_bands_keep_their_zero_points() -> None:
    rows = rows_of([[[1.0, 2.0], [3.0, 4.0]]]).to_pydict()
    unit = [(zero_point * u.ABmag).to_value(u.nJy) for zero_point in ZERO_POINTS]
    np.testing.assert_allclose(rows["flux_g"], [unit[0], 2 * unit[0]], rtol=1e-6)
    np.testing.assert_allclose(rows["flux_r"], [3 * unit[1], 4 * unit[1]], rtol=1e-6)


NAN = float("nan")


@pytest.mark.parametrize(
    ("flux", "bits", "expected"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], 0, ([], [])),
        ([[1.0, -1.0], [1.0, 1.0]], 0, ([], ["NOT_POSITIVE"])),
        ([[1.0, 1.0], [0.0, 1.0]], 0, (["NOT_POSITIVE"], [])),
        ([[NAN, NAN], [1.0, 1.0]], 0, (["NO_DATA"], ["NO_DATA"])),
        ([[NAN, 1.0], [-1.0, 1.0]], 0, (["NOT_POSITIVE", "NO_DATA"], [])),
        ([[float("inf"), 1.0], [1.0, 1.0]], 0, (["NO_DATA"], [])),
        (
            [[1.0, NAN], [1.0, NAN]],
            [0, flags.COMPANION_OUTSIDE.value],
            ([], ["COMPANION_OUTSIDE"]),
        ),
        (
            [[NAN, NAN], [1.0, NAN]],
            [0, flags.COMPANION_OUTSIDE.value],
            (["NO_DATA"], ["COMPANION_OUTSIDE"]),
        ),
        ([[1.0, -1.0], [1.0, 1.0]], flags.EDGE.value, (["EDGE"], ["EDGE", "NOT_POSITIVE"])),
    ],
    ids=[
        "fine",
        "negative companion",
        "zero in the second band",
        "no pixels in a band",
        "negative in one, missing in the other",
        "infinite",
        "companion outside",
        "companion outside, central missing",
        "beside another flag",
    ],
)
def test_flags_say_why_a_number_is_missing(
    flux: list[list[float]], bits: Any, expected: tuple[list[str], list[str]]
) -> None:
    rows = rows_of([flux], bits=bits).to_pydict()
    assert tuple(flags.decode(value) for value in rows["flags"]) == expected
    for number, band in enumerate(BANDS):
        for member in (0, 1):
            value = flux[number][member]
            known = bool(np.isfinite(rows[f"mag_{band}"][member]))
            assert known is bool(np.isfinite(value) and value > 0)


def test_the_measurement_is_left_as_it_was() -> None:
    found = measured([[[-1.0, 1.0], [1.0, 1.0]]])
    make_rows("t", pairs_of(1), found, meta_of(), "a network")
    assert not found.columns["flags"].any()


def ang2pix_nest(ra_deg: float, dec_deg: float, order: int) -> int:
    """Nested HEALPix index after Gorski et al. 2005 (doi:10.1086/427976), section 4 and figure 3."""
    nside, z = 2**order, np.sin(np.radians(dec_deg))
    turn = (ra_deg % 360) / 90
    if abs(z) <= 2 / 3:
        up, down = nside * (0.5 + turn - z * 0.75), nside * (0.5 + turn + z * 0.75)
        face_up, face_down = int(up) // nside, int(down) // nside
        if face_up == face_down:
            face = face_up % 4 + 4
        else:
            face = face_up % 4 if face_up < face_down else face_down % 4 + 8
        x, y = int(down) % nside, nside - int(up) % nside - 1
    else:
        quarter, within = int(turn), turn - int(turn)
        reach = nside * np.sqrt(3 * (1 - abs(z)))
        a, b = int(within * reach), int((1 - within) * reach)
        face = quarter if z > 0 else quarter + 8
        x, y = (nside - b - 1, nside - a - 1) if z > 0 else (a, b)
    bits = sum(((x >> i) & 1) << 2 * i | ((y >> i) & 1) << (2 * i + 1) for i in range(order))
    return int(face * nside**2 + bits)


@given(st.floats(0, 359.99), st.floats(-89.9, 89.9))
def test_the_healpix_column_names_the_cell_that_holds_the_row(ra: float, dec: float) -> None:
    pairs = pairs_of(1)
    pairs.radec[0] = [(ra, dec), (ra, -dec)]
    said = measured(np.ones((1, 2, 2)))
    rows = make_rows("t", pairs, said, meta_of(), "a network").to_pydict()
    order = 9
    for index, sign in zip(rows["_healpix_29"], (1, -1), strict=True):
        # Within a hair of a border either cell will do.
        near = {
            ang2pix_nest((ra + dr) % 360, np.clip(sign * dec + dd, -90, 90), order)
            for dr in (-1e-9, 0, 1e-9)
            for dd in (-1e-9, 0, 1e-9)
        }
        assert index >> (2 * (29 - order)) in near


def test_the_same_rows_are_the_same_bytes() -> None:
    first, second = (encode(rows_of(np.arange(1, 41).reshape(10, 2, 2))) for _ in range(2))
    assert first == second
    other = encode(rows_of(np.arange(2, 42).reshape(10, 2, 2)))
    assert other != first
    table = pq.read_table(io.BytesIO(first))
    assert table.equals(rows_of(np.arange(1, 41).reshape(10, 2, 2)))
    assert table.schema.field("flux_g").metadata[b"unit"] == b"nJy"


def test_another_process_writes_the_same_bytes() -> None:
    """What a shard's sha256 may depend on: no hash seed, no thread, no clock."""
    program = (
        "import hashlib, numpy as np, pyarrow as pa; pa.set_cpu_count(3);"
        f"import importlib.util as i; s = i.spec_from_file_location('t', {__file__!r});"
        "t = i.module_from_spec(s); s.loader.exec_module(t);"
        "rows = t.rows_of(np.arange(1, 41).reshape(10, 2, 2));"
        "print(hashlib.sha256(t.encode(rows)).hexdigest())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PATH": "", "TZ": "Asia/Tokyo"},
    )
    here = encode(rows_of(np.arange(1, 41).reshape(10, 2, 2)))
    assert ended.stdout.strip() == hashlib.sha256(here).hexdigest()
