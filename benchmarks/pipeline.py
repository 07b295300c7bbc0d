"""How close the whole pipeline comes to its model: ratios measured side by side in one run.

``python benchmarks/pipeline.py`` prints, from one run on this machine,

* stamps/s of the bare model, one process per core, on stamps that are ready in memory;
* stamps/s of the whole pipeline with that model (Zarr -> Dask -> stamps -> Ray actors -> shards);
* the same pipeline with a stub of fixed speed (20,000 stamps/s, asleep rather than computing, as a GPU
  is to its host), which shows the data path alone;
* the same job written the obvious way with Ray Data, in two styles;
* CPU time of the whole process tree per stamp (which other load disturbs less): in all, and without the
  start-up, from the difference to a run of one tile;
* with ``--profile``, where an actor's CPU time goes (py-spy).
"""

from __future__ import annotations

import argparse
import glob
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import ray

from benchmarks.metering import Cost, run_pipeline
from benchmarks.profiling import profiled
from benchmarks.ray_data import Style, run_ray_data
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
from deblend_batch.models import find_card, load_model

STUB_SPEED = 20_000
STUB_BATCH = 512
TILE_PX = 2048
FEW_PAIRS = 2_000


def bare_model(name: str, sources_per_px: float, seconds: float, ready: Any, rates: Any) -> None:
    """Run the model alone on stamps that are ready; report stamps per second, and CPU seconds a stamp."""
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
    done, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        model.predict(*arguments)
        done += n
    rates.put((done / (time.perf_counter() - started), (time.process_time() - cpu) / done))


def measure_bare(
    name: str, sources_per_px: float, seconds: float, processes: int
) -> tuple[float, float]:
    """Return stamps per second of the bare model over all cores, and its CPU seconds a stamp."""
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=bare_model, args=(name, sources_per_px, seconds, ready, rates))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    rate, cpu = zip(*(rates.get() for _ in workers), strict=True)
    for worker in workers:
        worker.join()
    return sum(rate), sum(cpu) / processes


@dataclass(frozen=True)
class Arm:
    """One way of doing the job, measured twice: on one tile, and on the whole field.

    Parameters
    ----------
    label : str
        Its name.
    pairs, cpu_seconds : tuple
        Of both.
    rates : tuple of float, optional
        Pairs per second on the whole field, from the first ready actor and from the first tile on.
    """

    label: str
    pairs: tuple[int, int]
    cpu_seconds: tuple[float, float]
    rates: tuple[float, float] | None = None

    @property
    def data_path_us(self) -> float:
        """CPU microseconds per stamp without the start-up."""
        few, many = self.pairs
        return 1e6 * (self.cpu_seconds[1] - self.cpu_seconds[0]) / (many - few)

    def line(self, against: float) -> str:
        """Return the arm as a line of the table; ``against`` is what the first arm's path costs."""
        rate = ""
        if self.rates is not None:
            whole, steady = (each / STUB_SPEED for each in self.rates)
            rate = (
                f"{self.rates[0]:7,.0f}/s, {whole:.2f} of the stub's, {steady:.2f} from first tile"
            )
        in_all = 1e6 * self.cpu_seconds[1] / self.pairs[1]
        return (
            f"{self.label:22} {rate:58} {in_all:6,.0f} us CPU/stamp, {self.data_path_us:6,.1f} without "
            f"start-up; first arm needs {against / self.data_path_us:.2f} of it  {load_now()}"
        )


@dataclass(frozen=True)
class Bench:
    """The fields on which the data path is measured.

    Parameters
    ----------
    folder : str
        Where everything is.
    few, many : dict
        URLs of one tile, and of the whole field.
    """

    folder: str
    few: dict[str, str]
    many: dict[str, str]

    def config(self, label: str, inputs: dict[str, str], **settings: Any) -> dict[str, Any]:
        """Return the config of a run."""
        return {
            "field": inputs["field"],
            "detections": inputs["detections"],
            "pairs": {"table": inputs["pairs"]},
            "output": os.path.join(self.folder, label),
            "model": MODEL,
            "tiles": {"size": TILE_PX},
            **settings,
        }

    def ours(self, *, profile: bool = False) -> Arm:
        """Measure the pipeline with the stub."""
        engine = {"gpus_per_actor": 1, "actors": 1, "batch_size": STUB_BATCH}
        loader = stub_loader(STUB_SPEED, STUB_BATCH)
        few = run_pipeline(self.config("ours-few", self.few, engine=engine), loader)
        many = run_pipeline(self.config("ours-many", self.many, engine=engine), loader)
        if profile:
            with profiled(self.folder) as report:
                again = self.config("ours-profiled", self.many, engine=engine)
                pairs = run_pipeline(again, loader).pairs
            print(report.table(pairs))
        costs = (few.cpu_seconds, many.cpu_seconds)
        rates = (many.summary.pairs_per_second, 1 / many.steady()[0])
        return Arm("pipeline", (few.pairs, many.pairs), costs, rates)

    def ray_data(self, style: Style) -> Arm:
        """Measure Ray Data, on the pairs that a run of the pipeline has indexed."""
        found = [self._ray_data(style, name) for name in ("few", "many")]
        assert found[1][0] == self._expected, f"{found[1][0]} pairs, not {self._expected}"
        pairs, seconds = zip(*found, strict=True)
        return Arm(f"Ray Data, {style}", pairs, seconds)

    @property
    def _expected(self) -> int:
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.many["pairs"]).num_rows)

    def _ray_data(self, style: Style, name: str) -> tuple[int, float]:
        (index,) = glob.glob(os.path.join(self.folder, f"ours-{name}", "index", "field*.parquet"))
        output = os.path.join(self.folder, f"{style}-{name}")
        inputs = getattr(self, name)
        return run_ray_data(inputs, index, output, TILE_PX, STUB_SPEED, style)


def make_inputs(folder: str, size: int, pairs: int) -> dict[str, str]:
    """Write a field of noise, and pairs at random places; what is in the stamps does not matter here."""
    return {"field": write_field(folder, size), **write_pairs(folder, *random_pairs(size, pairs))}


def compare_model(bench: Bench, model: str, size: int, pairs: int, seconds: float) -> None:
    """Print how close the pipeline comes to the bare model."""
    cores = os.cpu_count() or 1
    inputs = {**bench.many, **write_pairs(f"{bench.folder}/model-in", *random_pairs(size, pairs))}
    crowd = 2 * pairs / size**2
    before = measure_bare(model, crowd, seconds, cores)
    config = bench.config("model", inputs, model=model, engine={"gpus_per_actor": 0})
    run: Cost = run_pipeline(config)
    after = measure_bare(model, crowd, seconds, cores)
    rate, mean = run.summary.pairs_per_second, (before[0] + after[0]) / 2
    steady, cpu = 1 / run.steady()[0], run.steady()[1]
    bare_cpu = (before[1] + after[1]) / 2
    print(
        f"bare model, one process per core: {before[0]:,.0f} before, {after[0]:,.0f} after, stamps/s"
    )
    print(
        f"pipeline with it: {rate:,.0f} stamps/s, {rate / mean:.2f} of their mean; "
        f"{steady:,.0f} ({steady / mean:.2f}) from the first tile to the last; "
        f"driver {run.peak_mb['driver']:,.0f} MB; {load_now()}"
    )
    print(
        f"CPU of the bare model {1e6 * bare_cpu:,.0f} us a stamp, of the whole pipeline "
        f"{1e6 * cpu:,.0f}: {bare_cpu / cpu:.2f} of the CPU time goes into the model",
        flush=True,
    )


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--pairs", type=int, default=200_000, help="pairs of the stub runs")
    parser.add_argument("--model-pairs", type=int, default=30_000, help="0 leaves the model out")
    parser.add_argument("--size", type=int, default=12_288, help="edge of the field, px")
    parser.add_argument("--seconds", type=float, default=10.0, help="of the bare model")
    parser.add_argument("--profile", action="store_true", help="needs py-spy")
    chosen = parser.parse_args()
    say_machine(f"{chosen.model}, {find_card(chosen.model).stamp_size} px stamps")
    with tempfile.TemporaryDirectory() as folder:
        few = make_inputs(f"{folder}/few", TILE_PX, FEW_PAIRS)
        many = make_inputs(f"{folder}/many", chosen.size, chosen.pairs)
        bench = Bench(folder, few, many)
        start_ray(os.cpu_count() or 1, 1)
        if chosen.model_pairs:
            compare_model(bench, chosen.model, chosen.size, chosen.model_pairs, chosen.seconds)
        ours = bench.ours(profile=chosen.profile)
        print(ours.line(ours.data_path_us), flush=True)
        for style in ("flat_map", "map_batches"):
            print(bench.ray_data(style).line(ours.data_path_us), flush=True)
        ray.shutdown()


if __name__ == "__main__":
    main()
