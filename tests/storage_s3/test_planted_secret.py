"""A secret is planted in options, environment and URLs; and looked for in all that a run leaves or shows."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import yaml
from astropy.io import fits

from deblend_batch import storage
from deblend_batch.cli.main import main
from tests.ingest.fits_files import celestial_header
from tests.storage_s3.seaweedfs import SeaweedFS
from tests.support import SmallField, gaussian_image

pytest.importorskip("s3fs")

PLANTED = "planted0secret0that0no0one0may0see"
HOME = "s3://survey/planted"


class ProcessLists:
    """What ``ps`` would show of every process, looked at again and again meanwhile."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            for name in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as words:
                    self.seen.add(words.read())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A FITS image with pairs of sources."""
    rng = np.random.default_rng(4)
    first = rng.uniform(40, 260, (12, 2))
    yx = np.concatenate([first, first + 8])
    pixels = gaussian_image((300, 300), yx, np.full(len(yx), 50.0))
    path = tmp_path / "web" / "image.fits"
    path.parent.mkdir()
    fits.PrimaryHDU(pixels, celestial_header()).writeto(path)
    return path


@pytest.fixture
def web(image: Path) -> Iterator[str]:
    """Serves the image, whatever its URL's query says."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(image.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ray_logs() -> list[str]:
    """What Ray and its workers have logged."""
    import ray

    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    return [path.read_text("latin-1") for path in logs.rglob("*") if path.is_file()]


def test_a_planted_secret_is_nowhere(
    cluster: None,
    s3: SeaweedFS,
    image: Path,
    small_field: SmallField,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", s3.key),
        ("AWS_SECRET_ACCESS_KEY", s3.secret),
        ("AWS_ENDPOINT_URL", s3.endpoint),
    ):
        monkeypatch.setenv(name, value)
    options = tmp_path / "options.yaml"
    options.write_text(yaml.safe_dump(s3.options))
    config = {
        "field": f"{HOME}/field.zarr",
        "detections": f"{HOME}/detections.parquet",
        "output": f"{HOME}/run",
        "model": f"{HOME}/tiny.safetensors",
        "engine": {"actors": 1, "gpus_per_actor": 0},
        "storage_options": s3.options,
    }
    good, refused = tmp_path / "good.yaml", tmp_path / "refused.yaml"
    good.write_text(yaml.safe_dump(config))
    wrong = {"storage_options": {**s3.options, "secret": PLANTED}}
    refused.write_text(yaml.safe_dump(config | wrong))
    for source, name in ((image, "image.fits"), (Path(small_field.model), "tiny.safetensors")):
        storage.write_bytes(f"{HOME}/{name}", source.read_bytes(), s3.options)
    photometry = ["--zero-point", "25.96", "--psf-fwhm", "0.4"]
    with_options = ["--storage-options", str(options)]
    with ProcessLists() as processes:
        said = []
        for words, code in (
            (["ingest", f"{HOME}/image.fits", config["field"], *photometry], 0),  # environment
            (["detect", config["field"], config["detections"], *with_options], 0),
            (["plan", str(good), "--speed", "100"], 0),
            (["run", str(good)], 0),
            (["status", config["output"]], 0),
            (["verify", config["output"], *with_options], 0),
            (["report", config["output"], *with_options], 0),
            (["plan", str(refused)], 2),
            (["run", str(refused)], 2),
        ):
            assert main([*map(str, words), "--debug"]) == code, words
            said += [*capfd.readouterr()]
    fs, _ = storage.filesystem(HOME, s3.options)
    fs.invalidate_cache()
    objects = {path: fs.cat_file(path).decode("latin-1") for path in fs.find(HOME)}
    assert {"run.json", "report.html", "zarr.json"} <= {path.split("/")[-1] for path in objects}
    assert "Traceback" in said[-1]
    assert any(b"raylet" in line for line in processes.seen)
    commands = [line.decode("latin-1") for line in processes.seen]
    logs = ray_logs()
    assert logs
    for place in (*objects.values(), *said, *logs, *commands):
        for word in (PLANTED, s3.secret):
            assert word not in place


@pytest.mark.parametrize("query", [f"?X-Amz-Signature={PLANTED}", f"?download=1&sig={PLANTED}"])
def test_a_signed_url_leaves_no_signature(
    query: str, web: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    field = tmp_path / "field.zarr"
    photometry = ["--zero-point", "25.96", "--psf-fwhm", "0.4", "--debug"]
    assert main(["ingest", f"{web}/image.fits{query}", str(field), *photometry]) == 0
    assert main(["ingest", f"{web}/none.fits{query}", f"{field}2", *photometry]) == 2
    captured = capfd.readouterr()
    assert "none.fits?" in captured.err
    assert "=***: " in captured.err
    assert PLANTED not in captured.out + captured.err
    for path in field.rglob("*"):
        assert not path.is_file() or PLANTED.encode() not in path.read_bytes(), path
    assert "image.fits" in (field / "zarr.json").read_text()
