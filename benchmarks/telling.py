"""What it costs to tell how a run is doing: its metrics, and a look of ``status --watch``.

``python benchmarks/telling.py`` starts Ray, and prints the CPU time of setting all metrics of an actor and of
the driver once, as each process does every second; and what a first and a further look at a run in an S3
store (SeaweedFS) ask of it, by the number of tiles.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from benchmarks.store_calls import counted_calls
from benchmarks.support import load_now, say_machine, start_ray
from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import Receipt
from deblend_batch.engine.account.metrics import RunMetrics
from deblend_batch.engine.account.reader import StatusReader
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.worker.metrics import ActorMetrics
from deblend_batch.progress import ProgressMeter
from tests.storage_s3.seaweedfs import BUCKET, SeaweedFS
from tests.support import run_file

_TIMES = 2000


class _Batcher:
    """Work that grows, so that every counter moves."""

    rows_at_once = 64
    _done = 0

    def work(self) -> Any:
        self._done += 64
        n = self._done
        return SimpleNamespace(stamps=n, room=n, batches=n, busy_seconds=n * 1e-3, waiting=n % 7)


def cpu_us(publish: Callable[[], None]) -> float:
    """Return the CPU time of a call, in microseconds, of all threads of this process."""
    publish()
    began = time.process_time()
    for _ in range(_TIMES):
        publish()
    return (time.process_time() - began) / _TIMES * 1e6


def measure_metrics() -> None:
    """Print what all metrics of an actor and of the driver cost."""
    start_ray(1, 0)
    actor = ActorMetrics("telling", cast("Any", _Batcher()))
    tally = Tally(counted=True)
    driver = RunMetrics("telling", tally, ProgressMeter("pairs", io.StringIO()), None)
    driver.watch(SimpleNamespace(tiles_in_flight=1, actors_ready=1, actors_starting=0))
    for name, each in (("actor", actor), ("driver", driver)):
        print(f"{name}: {cpu_us(each.publish):.0f} us a second, {load_now()}", flush=True)


def measure_looks(tiles: int) -> None:
    """Print what looks at a run of so many tiles, all done, ask of an S3 store."""
    with tempfile.TemporaryDirectory() as folder:
        server = SeaweedFS(Path(folder))
        server.start()
        try:
            output = f"s3://{BUCKET}/run{tiles}"
            _write_run(output, tiles, server.options)
            with counted_calls(output) as calls:
                reader = StatusReader(Output(output, server.options))
                reader.read()
                calls.pause()
                began = time.perf_counter()
                reader.read()
                seconds = time.perf_counter() - began
        finally:
            server.kill()
    first, further = (dict(sorted(count.items())) for count in (calls.before, calls.after))
    print(f"{tiles} tiles: first {first}, further {further} in {seconds:.2f} s, {load_now()}")


def _write_run(output: str, tiles: int, options: dict[str, Any]) -> None:
    """Write what a look reads: run.json, receipts, and shards of no content that matters."""
    digest, at = "0" * 64, datetime.now(UTC).isoformat()
    storage.write_bytes(f"{output}/run.json", json.dumps(run_file()).encode(), options)
    fs, path = storage.filesystem(output, options)
    objects = {}
    for number in range(tiles):
        name = f"t{number:06d}"
        receipt = Receipt(name, 1, 2, 1, digest, digest, digest, {}, {"cut": 1.0}, {}, at)
        objects[f"{path}/shards/{name}.parquet"] = b"x"
        objects[f"{path}/ledger/{name}.json"] = json.dumps(asdict(receipt)).encode()
    fs.pipe(objects)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs="*", default=[100, 3000])
    arguments = parser.parse_args()
    say_machine()
    measure_metrics()
    for tiles in arguments.tiles:
        measure_looks(tiles)


if __name__ == "__main__":
    main()
