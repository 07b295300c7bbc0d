"""Catalogues in the layouts of surveys, read by their records alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from deblend_batch.config import make_config
from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.errors import DetectionsError

N = 4
RA, DEC = 150 + np.arange(N) / 3600, 2 + np.zeros(N)


def read(survey: str, table: str, **section: Any) -> Detections:
    detections = {"survey": survey, "table": table, **section}
    reading = make_config({"field": "/f", "output": "/o", "detections": detections}).reading(None)
    return Detections.concatenate(
        list(read_detections(table, reading.columns, where=reading.where, origin=reading.origin))
    )


def rubin(path: Path) -> str:
    columns = {
        "objectId": np.arange(N) + 609_000_000_000,
        "coord_ra": RA,
        "coord_dec": DEC,
        "x": 14850 + np.arange(N) * 5.0,
        "y": 11850.0 + np.arange(N),
        "r_cModelFlux": [3630.78, 1000.0, 500.0, 100.0],
        "i_cModelFlux": [1.0, 1.0, 1.0, 1.0],
        "detect_isPrimary": [True, True, False, True],
    }
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_rubins_objects(tmp_path: Path) -> None:
    found = read("rubin-dp1", rubin(tmp_path / "object.parquet"), band="r")
    assert found.id.tolist() == [609_000_000_000, 609_000_000_001, 609_000_000_003]
    assert found.yx is None  # of the tract
    assert found.mag[0] == pytest.approx(22.5, abs=1e-3)
    assert (found.n_left_out, found.ra[0]) == (1, 150.0)
    with pytest.raises(DetectionsError, match="no column 'z_cModelFlux'"):
        read("rubin-dp1", rubin(tmp_path / "object.parquet"), band="z")


def test_tractors_bricks(tmp_path: Path) -> None:
    table = Table(
        {
            "release": [10000] * N,
            "brickid": [1, 1, 2, 2],
            "objid": np.array([0, 1, 0, 1], "i4"),
            "brick_primary": [True, True, False, True],
            "type": ["PSF", "DUP", "EXP", "DEV"],
            "ra": RA,
            "dec": DEC,
            "bx": np.arange(N) * 1.0,
            "flux_r": [1.0, 10.0, 1.0, 100.0],
            "shape_r": np.array([0.0, 1.0, 2.0, 2.0]) * u.arcsec,
        }
    )
    table.write(tmp_path / "tractor.fits")
    found = read("legacy-dr10", f"{tmp_path}/tractor.fits")
    assert found.carried is not None
    assert found.carried["source_name"].to_pylist() == ["10000-1-0", "10000-2-1"]
    np.testing.assert_allclose(found.mag, [22.5, 17.5], atol=1e-3)
    np.testing.assert_array_equal(found.radius_arcsec, [np.nan, 2.0])


def test_euclids_catalogue(tmp_path: Path) -> None:
    table = Table(
        {
            "OBJECT_ID": np.array([-6341234567890123, 2, 3, 4]),
            "RIGHT_ASCENSION": RA * u.deg,
            "DECLINATION": DEC * u.deg,
            "FLUX_DETECTION_TOTAL": [3.63078, 1.0, 0.0, -1.0] * u.uJy,
            "SEMIMAJOR_AXIS": [5.0, 4.0, 3.0, 2.0] * u.pix,
        }
    )
    table.write(tmp_path / "mer.fits")
    found = read("euclid-mer", f"{tmp_path}/mer.fits")
    assert found.id[0] == -6341234567890123
    np.testing.assert_allclose(found.mag, [22.5, 23.9, np.nan, np.nan], atol=1e-3)
    assert np.isnan(found.radius_arcsec).all()


def test_jwsts_and_kids_tables(tmp_path: Path) -> None:
    table = Table({"label": np.arange(N), "isophotal_abmag": [22.0, 23.0, 24.0, np.nan]})
    table["sky_centroid"] = SkyCoord(RA * u.deg, DEC * u.deg)
    table.write(tmp_path / "cat.ecsv", format="ascii.ecsv")
    found = read("jwst-i2d", f"{tmp_path}/cat.ecsv")
    np.testing.assert_allclose(found.ra, RA)
    assert found.mag[1] == 23
    names = [f"KIDSDR5 J{n}" for n in range(N)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kids = Table({"ID": names, "RAJ2000": RA, "DECJ2000": DEC, "MAG_AUTO": [20.0, 21, 22, 99]})
        kids.write(tmp_path / "kids.fits")
    found = read("kids-dr5", f"{tmp_path}/kids.fits")
    assert found.carried is not None
    assert found.carried["source_name"].to_pylist() == names
    assert np.isnan(found.mag[-1])
