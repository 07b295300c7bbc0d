"""Pixel reads from an object store: s3fs and obstore under Zarr, on one S3 server, in one run.

``python benchmarks/object_store.py`` starts SeaweedFS on loopback, writes a field of 4096 x 4096 px to it,
and reads its tiles of 2048 px with their halo,

* through s3fs;
* through obstore as a Zarr store (obstore's own fsspec class has no suffix ranges, which shards need);

each with the chunks of a shard one after the other, as Zarr 3.1 asks for them, and several at a time, as the
product does with s3fs; the indexes of shards are kept in all four. Straight from the server, and through a
proxy that adds latency. It prints the median of the wall time and of the CPU time of a tile, the proxy's CPU
time included, and the number of requests. obstore is not a dependency: ``pip install obstore``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count, product
from pathlib import Path
from typing import Any

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import dask
import dask.array as da
import dask.threaded
import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import ObjectStore

from deblend_batch.arrays import stores
from deblend_batch.arrays.indexes import KeptIndexes
from deblend_batch.field.layout import create_field
from deblend_batch.tiling.reader import REQUESTS_AT_ONCE
from deblend_batch.tiling.tile import Box
from tests.storage_s3.proxy import Proxy
from tests.storage_s3.seaweedfs import BUCKET, SeaweedFS
from tests.support import make_meta

EDGE_PX = 4096
TILE_PX = 2048
HALO_PX = 33
URL = f"s3://{BUCKET}/field.zarr"

Reader = Callable[[Box], Any]
_numbers = count()


def s3fs_store(server: SeaweedFS, endpoint: str) -> Store:
    """Open the field with s3fs, as the product does."""
    options = {**server.options, "client_kwargs": {"endpoint_url": endpoint}}
    return stores.open_group(URL, options).store


def obstore_store(server: SeaweedFS, endpoint: str) -> Store:
    """Open the field with obstore as a Zarr store."""
    store = import_module("obstore.store").S3Store(
        BUCKET,
        prefix=URL.rsplit("/", 1)[-1],
        endpoint=endpoint,
        access_key_id=server.key,
        secret_access_key=server.secret,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    return KeptIndexes(ObjectStore(store, read_only=True))


def make_readers(server: SeaweedFS, endpoint: str) -> dict[str, Reader]:
    """Return what is compared, by name."""
    readers: dict[str, Reader] = {}
    for name, opened in (("s3fs", s3fs_store), ("obstore", obstore_store)):
        image = _image(opened(server, endpoint))
        readers[name] = partial(_read, image, image.shards or image.chunks, dask.get)
        threads = partial(dask.threaded.get, num_workers=REQUESTS_AT_ONCE)
        readers[f"{name}, {REQUESTS_AT_ONCE} at once"] = partial(
            _read, image, image.chunks, threads
        )
    return readers


def _image(store: Store) -> zarr.Array[Any]:
    image = zarr.open_group(store, mode="r" if store.read_only else "r+")["image"]
    assert isinstance(image, zarr.Array)
    return image


def _read(image: zarr.Array[Any], chunks: Any, scheduler: Callable[..., Any], box: Box) -> Any:
    whole = da.from_zarr(image, chunks=chunks, name=f"read-{next(_numbers)}", inline_array=True)
    return whole[..., box.y0 : box.y1, box.x0 : box.x1].compute(scheduler=scheduler)


@dataclass(frozen=True)
class Cost:
    """What a tile cost: medians of seconds, and requests."""

    wall_s: float
    cpu_s: float
    requests: float


def measure(
    readers: dict[str, Reader], boxes: Sequence[Box], rounds: int, proxy: Proxy
) -> dict[str, Cost]:
    """Read every tile ``rounds`` times with each reader in turn, so that all meet the same machine."""
    for read in readers.values():
        read(boxes[0])
    spent: dict[str, list[tuple[float, float, int]]] = {name: [] for name in readers}
    for _, box in product(range(rounds), boxes):
        for name, read in readers.items():
            asked, wall, cpu = proxy.count("GET"), time.perf_counter(), time.process_time()
            read(box)
            spent[name].append(
                (
                    time.perf_counter() - wall,
                    time.process_time() - cpu,
                    proxy.count("GET") - asked,
                )
            )
    return {
        name: Cost(*(statistics.median(column) for column in zip(*each, strict=True)))
        for name, each in spent.items()
    }


def check_same(readers: dict[str, Reader], box: Box) -> None:
    """Check that all readers return the same pixels."""
    first, *others = (read(box) for read in readers.values())
    assert all(np.array_equal(first, other) for other in others)


@contextmanager
def served_field() -> Iterator[SeaweedFS]:
    """Start a server with the field in its bucket."""
    with tempfile.TemporaryDirectory() as folder:
        server = SeaweedFS(Path(folder))
        server.start()
        try:
            group = create_field(
                URL, make_meta(), (EDGE_PX, EDGE_PX), with_variance=False, options=server.options
            )
            rng = np.random.default_rng(2)
            _image(group.store)[0] = rng.normal(size=(EDGE_PX, EDGE_PX)).astype(np.float32)
            yield server
        finally:
            server.kill()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 40.0], metavar="MS")
    options = parser.parse_args()
    corners = product(range(0, EDGE_PX, TILE_PX), repeat=2)
    boxes = [
        Box(y - HALO_PX, x - HALO_PX, y + TILE_PX + HALO_PX, x + TILE_PX + HALO_PX).clipped(
            (EDGE_PX, EDGE_PX)
        )
        for y, x in corners
    ]
    print(
        f"{'way':<16} {'reader':<18} {'wall ms':>8} {'CPU ms':>8} {'requests':>9}   (median, a tile)"
    )
    with served_field() as server, Proxy(server.endpoint) as proxy:
        ways = [("straight", server.endpoint, 0.0)]
        ways += [(f"proxy, {ms:g} ms", proxy.endpoint, ms / 1000) for ms in options.latency]
        for way, endpoint, latency_s in ways:
            proxy.latency_s = latency_s
            readers = make_readers(server, endpoint)
            check_same(readers, boxes[0])
            for name, cost in measure(readers, boxes, options.rounds, proxy).items():
                asked = (
                    f"{cost.requests:9.0f}" if latency_s or endpoint == proxy.endpoint else " " * 9
                )
                print(
                    f"{way:<16} {name:<18} {1000 * cost.wall_s:8.0f} {1000 * cost.cpu_s:8.0f} {asked}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
