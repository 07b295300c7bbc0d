"""A run with full tiles and batches, in a process of its own, whose peak its plan has told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from deblend_batch.field.layout import create_field, finish_field
from tests.support import make_meta, member

SHAPE_YX = (1400, 1400)
N_PAIRS = 400


def write_inputs(folder: Path) -> dict[str, Any]:
    """Write noise with many pairs in it; return the start of a config."""
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


def check_peak(
    config: dict[str, Any], folder: Path, environment: dict[str, str], most: float
) -> None:
    """Run a config; its processes take what was projected, or less by a factor of ``most`` at most."""
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "output": str(folder / "out")}))
    command = [sys.executable, "-m", "deblend_batch", "run", str(folder / "config.yaml"), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    memory = json.loads(ended.stdout)["memory"]
    for process in ("actor", "driver"):
        measured, projected = memory[process], memory["projected"][process]
        assert measured <= projected <= most * measured, (process, memory)
