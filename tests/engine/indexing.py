"""What tests of the pair index share: a small field without pixels, its tables, its index tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch.catalog.output import Output
from deblend_batch.config import DetectionsConfig, PairsConfig
from deblend_batch.engine.inputs.index.task import IndexTask
from deblend_batch.engine.inputs.survey import SurveyEntry
from deblend_batch.field.layout import create_field, finish_field
from deblend_batch.tiling.blends import Blends
from tests.support import make_meta

SHAPE_YX = (300, 390)


def write_field(folder: Path) -> str:
    """Write a field whose pixels nobody reads."""
    url = str(folder / "field.zarr")
    finish_field(create_field(url, make_meta(), SHAPE_YX, with_variance=False), make_meta())
    return url


def write_detections(
    url: Path, yx: np.ndarray, ids: np.ndarray | None = None, mag: np.ndarray | None = None
) -> None:
    """Write a detection table with pixel positions."""
    n = len(yx)
    columns = {"id": np.arange(n) + 1 if ids is None else ids, "x": yx[:, 1], "y": yx[:, 0]}
    if mag is not None:
        columns["mag"] = mag.astype(np.float32)
    pq.write_table(pa.table(columns), url)


def task_for(field_url: str, folder: Path, **changes: Any) -> IndexTask:
    """An index task on the detection table in ``folder``."""
    reading = DetectionsConfig(table=str(folder / "detections.parquet"))
    task = IndexTask(
        entry=SurveyEntry("", field_url, reading, shared_table=False),
        output=Output(str(folder)),
        tile_size=100,
        max_blends=4096,
        stamp_size=32,
        pairs=PairsConfig(max_separation=0.6),
    )
    return replace(task, **changes)


def columns_of(pairs: Blends, order: np.ndarray | slice = slice(None)) -> dict[str, bytes]:
    """The bits of every column, so that NaN is equal to itself."""
    return {name: getattr(pairs, name)[order].tobytes() for name in Blends.__dataclass_fields__}
