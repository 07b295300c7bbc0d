"""Training as a job; a whole one is in ``tests/train/test_group.py``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.jobs.test_submit import submit


@pytest.mark.slow
def test_a_relative_output_in_a_job_is_refused(head: Any) -> None:
    ended = submit(head, "jobs/train_model.py", "out")
    assert ended.returncode != 0
    assert "error: output: 'out' is a relative path, and a Ray job runs in a temp" in ended.stdout
