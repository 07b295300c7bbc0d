"""Ingestion of an image larger than the memory it takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.ingest.fits_files import celestial_header

_ROWS, _COLUMNS = 20480, 8192
_SCRIPT = """
import resource, sys
from deblend_batch.ingest.ingest import ingest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ingest([sys.argv[1]], sys.argv[2], zero_points=[25.0], psf_fwhm_arcsec=[0.4])
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.slow
def test_peak_memory_stays_below_half_of_a_large_image(tmp_path: Path) -> None:
    image = tmp_path / "large.fits"
    header = celestial_header()
    for key, value in (("NAXIS2", _ROWS), ("NAXIS1", _COLUMNS), ("NAXIS", 2), ("BITPIX", -32)):
        header.insert(0, (key, value))
    header.insert(0, ("SIMPLE", True))
    # Noise does not compress, so nothing here is smaller than it would be in a survey.
    block = np.random.default_rng(1).normal(size=(1024, _COLUMNS)).astype(">f4").tobytes()
    with image.open("wb") as file:
        file.write(header.tostring().encode())
        for _ in range(_ROWS // 1024):
            file.write(block)
        file.write(b"\0" * (-file.tell() % 2880))
    arguments = [sys.executable, "-c", _SCRIPT, str(image), str(tmp_path / "large.zarr")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=root)
    size = image.stat().st_size
    shutil.rmtree(tmp_path)  # pytest would keep a gigabyte
    assert size > 600e6
    assert int(done.stdout) < 0.5 * size
