"""What a run takes of memory is what its plan says, or up to a quarter less: with full tiles and batches.

Of a fit the plan says what its largest blends take; those of a run may all be small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from deblend_batch.field.layout import create_field, finish_field
from tests.support import make_meta, member

SHAPE_YX = (1400, 1400)
N_PAIRS = 800


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Noise with many pairs in it, and the shipped model: the start of a config."""
    folder = tmp_path_factory.mktemp("projected")
    rng = np.random.default_rng(5)
    group = create_field(f"{folder}/field.zarr", make_meta(), SHAPE_YX, with_variance=False)
    member(group, "image")[0] = rng.normal(0, 0.01, SHAPE_YX).astype(np.float32)
    finish_field(group, make_meta())
    first = rng.uniform(20, SHAPE_YX[0] - 20, (N_PAIRS, 2))
    xy = np.concatenate([first, first + 6.0])
    ids = np.arange(2 * N_PAIRS)
    table = pa.table({"id": ids, "x": xy[:, 0], "y": xy[:, 1], "mag": np.full(len(xy), 22.0)})
    pq.write_table(table, folder / "detections.parquet")
    pairs = {"central_id": ids[:N_PAIRS], "companion_id": ids[N_PAIRS:]}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    return {
        "field": f"{folder}/field.zarr",
        "detections": f"{folder}/detections.parquet",
        "pairs": {"table": f"{folder}/pairs.parquet"},
        "tiles": {"size": 700},
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "model", "most"),
    [
        ("local", "blend2mask2flux-small", 1.25),
        ("ray", "blend2mask2flux-small", 1.25),
        ("local", "profile-fit", 2.0),
    ],
)
def test_the_peak_of_a_run_is_within_its_projection_and_a_quarter(
    inputs: dict[str, Any],
    tmp_path: Path,
    where: str,
    model: str,
    most: float,
    request: pytest.FixtureRequest,
) -> None:
    environment = dict(os.environ)
    if where == "ray":
        environment = request.getfixturevalue("head").environment()
    engine = {"where": where, "actors": 1, "gpus_per_actor": 0}
    config = {**inputs, "model": model, "output": str(tmp_path / "out"), "engine": engine}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [
        sys.executable,
        "-m",
        "deblend_batch",
        "run",
        str(tmp_path / "config.yaml"),
        "--json",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    memory = json.loads(ended.stdout)["memory"]
    for process in ("actor", "driver"):
        measured, projected = memory[process], memory["projected"][process]
        assert measured <= projected <= most * measured, (process, memory)
