"""How close the whole pipeline comes to its model: ratios measured side by side in one run.

``python benchmarks/pipeline.py`` prints, from one run on this machine,

* stamps/s of the bare model, one process per core, on stamps that are ready in memory;
* stamps/s of the whole pipeline with that model (Zarr -> Dask -> stamps -> Ray actors -> shards);
* the same pipeline with a stub of fixed speed (20,000 stamps/s, asleep rather than computing, as a GPU
  is to its host), fed in both ways, which shows the data path alone;
* CPU time of the whole process tree per stamp (which other load disturbs less; start-up of the actors is in
  it), and the driver's memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import zarr

from deblend_batch.engine.progress import ProgressMeter
from deblend_batch.engine.run import process_field
from deblend_batch.engine.work import RunContext
from deblend_batch.field.layout import FieldMeta, create_field, finish_field
from deblend_batch.models import Domain, find_card, load_model

STUB_SPEED = 20_000
STUB_BATCH = 512
WCS: dict[str, str | int | float | bool] = {
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
    flux: np.ndarray
    flux_err: np.ndarray
    masks: None = None


class _StubCard:
    domain = Domain(psf_fwhm_px=(0, 99), separation_px=(0, 99), snr=(-1e30, 1e30))


class Stub:
    """A model that takes a fixed time per stamp and no CPU."""

    card = _StubCard()
    default_batch_size = STUB_BATCH

    def predict(self, stamps: np.ndarray, *_: Any) -> _Answer:
        """Sleep as long as a device of :data:`STUB_SPEED` would take."""
        time.sleep(len(stamps) / STUB_SPEED)
        flux = np.ones((len(stamps), 2), np.float32)
        return _Answer(flux, flux)


def load_stub(_: RunContext, __: str) -> Stub:
    """Make the stub in an actor."""
    return Stub()


def make_field(folder: str, size: int, pairs: int) -> dict[str, str]:
    """Write a field of noise, and pairs at random places; what is in the stamps does not matter here."""
    meta = FieldMeta("bench", ("h",), (25.96,), (0.18,), WCS, (1.0,))
    url = os.path.join(folder, "field.zarr")
    group = create_field(url, meta, (size, size), with_variance=False)
    rng = np.random.default_rng(0)
    image = group["image"]
    assert isinstance(image, zarr.Array)
    for y in range(0, size, 4096):
        image[0, y : y + 4096] = rng.normal(0, 1, (min(4096, size - y), size)).astype("f4")
    finish_field(group, meta)
    yx = rng.uniform(0, size - 1, (pairs, 2))
    companion = np.clip(yx + rng.uniform(-12, 12, (pairs, 2)), 0, size - 1)
    both = np.concatenate([yx, companion])
    ids = np.arange(2 * pairs)
    detections, table = os.path.join(folder, "d.parquet"), os.path.join(folder, "p.parquet")
    pq.write_table(pa.table({"id": ids, "x": both[:, 1], "y": both[:, 0]}), detections)
    pq.write_table(pa.table({"central_id": ids[:pairs], "companion_id": ids[pairs:]}), table)
    return {"field": url, "detections": detections, "pairs": table}


def bare_model(name: str, sources_per_px: float, seconds: float, ready: Any, rates: Any) -> None:
    """Run the model alone on stamps that are ready; report stamps per second."""
    import torch

    torch.set_num_threads(1)
    model = load_model(name)
    n, size = model.default_batch_size, model.card.stamp_size
    rng = np.random.default_rng(0)
    stamps = rng.normal(0, 1, (n, size, size)).astype(np.float32)
    companion = rng.uniform(size / 2 - 12, size / 2 + 12, (n, 2)).astype(np.float32)
    neighbours = np.full((n, 8, 2), np.nan, np.float32)
    crowd = min(8, round(sources_per_px * size**2))  # as many as the pipeline's stamps have
    neighbours[:, :crowd] = rng.uniform(0, size, (n, crowd, 2))
    sigma = np.ones(n, np.float32)
    arguments = (stamps, companion, None, neighbours, sigma, n)
    model.predict(*arguments)
    ready.wait()
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        model.predict(*arguments)
        done += n
    rates.put(done / (time.perf_counter() - started))


def measure_bare(name: str, sources_per_px: float, seconds: float, processes: int) -> float:
    """Return stamps per second of the bare model over all cores."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=bare_model, args=(name, sources_per_px, seconds, ready, rates))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    total: float = sum(rates.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def cpu_seconds() -> float:
    """CPU time of this process and everything below it, Ray included."""
    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return total


@dataclass(frozen=True)
class Measured:
    """What a whole run cost."""

    stamps_per_second: float
    cpu_us_per_stamp: float
    driver_mb: float

    def line(self, label: str, limit: float) -> str:
        """Return the run as a line of the table."""
        ratio = self.stamps_per_second / limit
        return (
            f"{label:46} {self.stamps_per_second:9,.0f} stamps/s  ratio {ratio:.2f}  "
            f"{self.cpu_us_per_stamp:6,.0f} us CPU/stamp  driver {self.driver_mb:,.0f} MB"
        )


def measure_pipeline(inputs: dict[str, str], folder: str, label: str, **settings: Any) -> Measured:
    """Run the whole pipeline once."""
    loader = settings.pop("loader", None)
    config = {
        "field": inputs["field"],
        "detections": inputs["detections"],
        "pairs": {"table": inputs["pairs"]},
        "output": os.path.join(folder, label),
        **settings,
    }
    before = cpu_seconds()
    extra = {} if loader is None else {"loader": loader}
    with open(os.devnull, "w") as nowhere:
        summary = process_field(config, progress=ProgressMeter("pairs", nowhere), **extra)
    pairs = summary.totals["pairs"]["written"]
    cpu = 1e6 * (cpu_seconds() - before) / pairs
    return Measured(summary.pairs_per_second, cpu, psutil.Process().memory_info().rss / 1e6)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="blend2flux-small")
    parser.add_argument("--pairs", type=int, default=200_000, help="pairs of the stub runs")
    parser.add_argument("--model-pairs", type=int, default=30_000, help="pairs of the model run")
    parser.add_argument("--size", type=int, default=12_288, help="edge of the field, px")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the bare model")
    chosen = parser.parse_args()
    cores = os.cpu_count() or 1
    card = find_card(chosen.model)
    load = os.getloadavg()[0]
    print(f"{cores} cores; {chosen.model}, {card.stamp_size} px stamps; load {load:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        few = make_field(os.path.join(folder, "few"), chosen.size, chosen.model_pairs)
        many = make_field(os.path.join(folder, "many"), chosen.size, chosen.pairs)
        crowd = 2 * chosen.model_pairs / chosen.size**2
        before = measure_bare(chosen.model, crowd, chosen.seconds, cores)
        ray.init(
            address="local",
            num_cpus=cores,
            num_gpus=1,
            include_dashboard=False,
            log_to_driver=False,
        )
        run = measure_pipeline(
            few, folder, "model", model=chosen.model, engine={"gpus_per_actor": 0}
        )
        after = measure_bare(chosen.model, crowd, chosen.seconds, cores)
        print(f"{'bare model, one process per core, before':46} {before:9,.0f} stamps/s")
        print(f"{'bare model, one process per core, after':46} {after:9,.0f} stamps/s")
        print(run.line("pipeline with it, against their mean", (before + after) / 2))
        for feed in ("fused", "split"):
            engine = {"gpus_per_actor": 1, "actors": 1, "feed": feed, "batch_size": STUB_BATCH}
            run = measure_pipeline(
                many, folder, feed, model=chosen.model, engine=engine, loader=load_stub
            )
            print(run.line(f"pipeline with a stub of {STUB_SPEED:,}/s, {feed}", STUB_SPEED))
        ray.shutdown()


if __name__ == "__main__":
    main()
