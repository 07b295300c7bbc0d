"""The README's snippets do what they say, in the order in which a reader meets them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from astropy.io import fits

from tests.conftest import free_port
from tests.ingest.fits_files import add_gaussians, celestial_header, grid_positions, noise_image
from tests.readme import ROOT, environment, run_as_printed, snippet, snippets
from tests.support import SmallField


def write_science(path: Path) -> None:
    """Write a tile-compressed image of pairs, with the rms plane that the README names."""
    first = grid_positions((600, 600), 60)
    both = np.ascontiguousarray(np.concatenate([first, first + np.array([9.0, 6.0])]))
    image = add_gaussians(noise_image((600, 600)), both, 3000.0, 4.0)
    header = celestial_header(filter="H", magzero=25.96, psf_fwhm=0.4)
    planes = {"SCI": image, "RMS": np.ones_like(image)}
    hdus = [fits.CompImageHDU(data, header, name=name) for name, data in planes.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


def wait_for(port: int) -> None:
    """Wait until something of this machine listens on a port."""
    deadline = time.monotonic() + 90
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return


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


@pytest.mark.slow
def test_a_cluster_on_a_machine_that_has_never_seen_ray(
    small_field: SmallField, tmp_path: Path
) -> None:
    """Word for word, but for ports that may be taken, and a head that this test can end."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    shutil.copy(ROOT / ".gitignore", tmp_path)  # Ray uploads nothing that git ignores: not .venv
    config = small_field.on_ray(str(tmp_path / "out"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    port, dashboard, agent = free_port(), free_port(), free_port()
    text = snippet("bash", "ray start")
    recipe, submit = text.split("ray start --head\n")
    start = ["ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    start += [f"--dashboard-agent-listen-port={agent}", "--num-cpus=2"]
    run_as_printed(["bash", "-e", "-c", recipe], tmp_path)
    head = subprocess.Popen(
        [f"{sys.prefix}/bin/ray", *start[1:]],
        env={**environment(tmp_path), "RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        submit = submit.replace("8265", str(dashboard)).replace("/data", str(tmp_path))
        wait_for(dashboard)
        said = run_as_printed(["bash", "-e", "-c", recipe + submit], tmp_path)
        assert "succeeded" in said
        assert "ETA" in said
        assert list((tmp_path / "out" / "shards").glob("*.parquet"))
    finally:
        left = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        head.wait(60)
        for process in psutil.wait_procs(left, 10)[1]:
            process.kill()
