"""What the benchmarks share: fields of noise, a model of fixed speed, and a quiet Ray."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import structlog
import zarr
from numpy.typing import NDArray
from ray._private.internal_api import get_memory_info_reply

from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.field.layout import FieldMeta, create_field, finish_field
from deblend_batch.models import Domain

# Workers do not have this folder on their path.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

MODEL = "blend2flux-small"
"""The model whose card the stub stands for; its stamps are the larger ones, 128 px."""
NODE_MEMORY = 1 << 40
"""Bytes that a node is said to have: a stub needs none of what a run projects for a real GPU's process."""
_BLOCK_PX = 4096
_WCS: dict[str, str | int | float | bool] = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 1.0,
    "CRPIX2": 1.0,
    "CDELT1": -0.06 / 3600,
    "CDELT2": 0.06 / 3600,
    "CUNIT1": "deg",
    "CUNIT2": "deg",
    "RADESYS": "ICRS",
}


@dataclass(frozen=True)
class _Answer:
    flux: NDArray[np.float32]
    flux_err: NDArray[np.float32]
    masks: None = None


class _StubCard:
    takes_pairs = True
    stamp_size = 80
    domain = Domain(psf_fwhm_px=(0, 99), separation_px=(0, 99), snr=(-1e30, 1e30))


class Stub:
    """A model that takes a fixed time per stamp and no CPU: asleep, as a host is while its GPU computes.

    Parameters
    ----------
    stamps_per_second : float
        Its speed.
    batch : int
        Stamps of a batch.
    """

    card = _StubCard()

    def __init__(self, stamps_per_second: float, batch: int = 512) -> None:
        self.stamps_per_second = stamps_per_second
        self.default_batch_size = batch

    def predict(
        self, stamps: NDArray[np.float32], companion_yx: NDArray[np.float32], *_: Any
    ) -> _Answer:
        """Sleep as long as the device would take; answer with single pixels, which differ from pair to pair.

        Parameters
        ----------
        stamps : ndarray of float32, shape (n, y, x)
            Image units.
        companion_yx : ndarray of float32, shape (n, 2)
            Position in the stamp, px.

        Returns
        -------
        object
            ``flux`` and ``flux_err``, float32, shape (n, 2), image units; ``masks`` is None.
        """
        time.sleep(len(stamps) / self.stamps_per_second)
        size = stamps.shape[-1]
        yx = np.clip(np.nan_to_num(companion_yx), 0, size - 1).astype(np.int64)
        rows = np.arange(len(stamps))
        flux = np.stack([stamps[:, size // 2, size // 2], stamps[rows, yx[:, 0], yx[:, 1]]], axis=1)
        return _Answer(flux.astype(np.float32), np.ones_like(flux, np.float32))


def stub_loader(
    stamps_per_second: float, batch: int = 512, slower: dict[str, float] | None = None
) -> Callable[[RunContext, str], Stub]:
    """Return what makes the stub in an actor.

    Parameters
    ----------
    stamps_per_second : float
        Its speed.
    batch : int
        Stamps of a batch.
    slower : dict of str to float, optional
        Nodes, by id, on which the speed is another.

    Returns
    -------
    callable
        A loader for :func:`deblend_batch.process_field`.
    """

    def load(_: RunContext, __: str) -> Stub:
        node = ray.get_runtime_context().get_node_id()
        return Stub((slower or {}).get(node, stamps_per_second), batch)

    return load


def write_field(folder: str, size: int) -> str:
    """Write a field of noise, the same block of it again and again.

    Parameters
    ----------
    folder : str
        Where; made if absent.
    size : int
        Edge, px.

    Returns
    -------
    str
        Its URL.
    """
    meta = FieldMeta("bench", ("h",), (25.96,), (0.18,), _WCS, (1.0,))
    url = os.path.join(folder, "field.zarr")
    group = create_field(url, meta, (size, size), with_variance=False)
    image = group["image"]
    assert isinstance(image, zarr.Array)
    edge = min(_BLOCK_PX, size)
    block = np.random.default_rng(0).normal(0, 1, (edge, edge)).astype("f4")
    for y in range(0, size, edge):
        for x in range(0, size, edge):
            height, width = min(edge, size - y), min(edge, size - x)
            image[0, y : y + height, x : x + width] = block[:height, :width]
    finish_field(group, meta)
    return url


def write_pairs(
    folder: str, central_yx: NDArray[np.float64], companion_yx: NDArray[np.float64]
) -> dict[str, str]:
    """Write a detection table and a table of pairs.

    Parameters
    ----------
    folder : str
        Where; made if absent.
    central_yx, companion_yx : ndarray of float64, shape (n, 2)
        Positions of the members, px.

    Returns
    -------
    dict
        URLs of ``detections`` and ``pairs``.
    """
    os.makedirs(folder, exist_ok=True)
    n = len(central_yx)
    yx, ids = np.concatenate([central_yx, companion_yx]), np.arange(2 * n)
    urls = {
        "detections": os.path.join(folder, "detections.parquet"),
        "pairs": os.path.join(folder, "pairs.parquet"),
    }
    found = pa.table({"id": ids, "x": yx[:, 1], "y": yx[:, 0]})
    pq.write_table(found, urls["detections"], row_group_size=1 << 16)
    members = pa.table({"central_id": ids[:n], "companion_id": ids[n:]})
    pq.write_table(members, urls["pairs"], row_group_size=1 << 16)
    return urls


def random_pairs(size: int, n: int, seed: int = 0) -> tuple[NDArray[np.float64], ...]:
    """Draw pairs at random places of a field.

    Parameters
    ----------
    size : int
        Edge of the field, px.
    n : int
        Number of pairs.
    seed : int
        Of the random numbers.

    Returns
    -------
    central_yx, companion_yx : ndarray of float64, shape (n, 2)
        Positions, px, at most 12 px apart along each axis.
    """
    rng = np.random.default_rng(seed)
    central = rng.uniform(0, size - 1, (n, 2))
    return central, np.clip(central + rng.uniform(-12, 12, (n, 2)), 0, size - 1)


def be_quiet() -> None:
    """Keep warnings out of the tables: a stub does not need the GPU that torch cannot use."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def start_ray(cpus: float, gpus: float, **options: Any) -> None:
    """Start Ray on this machine, quietly."""
    be_quiet()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        _memory=NODE_MEMORY,
        log_to_driver=False,
        logging_level="error",
        **options,
    )


def spilled_mb() -> float:
    """Return what the object store of this Ray has spilled to disk since it was started."""
    reply = get_memory_info_reply(ray._private.state.state)  # noqa: SLF001  # there is no public call
    return float(reply.store_stats.spilled_bytes_total) / 1e6


def say_machine(*facts: str) -> None:
    """Print the machine and its load, which every figure must be read with."""
    load = os.getloadavg()[0]
    print("; ".join([f"{os.cpu_count()} cores", f"load {load:.1f}", *facts]), flush=True)


def load_now() -> str:
    """Return the machine's load, for the end of a line."""
    return f"load {os.getloadavg()[0]:4.1f}"
