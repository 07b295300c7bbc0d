"""The README's snippets do what they say, in the order in which a reader meets them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from tests.ingest.fits_files import add_gaussians, celestial_header, grid_positions, noise_image
from tests.readme import ROOT, run_as_printed, snippet, snippets


def write_science(path: Path) -> None:
    """Write a tile-compressed image of pairs, with the rms plane that the README names."""
    first = grid_positions((200, 200), 90)
    both = np.concatenate([first, first + np.array([9.0, 6.0])])
    image = add_gaussians(noise_image((200, 200)), both, 3000.0, 4.0)
    header = celestial_header(filter="H", magzero=25.96, psf_fwhm=0.4)
    planes = {"SCI": image, "RMS": np.ones_like(image)}
    hdus = [fits.CompImageHDU(data, header, name=name) for name, data in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


def test_every_snippet_is_run_here_or_named() -> None:
    shells = ("make demo", "source .venv", "deblend-batch ingest", "ray start", "pip install")
    assert [sum(part in block for block in snippets("bash")) for part in shells] == [1] * len(
        shells
    )
    assert len(snippets("bash")) == len(shells)
    assert len(snippets("python")) == 1
    make = snippet("bash", "make demo")  # what these two do is in the Makefile, which CI runs
    assert [line.split()[:2] for line in make.splitlines()] == [["make", "demo"], ["make", "test"]]
    makefile = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    for line in snippet("bash", "pip install").splitlines()[1:]:
        command = line.partition("#")[0].strip().replace("pip install", "pip install -q")
        assert command in makefile


@pytest.mark.slow
def test_from_an_image_to_a_catalogue_and_from_python(tmp_path: Path) -> None:
    write_science(tmp_path / "science.fits.fz")
    said = run_as_printed(["bash", "-e", "-c", snippet("bash", "deblend-batch ingest")], tmp_path)
    assert "lsdb.open_catalog(" in said
    assert (tmp_path / "run1" / "report.html").exists()
    said = run_as_printed([sys.executable, "-c", snippet("python", "load_model")], tmp_path)
    assert said.splitlines()[-1].startswith("complete {'expected': ")
