"""What a run takes of memory is what its plan says, or up to a quarter less: with full tiles and batches.

Of a fit the plan says what its largest blends take; those of a run may all be small.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.engine.projected import check_peak, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The start of a config."""
    return write_inputs(tmp_path_factory.mktemp("projected"))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "most"), [("blend2mask2flux-small", 1.25), ("profile-fit", 2.0)])
def test_the_peak_of_a_run_is_within_its_projection_and_a_quarter(
    inputs: dict[str, Any], tmp_path: Path, model: str, most: float
) -> None:
    """On Ray too: ``test_projected_on_ray.py``."""
    engine = {"where": "local", "actors": 1, "gpus_per_actor": 0}
    check_peak({**inputs, "model": model, "engine": engine}, tmp_path, dict(os.environ), most)
