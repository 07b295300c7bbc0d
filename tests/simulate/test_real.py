from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from deblend_batch.errors import (
    ConfigError,
    DetectionsError,
    FieldError,
    IrregularFileError,
    NotFoundError,
    TooLargeError,
)
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.galaxies.population import KINDS, UNKNOWN_KIND
from deblend_batch.simulate.galaxies.real import pool_from_candels_blender, pool_from_real_catalog
from deblend_batch.simulate.galaxies.variation import Variation
from deblend_batch.simulate.pairs.blending import PairSampler
from deblend_batch.simulate.pairs.rules import PairRules
from deblend_batch.simulate.presets import get_preset
from tests.ingest.hostile_files import primary, write_compressed


def test_candels_stamps_become_a_pool(triplet: Path) -> None:
    pool = pool_from_candels_blender(str(triplet))
    assert pool.preset == "candels-h"
    np.testing.assert_array_equal(pool.galaxy_id, np.arange(100, 106))
    assert [*pool.kind] == [
        *(KINDS.index(k) for k in ("sph", "sphd", "disk", "irr", "sph")),
        UNKNOWN_KIND,
    ]
    np.testing.assert_allclose(pool.centre_yx, [[64.2, 63.9]] * 6, atol=0.05)
    np.testing.assert_allclose(
        [pool.stamp(row)[50:79, 50:79].sum() for row in range(6)], 1.0, atol=0.02
    )


def test_neighbours_are_replaced_by_noise(triplet: Path) -> None:
    corner = pool_from_candels_blender(str(triplet)).stamp(0)[:40, :40]
    sigma = 0.006 / get_preset("candels-h").flux(20.0)
    assert corner[10:30, 10:30].max() < 5 * sigma
    assert corner[10:30, 10:30].std() == pytest.approx(sigma, rel=0.1)


def test_candels_galaxies_pair(triplet: Path) -> None:
    pool = pool_from_candels_blender(str(triplet))
    batch = PairSampler(pool, None, 1, PairRules(stamp_size=64)).draw(32)
    assert set(np.unique(batch.kind_names)) == {"", *KINDS}
    assert np.isfinite(batch.stamps).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "candels_cat.csv",
            b"ID,mag,radius\n1,20.0,3.0\n",
            "column 'galtype' is missing; it has ID, mag",
        ),
        (
            "candels_cat.csv",
            b"ID,mag,radius,galtype\n1,20.0,3.0,sph\n",
            "1 rows, images .* do not belong together",
        ),
    ],
)
def test_a_broken_triplet_is_refused(
    triplet: Path, name: str, content: bytes, message: str
) -> None:
    (triplet / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        pool_from_candels_blender(str(triplet))


def test_a_missing_triplet_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"candels_img\.npy: no such file"):
        pool_from_candels_blender(str(tmp_path))


def real_pool(catalog: str, number: int | None = None) -> GalaxyPool:
    variation = Variation(psf_fwhm_px=(2.5, 4.0))
    return pool_from_real_catalog(
        catalog, "candels-h", variation=variation, n_psfs=2, number=number, fade_mag=0.5
    )


@pytest.fixture(scope="module")
def all_of(catalog: str) -> GalaxyPool:
    return real_pool(catalog)


def test_real_galaxies_become_a_pool(all_of: GalaxyPool) -> None:
    pool = all_of
    assert len(pool) == 100
    np.testing.assert_array_equal(pool.galaxy_id[:50], pool.galaxy_id[50:])
    assert np.unique(pool.psf_fwhm_px).size == 2
    assert (pool.kind == UNKNOWN_KIND).all()
    flux = [pool.stamp(row).sum() for row in range(100)]
    np.testing.assert_allclose(flux, 1.0, atol=0.02)
    assert 20 < np.median(pool.mag) < 24
    assert 3 < np.median(pool.radius_px) < 12
    assert np.median(np.abs(pool.centre_yx - 64)) < 0.8


def test_a_choice_of_real_galaxies_is_a_part_of_all(catalog: str, all_of: GalaxyPool) -> None:
    few = real_pool(catalog, number=5)
    rows = np.searchsorted(all_of.galaxy_id[:50], few.galaxy_id[:5])
    assert len(few) == 10
    np.testing.assert_array_equal(few.images, all_of.images[np.concatenate([rows, rows + 50])])


def write_catalog(path: Path, images: str) -> None:
    columns = {
        "IDENT": [1], "MAG": [22.0], "BAND": ["F814W"], "WEIGHT": [1.0],
        "GAL_FILENAME": [images], "PSF_FILENAME": [images],
        "GAL_HDU": [0], "PSF_HDU": [0], "PIXEL_SCALE": [0.03],
        "NOISE_MEAN": [0.0], "NOISE_VARIANCE": [1e-5],
    }  # fmt: skip
    Table(columns).write(path)


@pytest.mark.parametrize("images", ["/etc/passwd", "../images.fits", "a/images.fits"])
def test_no_catalogue_takes_images_from_elsewhere(tmp_path: Path, images: str) -> None:
    write_catalog(tmp_path / "cat.fits", images)
    with pytest.raises(ConfigError, match=r"cat\.fits: takes images or PSFs from .* beside it"):
        pool_from_real_catalog(str(tmp_path / "cat.fits"), "candels-h")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (primary(-32, (10**6, 10**6)), TooLargeError, r"images\.fits\[0\]: has more than"),
        (primary(-32, (64, 64)), FieldError, r"images\.fits\[0\]: truncated"),
        (primary(NAXIS=10**9), FieldError, "NAXIS is 1000000000"),
        (b"\x1f\x8b", FieldError, "not a FITS file"),
        (None, FieldError, r"images\.fits\[1\]: is compressed"),
    ],
    ids=["large", "cut", "axes", "zipped", "tiles"],
)
def test_images_of_a_catalogue_are_checked_before_they_are_read(
    tmp_path: Path, content: bytes | None, error: type[Exception], message: str
) -> None:
    write_catalog(tmp_path / "cat.fits", "images.fits")
    if content is None:
        write_compressed(tmp_path / "images.fits", [b""])
    else:
        (tmp_path / "images.fits").write_bytes(content)
    with pytest.raises(error, match=message):
        pool_from_real_catalog(str(tmp_path / "cat.fits"), "candels-h")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"ID,mag\n", ConfigError, r"cat\.fits: not a RealGalaxyCatalog \("),
        (
            None,
            NotFoundError,
            r"images\.fits: no such file; .*cat\.fits takes images or PSFs from it",
        ),
    ],
    ids=["no catalogue", "images missing"],
)
def test_what_is_no_real_catalog_is_refused(
    tmp_path: Path, content: bytes | None, error: type[Exception], message: str
) -> None:
    path = tmp_path / "cat.fits"
    if content is None:
        write_catalog(path, "images.fits")
    else:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        pool_from_real_catalog(str(path), "candels-h")


def test_no_real_catalog_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.fits")
    with pytest.raises(IrregularFileError, match=r"pipe\.fits: not a regular file"):
        pool_from_real_catalog(str(tmp_path / "pipe.fits"), "candels-h")


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x93NUMPY\x01\x00\x02\x00{}"])
@pytest.mark.parametrize("name", ["candels_img.npy", "candels_cat.csv"])
def test_what_is_no_array_or_table_of_candels_is_one_line(
    name: str, content: bytes, tmp_path: Path
) -> None:
    for each in ("img", "seg"):
        np.save(tmp_path / f"candels_{each}.npy", np.zeros((1, 8, 8), np.float32))
    (tmp_path / "candels_cat.csv").write_text("ID,mag,radius,galtype\n1,2,3,disk\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ConfigError, DetectionsError), match=rf"{name}: ") as caught:
        pool_from_candels_blender(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fade_mag", "error", "message"),
    [
        ("none.fits", 0.0, NotFoundError, r"none\.fits: no such file"),
        ("none.fits", -1.0, ConfigError, r"fade_mag=-1\.0 brightens galaxies and their noise"),
    ],
)
def test_what_cannot_be_done_with_real_galaxies(
    tmp_path: Path, name: str, fade_mag: float, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pool_from_real_catalog(str(tmp_path / name), "candels-h", fade_mag=fade_mag)
