"""Training as a cluster's user runs it: ``ray job submit -- python jobs/train_model.py OUTPUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deblend_batch.models import find_card
from tests.jobs.test_submit import submit

CONFIG: dict[str, Any] = {
    "model": "blend2flux-small",
    "pool": {"size": 128, "processes": 2, "psf_fwhm_px": None},
    "steps": 4,
    "evaluate_every": 2,
    "batch_size": 16,
    "workers": 0,
    "threads": 1,
    "validation_pairs": 32,
    "test_pairs": 32,
}


@pytest.mark.slow
def test_a_submitted_job_trains_with_two_replicas(head: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    words = [str(output), "--config", str(tmp_path / "config.yaml"), "--replicas", "2"]
    ended = submit(head, "jobs/train_model.py", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "step 2/4  loss " in ended.stdout
    assert "step 4/4  loss " in ended.stdout
    weights = str(output / "blend2flux-small.safetensors")
    assert weights in ended.stdout
    card = find_card(weights)
    assert card.training["config"]["replicas"] == 2
    assert card.test_metrics["pairs"] == 32


@pytest.mark.slow
def test_a_relative_output_in_a_job_is_refused(head: Any) -> None:
    ended = submit(head, "jobs/train_model.py", "out")
    assert ended.returncode != 0
    assert "error: output: 'out' is a relative path, and a Ray job runs in a temp" in ended.stdout
