"""What a user can get wrong ends in one line that says what, where and how to mend it, and exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zarr

from deblend_batch.cli.main import main
from tests.limited import run_limited
from tests.support import SmallField, run_file


@dataclass(frozen=True)
class Case:
    """A mistake: what it does to a good config, in a folder of its own, and the message it must give."""

    id: str
    spoil: Callable[[dict[str, Any], Path], None]
    message: str


def _copy_field(config: dict[str, Any], folder: Path) -> Path:
    copy = folder / "field.zarr"
    shutil.copytree(config["field"], copy)
    config["field"] = str(copy)
    return copy


def _attribute(name: str, value: Any) -> Callable[[dict[str, Any], Path], None]:
    def spoil(config: dict[str, Any], folder: Path) -> None:
        group = zarr.open_group(_copy_field(config, folder), mode="a")
        if value is None:
            del group.attrs[name]
        else:
            group.attrs[name] = value

    return spoil


def _table(**columns: Any) -> Callable[[dict[str, Any], Path], None]:
    def spoil(config: dict[str, Any], folder: Path) -> None:
        config["detections"] = str(folder / "table.parquet")
        pq.write_table(pa.table(columns), config["detections"])

    return spoil


def _key(name: str, value: Any) -> Callable[[dict[str, Any], Path], None]:
    def spoil(config: dict[str, Any], folder: Path) -> None:
        config[name] = value.format(folder=folder) if isinstance(value, str) else value

    return spoil


def _corrupt_metadata(config: dict[str, Any], folder: Path) -> None:
    (_copy_field(config, folder) / "zarr.json").write_text('{"zarr_format": 3, "node')


def _no_image(config: dict[str, Any], folder: Path) -> None:
    shutil.rmtree(_copy_field(config, folder) / "image")


def _wrong_variance(config: dict[str, Any], folder: Path) -> None:
    group = zarr.open_group(_copy_field(config, folder), mode="a")
    group.create_array("variance", shape=(1, 9, 9), dtype="float32")


def _not_a_table(config: dict[str, Any], folder: Path) -> None:
    (folder / "table.parquet").write_bytes(b"PAR1 it is not")
    config["detections"] = str(folder / "table.parquet")


def _pickle(config: dict[str, Any], folder: Path) -> None:
    import pickle

    (folder / "weights.safetensors").write_bytes(pickle.dumps({"w": 1}))
    config["model"] = str(folder / "weights.safetensors")


def _file_as_output(config: dict[str, Any], folder: Path) -> None:
    (folder / "out").write_text("a file")
    config["output"] = str(folder / "out" / "run")


def _output_as(key: str, inner: str = "") -> Callable[[dict[str, Any], Path], None]:
    def spoil(config: dict[str, Any], folder: Path) -> None:
        config["output"] = config[key] + inner

    return spoil


def _output_in(key: str) -> Callable[[dict[str, Any], Path], None]:
    return _output_as(key, "/out")


def _output_in_another(config: dict[str, Any], folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps(run_file()))


CASES = [
    Case("no field", _key("field", "{folder}/none.zarr"), "none.zarr"),
    Case("corrupt zarr", _corrupt_metadata, "field.zarr"),
    Case("no image", _no_image, "array 'image' is missing"),
    Case("no attribute", _attribute("zero_point", None), "zero_point"),
    Case("wrong list", _attribute("psf_fwhm", [0.1, 0.2]), "psf_fwhm"),
    Case(
        "no celestial wcs", _attribute("wcs", {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}), "celestial"
    ),
    Case("layout version", _attribute("deblend_batch_field", 99), "99"),
    Case("wrong shape", _wrong_variance, "variance"),
    Case("no table", _key("detections", "{folder}/none.fits"), "none.fits: no such detection"),
    Case("no id", _table(ra=[1.0], dec=[2.0]), "'id'"),
    Case("no position", _table(id=[1], mag=[20.0]), "table.parquet"),
    Case("no id in a row", _table(id=["a", ""], x=[1.0, 2.0], y=[1.0, 2.0]), "'id'"),
    Case("duplicate ids", _table(id=[7, 7], x=[1.0, 2.0], y=[1.0, 2.0]), "the first is 7"),
    Case("not a table", _not_a_table, "table.parquet"),
    Case("unknown model", _key("model", "blend2fluks-small"), "unknown model 'blend2fluks-small'"),
    Case("pickled model", _pickle, "a pickle"),
    Case(
        "no weights", _key("model", "{folder}/none.safetensors"), "none.safetensors: no such file"
    ),
    Case(
        "unreadable url",
        _key("field", "http://127.0.0.1:9/field.zarr"),
        "http://127.0.0.1:9/field.zarr",
    ),
    Case("unknown scheme", _key("field", "gopher://x/field.zarr"), "gopher://x/field.zarr"),
    Case("memory output", _key("output", "memory://out"), "memory:// lives in one process"),
    Case("unknown key", _key("tile_size", 100), "unknown key 'tile_size'"),
    Case("output in a file", _file_as_output, "out"),
    Case("output in the system", _key("output", "/proc/x"), "output: /proc/x is in /proc, which"),
    Case("output in the field", _output_in("field"), "field.zarr, which is read; give another"),
    Case("output is the table", _output_as("detections"), "which is read; give another"),
    Case("output in another", _output_in_another, "lies in the output of a run"),
    Case("reference", _key("field", "reference://x"), "reference://x: unknown protocol; use a"),
    Case("chain", _key("detections", "zip://a::s3://b/c"), "zip://a::s3://b/c: unknown protocol"),
    Case(
        "too many actors", _key("engine", {"actors": 99, "gpus_per_actor": 0}), "engine.actors: 99"
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_mistake_is_one_line_and_leaves_no_output(
    case: Case, small_field: SmallField, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = small_field.config(str(tmp_path / "output"))
    case.spoil(config, tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    code = main(["run", str(tmp_path / "config.yaml")])
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(errors) == 1
    assert case.message in errors[0]
    assert not (tmp_path / "output" / "shards").exists()


def test_a_full_disk_stops_the_run_and_it_resumes(
    small_field: SmallField, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file system of 1 MB, nearly full: really full, in every process of the run."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 170_000)
        config = small_field.config(str(disk / "out"))
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        assert main(["run", str(tmp_path / "config.yaml")]) == 2
        assert "no space left on the device; free some and run again" in capfd.readouterr().err
        ballast.unlink()
        assert main(["run", str(tmp_path / "config.yaml")]) == 0
        assert main(["verify", str(disk / "out")]) == 0
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


AS_PLAIN_USER = """
import ctypes, sys
from deblend_batch.cli.main import run

header, held = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
of_kernel = ctypes.CDLL(None, use_errno=True)
assert of_kernel.capget(header, held) == 0
for which in (0, 1):  # effective and permitted
    held[which] &= ~((1 << 1) | (1 << 2))  # dac_override, dac_read_search
assert of_kernel.capset(header, held) == 0
sys.argv[0] = "deblend-batch"
run()
"""
"""The command line without root's right to read and write anywhere; of Linux."""


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize("what", ["output", "field"])
def test_no_permission(what: str, small_field: SmallField, tmp_path: Path) -> None:
    config = small_field.config(str(tmp_path / "output" / "run"))
    locked = (
        tmp_path / "output" if what == "output" else _copy_field(config, tmp_path) / "zarr.json"
    )
    if what == "output":
        locked.mkdir()
    locked.chmod(0o500 if what == "output" else 0o000)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    verb = "run" if what == "output" else "plan"  # they refuse with the same line
    ended = run_limited(["python", "-c", AS_PLAIN_USER, verb, str(tmp_path / "config.yaml")])
    assert ended.code == 2
    assert "permission denied; check the owner, the mode or the credentials" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("verb", ["status", "verify", "retry", "publish", "report"])
def test_verbs_on_what_is_no_run(
    verb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(tmp_path)]) == 2
    assert "not the output of a run (no run.json); check the path" in capfd.readouterr().err
    (tmp_path / "c.yaml").write_text("output: there\n")
    assert main([verb, str(tmp_path / "c.yaml")]) == 2
    assert "c.yaml: is a config, and this takes the folder of a run" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "Missing argument"),
        (["run", "a", "b"], "unexpected extra argument"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["models", "--jsn"], "No such option"),
        (["evaluate"], "give exactly one of"),
        (
            ["ingest"],
            "error: ingest needs images and the field to write: deblend-batch ingest IMAGE",
        ),
        (["ingest", "a.fits"], "ingest needs images and the field to write"),
        (
            ["ingest", "foo://a.fits", "a.zarr"],
            "error: foo://a.fits: unknown protocol; use a local path, s3://, gs://, az:// or http(s)://",
        ),
        (
            ["train", "out", "--device", "gpu"],
            "error: device 'gpu': unknown to torch; use --device cpu, cuda or cuda:N",
        ),
    ],
    ids=[
        *("missing", "extra", "unknown verb", "unknown option", "nothing to evaluate"),
        *("no image", "no field", "unknown protocol", "unknown device"),
    ],
)
def test_wrong_words(words: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capfd.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_storage_options_in_a_file_that_is_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "options.yaml")
    assert main(["report", "s3://bucket/run", "--storage-options", missing]) == 2
    assert capfd.readouterr().err == f"error: {missing}: no such file or object; check the URL\n"


@pytest.mark.parametrize("words", ["key=me,secret=hunter2", "{secret: hunter2}"])
def test_storage_options_are_no_words_of_the_command_line(
    words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "s3://bucket/run", "--storage-options", words]) == 2
    assert capfd.readouterr().err == (
        "error: storage options come from a YAML file, not from the command line, which every user "
        "of the machine can see: give the path of the file\n"
    )


def test_debug_shows_the_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "none.yaml"), "--debug"]) == 2
    captured = capfd.readouterr()
    assert "Traceback" in captured.out + captured.err


def test_the_console_script_says_its_version() -> None:
    script = Path(sys.executable).parent / "deblend-batch"
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("deblend-batch ")


def test_plan_says_what_run_would_do_and_writes_nothing(
    small_field: SmallField, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = small_field.config(str(tmp_path / "output"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["plan", str(tmp_path / "config.yaml"), "--json"]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert not (tmp_path / "output").exists()
    assert main(["run", str(tmp_path / "config.yaml"), "--json"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert planned["pairs"] == summary["totals"]["pairs"]["expected"]
    assert planned["tiles"] == summary["totals"]["tiles"]["expected"]
    assert planned["stamps_per_second"] > 0
    assert np.isfinite(planned["duration"]["seconds"])
