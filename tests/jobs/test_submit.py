"""The job as a cluster's user runs it: ``ray job submit -- python jobs/process_field.py config.yaml``."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.job_submission import JobSubmissionClient

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from tests.support import SmallField, shards_of, wait_until

ROOT = Path(__file__).resolve().parents[2]


def write_config(folder: Path, small_field: SmallField, output: Path, **engine: Any) -> str:
    """Write the config of a run."""
    engine["tiles_in_flight"] = 1
    config = small_field.on_ray(str(output), tiles={"size": 64}, engine=engine)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "config.yaml")


def workers_of(output: Path) -> dict[int, tuple[tuple[int, ...], str]]:
    """Return the GPUs and what CUDA saw of every worker that made a tile, by its process."""
    ledger = Ledger(Output(str(output)))
    workers = [receipt.worker for receipt in ledger.read_receipts(ledger.output.receipts())]
    return {w["pid"]: (tuple(w["gpu_ids"]), w["cuda_visible_devices"]) for w in workers}


def submit(client: JobSubmissionClient, config: str) -> str:
    """Submit a run."""
    job: str = client.submit_job(
        entrypoint=f"{sys.executable} jobs/process_field.py $RUN_CONFIG",
        runtime_env={"working_dir": str(ROOT), "env_vars": {"RUN_CONFIG": config}},
    )
    return job


@pytest.mark.slow
def test_a_job_that_is_stopped_is_resumed_to_the_byte(
    head: Any,
    small_field: SmallField,
    undisturbed_small_tiles: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """``ray job stop`` is a clean end; a log holds lines, and what the job was given in its environment.

    Two actors share a GPU in the first job; the second one ends the run.
    """
    output = tmp_path / "out"
    client = JobSubmissionClient(head.dashboard)
    job = submit(client, write_config(tmp_path, small_field, output, actors=2, gpus_per_actor=0.5))
    wait_until(lambda: len(workers_of(output)) == 2 or client.get_job_status(job).is_terminal())
    assert client.stop_job(job)
    wait_until(lambda: client.get_job_status(job).is_terminal())
    said = client.get_job_logs(job)
    assert client.get_job_status(job) == "STOPPED", said
    assert read_status(Output(str(output))).state == "interrupted"
    assert f"{output}: interrupted with " in said
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    assert not {"\r", "\x1b"} & set(said)
    first = workers_of(output)  # that share a GPU; each with its own: tests/engine/test_nodes.py
    assert set(first.values()) in ({((0,), "0")}, {((1,), "1")})
    job = submit(client, write_config(tmp_path, small_field, output, actors=1, gpus_per_actor=1))
    wait_until(lambda: client.get_job_status(job).is_terminal())
    assert client.get_job_status(job) == "SUCCEEDED", client.get_job_logs(job)
    assert first.items() < workers_of(output).items()
    assert shards_of(output) == undisturbed_small_tiles
    assert verify_run(Output(str(output)), recompute=0).problems == ()


@pytest.mark.parametrize(
    ("script", "words", "what"),
    [
        ("process_field", ["{}/config.yaml"], "field"),
        ("detect_sources", ["here.zarr", "/d.parquet"], "field"),
        ("train_model", ["here.zarr"], "output"),
    ],
)
def test_a_job_s_mistake_is_one_line_in_its_log(
    script: str,
    words: list[str],
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process, where Ray's mark of a job is set: how jobs end is tested above."""
    (tmp_path / "config.yaml").write_text(
        "field: here.zarr\ndetections: /d.parquet\noutput: /out\n"
    )
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setattr(sys, "argv", [script, *(word.format(tmp_path) for word in words)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "jobs" / f"{script}.py"), run_name="__main__")
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    mistake = (
        rf"error: .*{what}.* 'here.zarr' is a relative path, and a Ray job runs in a temporary copy"
    )
    assert re.match(mistake, (out + err).splitlines()[-1])
    assert "Traceback" not in out + err
