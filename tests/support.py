"""What tests share that is no fixture: a small field with known sources, and a small model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.catalog.ledger import fingerprint, run_id
from deblend_batch.catalog.records import FingerprintParts, RunFile
from deblend_batch.engine.account.tally import Tally
from deblend_batch.field.layout import FieldMeta

PARTS: dict[str, Any] = {
    "release": "0.1",
    "fields": ["0" * 64],
    "detections": ["sha256:1"],
    "pairs": {"max_separation": 2.0},
    "model": "sha256:2",
}
PIXEL_SCALE_ARCSEC = 0.1
WCS_CARDS: dict[str, str | int | float | bool] = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 300.5,
    "CRPIX2": 250.5,
    "CD1_1": -PIXEL_SCALE_ARCSEC / 3600,
    "CD1_2": 0.0,
    "CD2_1": 0.0,
    "CD2_2": PIXEL_SCALE_ARCSEC / 3600,
    "CUNIT1": "deg",
    "CUNIT2": "deg",
    "RADESYS": "ICRS",
}


def run_file(**parts: Any) -> RunFile:
    """Return what a new run writes in run.json; of its inputs nothing is there."""
    of_parts = {**PARTS, **parts}
    mark, at = fingerprint(of_parts), "2026-01-01T00:00:00.000+00:00"
    return {
        "deblend_batch_run": 1,
        "run": run_id("/out", mark),
        "state": "running",
        "fingerprint": mark,
        "fingerprint_of": cast("FingerprintParts", of_parts),
        "config": {"field": "/f.zarr", "detections": "/d.csv", "output": "/out"},
        "versions": {"deblend_batch": "0.1.0"},
        "earlier_versions": [],
        "created_at": at,
        "updated_at": at,
        "totals": Tally().totals(),
        "workers": [],
        "memory": None,
        "error": None,
    }


@dataclass(frozen=True)
class SmallField:
    """A field on disk whose sources are known."""

    url: str
    detections: str
    ids: NDArray[np.int64]
    yx: NDArray[np.float64]
    mag: NDArray[np.float32]
    model: str

    def config(self, output: str, **extra: Any) -> dict[str, Any]:
        """Return a run's config on CPUs of this machine, small tiles."""
        engine = {"gpus_per_actor": 0, "where": "local", **extra.pop("engine", {})}
        return {
            "field": self.url,
            "detections": self.detections,
            "output": output,
            "tiles": {"size": 200},
            "model": self.model,
            "engine": engine,
            **extra,
        }

    def on_ray(self, output: str, **extra: Any) -> dict[str, Any]:
        """Return a run's config on actors of the cluster."""
        return self.config(output, engine={"where": "ray", **extra.pop("engine", {})}, **extra)


def make_meta(**changes: Any) -> FieldMeta:
    """Return the metadata of a one-band field at 0.1 arcsec a pixel."""
    values: dict[str, Any] = {
        "name": "small",
        "bands": ("h",),
        "zero_point": (25.96,),
        "psf_fwhm_arcsec": (0.3,),
        "wcs_cards": WCS_CARDS,
        "noise_sigma": (0.01,),
    }
    return FieldMeta(**(values | changes))


def gaussian_image(
    shape_yx: tuple[int, int],
    yx: NDArray[np.float64],
    flux: NDArray[np.float64],
    sigma_px: float = 2.0,
    noise: float = 0.01,
) -> NDArray[np.float32]:
    """Draw round Gaussians on noise."""
    image = np.random.default_rng(7).normal(0, noise, shape_yx)
    grid_y, grid_x = np.indices((41, 41)) - 20
    for (y, x), total in zip(yx, flux, strict=True):
        if not (np.isfinite(y) and np.isfinite(x)):
            continue
        cy, cx = round(y), round(x)
        blob = np.exp(-((grid_y + cy - y) ** 2 + (grid_x + cx - x) ** 2) / (2 * sigma_px**2))
        blob *= total / (2 * np.pi * sigma_px**2)
        y0, x0 = max(cy - 20, 0), max(cx - 20, 0)
        y1, x1 = min(cy + 21, shape_yx[0]), min(cx + 21, shape_yx[1])
        if y0 < y1 and x0 < x1:
            image[y0:y1, x0:x1] += blob[y0 - cy + 20 : y1 - cy + 20, x0 - cx + 20 : x1 - cx + 20]
    return image.astype(np.float32)


def write_tiny_model(url: str, seed: int = 0, *, masks: bool = False) -> str:
    """Write a small untrained network, of a real architecture and file format."""
    import torch

    from deblend_batch.models.card import Domain, ModelCard
    from deblend_batch.models.networks.architectures import build_network
    from deblend_batch.models.weights import write_weights

    torch.manual_seed(seed)
    unet = {"filters": 4, "depth": 2, "up_kernel": 2, "fold": 2, "stamp_size": 32, "in_channels": 3}
    architecture = "blend2mask2flux" if masks else "blend2flux"
    shape: dict[str, Any] = (
        {"unet": unet, "filters": 4, "dense": 8}
        if masks
        else {"filters": (4, 8), "dense": 16, "stamp_size": 32}
    )
    card = ModelCard(
        name="tiny",
        architecture=architecture,
        stamp_size=32,
        has_masks=masks,
        network=shape,
        preprocess={"encoding": "heatmaps"} if masks else {},
        domain=Domain(psf_fwhm_px=(2.0, 5.0), separation_px=(1.0, 40.0), snr=(1.0, 1e7)),
        trained_on="nothing",
    )
    write_weights(url, card, build_network(architecture, shape, url)[0].state_dict())
    return url


def edit_array(url: str, name: str, **changes: Any) -> None:
    """Change the metadata of an array of a local Zarr group, format 3, as a stranger can."""
    path = Path(url, name, "zarr.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def grid(*edges: int) -> dict[str, Any]:
    """Return the metadata of a regular grid of chunks."""
    return {"name": "regular", "configuration": {"chunk_shape": edges}}


def member(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def read_shards(output: str) -> pa.Table:
    """Read every shard of a run, ordered by blend and role, without the tile's name."""
    folder = storage.join(output, "shards")
    tables = [pq.read_table(storage.join(folder, name)) for name in storage.list_names(folder)]
    rows = pa.concat_tables(tables)
    return rows.sort_by([("blend_id", "ascending"), ("role", "ascending")])


def same_rows(first: pa.Table, second: pa.Table) -> bool:
    """Compare rows bit for bit (NaN is equal to itself), but for the tile that held them."""

    def bits(rows: pa.Table) -> list[Any]:
        columns = [rows[name].to_numpy() for name in rows.schema.names if name != "tile"]
        return [
            c.view(f"i{c.itemsize}").tolist() if c.dtype.kind == "f" else c.tolist()
            for c in columns
        ]

    return bits(first) == bits(second)


def shards_of(output: Path) -> dict[str, bytes]:
    """Names and bytes of a run's shards."""
    return {path.name: path.read_bytes() for path in (output / "shards").glob("*.parquet")}


def wait_until(ready: Callable[[], bool], seconds: float = 600) -> None:
    """Wait for something that must come, on a busy machine too; to look takes a third of a core at most."""
    began = time.monotonic()
    deadline = began + seconds
    while not ready():
        if time.monotonic() > deadline:
            pytest.fail(f"still not so after {seconds:g} s")
        time.sleep(max(0.05, 2 * (time.monotonic() - began)))
        began = time.monotonic()
