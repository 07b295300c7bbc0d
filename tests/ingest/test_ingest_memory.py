"""Ingestion of an image larger than the memory it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deblend_batch.field.create import SHARD_PX
from tests.ingest.fits_files import celestial_header

_ROWS_OF_SHARDS = (2, 12)
_COLUMNS = 128  # a shard is as high as ever, and narrow
# Not the peak: a child begins with its parent's, and pages of the file count, which the system takes back.
_SCRIPT = """
import sys
from deblend_batch.ingest.ingest import ingest

def look(*_):
    global most
    with open("/proc/self/status") as status:
        (held,) = (int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    most = max(most, 1024 * held)

for image in sys.argv[1:]:
    most = 0
    ingest([image], image + ".zarr", zero_points=[25.0], psf_fwhm_arcsec=[0.4], progress=look)
    print(most)
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
    """An image of two rows of shards takes what one of twelve takes."""
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
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed is given back
    )
    shutil.rmtree(tmp_path)  # pytest would keep it all
    small, large = map(int, done.stdout.split())
    assert large - small < 0.18 * (sizes[1] - sizes[0])  # not even a mask of a byte a pixel
