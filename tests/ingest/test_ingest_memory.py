"""Ingestion of an image larger than the memory it takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deblend_batch.field.create import SHARD_PX
from tests.ingest.fits_files import celestial_header

_ROWS_OF_SHARDS = (1, 4)
_COLUMNS = 256  # a shard is as high as ever, and narrow
_SCRIPT = """
import resource, sys
from deblend_batch.ingest.ingest import ingest
for image in sys.argv[1:]:
    ingest([image], image + ".zarr", zero_points=[25.0], psf_fwhm_arcsec=[0.4])
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_noise(path: Path, rows: int) -> int:
    """Write an image strip by strip; return its bytes."""
    header = celestial_header()
    for key, value in (("NAXIS2", rows), ("NAXIS1", _COLUMNS), ("NAXIS", 2), ("BITPIX", -32)):
        header.insert(0, (key, value))
    header.insert(0, ("SIMPLE", True))
    # Noise does not compress, so nothing here is smaller than it would be in a survey.
    block = np.random.default_rng(1).normal(size=(SHARD_PX, _COLUMNS)).astype(">f4").tobytes()
    with path.open("wb") as file:
        file.write(header.tostring().encode())
        for _ in range(rows // SHARD_PX):
            file.write(block)
        file.write(b"\0" * (-file.tell() % 2880))
    return path.stat().st_size


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """An image of one row of shards takes what one of four takes."""
    images = [tmp_path / f"{count}.fits" for count in _ROWS_OF_SHARDS]
    sizes = [
        write_noise(image, count * SHARD_PX)
        for image, count in zip(images, _ROWS_OF_SHARDS, strict=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, images)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    shutil.rmtree(tmp_path)  # pytest would keep it all
    one, four = map(int, done.stdout.split())
    assert four - one < 0.2 * (sizes[1] - sizes[0])  # not even a mask of a byte a pixel
