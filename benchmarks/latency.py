"""What the latency of an object store costs: how busy a model is kept, at 0 ms and at 40 ms.

``python benchmarks/latency.py`` starts SeaweedFS on loopback, with a proxy that adds latency, and runs the
product on one actor with a stub of fixed speed: field, detections, pairs and output are all in the store. It
prints the share of the time in which the model was computing, in all and in the second half of the tiles, by
when the number of tiles in flight has settled; and that share over the one at the first latency. Beside it
stands the same with a fixed number of tiles in flight.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from benchmarks.support import (
    MODEL,
    load_now,
    random_pairs,
    say_machine,
    start_ray,
    stub_loader,
    write_field,
    write_pairs,
)
from deblend_batch import process_field, storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import Receipt
from deblend_batch.engine import run
from deblend_batch.engine.driver.depth import GROWTH
from deblend_batch.progress import ProgressMeter
from tests.storage_s3.proxy import Proxy
from tests.storage_s3.seaweedfs import BUCKET, SeaweedFS

INPUTS = f"s3://{BUCKET}/inputs"


def upload(folder: str, urls: dict[str, str], options: dict[str, Any]) -> dict[str, str]:
    """Copy a field and its tables to the store; return where they are there."""
    moved = {}
    for key, url in urls.items():
        there = storage.join(INPUTS, os.path.relpath(url, folder))
        paths = [path for path in Path(url).rglob("*") if path.is_file()] or [Path(url)]
        for path in paths:
            name = os.path.relpath(path, folder)
            storage.write_bytes(storage.join(INPUTS, name), path.read_bytes(), options)
        moved[key] = there
    return moved


def busy_share(receipts: Sequence[Receipt]) -> float:
    """Return the share of the time between the first and the last of some receipts of one actor."""
    first, last = receipts[0].worker, receipts[-1].worker
    elapsed = last["up_seconds"] - first["up_seconds"]
    return float((last["busy_seconds"] - first["busy_seconds"]) / elapsed)


def measure(config: dict[str, Any], speed: float) -> tuple[float, float, float]:
    """Run; return the busy share in all and in the second half, and stamps a second."""
    summary = process_field(
        config, progress=ProgressMeter("pairs", io.StringIO()), loader=stub_loader(speed)
    )
    ledger = Ledger(Output(config["output"], config["storage_options"]))
    found = ledger.read_receipts(ledger.output.receipts())
    receipts = sorted(found, key=lambda each: float(each.worker["up_seconds"]))
    half = receipts[len(receipts) // 2 :]
    return busy_share(receipts), busy_share(half), summary.pairs_per_second


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=8192, help="edge of the field, px")
    parser.add_argument("--tile", type=int, default=1024, help="edge of a tile, px")
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--speed", type=float, default=1500.0, help="stamps/s of the stub")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 40.0], metavar="MS")
    options = parser.parse_args()
    start_ray(cpus=2, gpus=1)
    say_machine(f"stub of {options.speed:,.0f}/s, tiles of {options.tile} px")
    with tempfile.TemporaryDirectory() as folder:
        server = SeaweedFS(Path(folder))
        server.start()
        try:
            inputs = os.path.join(folder, "inputs")
            urls = {"field": write_field(inputs, options.size)}
            urls |= write_pairs(inputs, *random_pairs(options.size, options.pairs))
            compare(options, upload(inputs, urls, server.options), server)
        finally:
            server.kill()


def compare(options: argparse.Namespace, urls: dict[str, str], server: SeaweedFS) -> None:
    """Run at each latency, with tiles in flight that adapt and with a fixed number of them, in turn."""
    print(
        f"{'tiles in flight':<16} {'latency':>8} {'busy':>6} {'later':>6} {'of first':>9} {'stamps/s':>9}"
    )
    first: dict[str, float] = {}
    growth = {"adapted": GROWTH, "fixed": 1}
    with Proxy(server.endpoint) as proxy:
        cases = product(range(options.rounds), options.latency, growth)
        for number, (_, latency_ms, name) in enumerate(cases):
            proxy.latency_s = latency_ms / 1000
            config = {
                "field": urls["field"],
                "detections": urls["detections"],
                "pairs": {"table": urls["pairs"]},
                "output": f"s3://{BUCKET}/out-{number}",
                "model": MODEL,
                "tiles": {"size": options.tile},
                "engine": {"batch_size": 64},
                "storage_options": {
                    **server.options,
                    "client_kwargs": {"endpoint_url": proxy.endpoint},
                },
            }
            with patch.object(run, "GROWTH", growth[name]):
                share, later, rate = measure(config, options.speed)
            if latency_ms == options.latency[0]:
                first[name] = later
            print(
                f"{name:<16} {latency_ms:5.0f} ms {share:6.2f} {later:6.2f} {later / first[name]:9.2f} "
                f"{rate:9,.0f}  {load_now()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
