"""What a run takes of memory on Ray is what its plan says, or up to a quarter less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.projected import check_peak, write_inputs


@pytest.mark.slow
def test_the_peak_of_a_run_is_within_its_projection_and_a_quarter(
    head: Any, tmp_path: Path
) -> None:
    engine = {"where": "ray", "actors": 1, "gpus_per_actor": 0}
    config = {**write_inputs(tmp_path), "model": "blend2mask2flux-small", "engine": engine}
    check_peak(config, tmp_path, head.environment(), 1.25)
