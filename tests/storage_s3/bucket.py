"""What tests have in a bucket: a run's inputs, and its shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deblend_batch import storage
from tests.support import SmallField

FIELD = "s3://survey/inputs/field.zarr"
DETECTIONS = "s3://survey/inputs/detections.parquet"
MODEL = "s3://survey/inputs/tiny.safetensors"


def upload(small: SmallField, options: dict[str, Any]) -> dict[str, Any]:
    """Copy a run's inputs to the bucket; return the start of a config that names them."""
    folder = Path(small.url)
    files = {
        storage.join(FIELD, str(path.relative_to(folder))): path
        for path in folder.rglob("*")
        if path.is_file()
    }
    files |= {DETECTIONS: Path(small.detections), MODEL: Path(small.model)}
    for url, path in files.items():
        storage.write_bytes(url, path.read_bytes(), options)
    return {
        "field": FIELD,
        "detections": DETECTIONS,
        "model": MODEL,
        "tiles": {"size": 200},
        "engine": {"actors": 1, "gpus_per_actor": 0, "where": "local"},
        "storage_options": options,
    }


def shards_of(output: str, options: dict[str, Any]) -> dict[str, bytes]:
    """Names and bytes of a run's shards."""
    folder = storage.join(output, "shards")
    names = storage.list_names(folder, options)
    return {name: storage.read_bytes(storage.join(folder, name), options) for name in names}
