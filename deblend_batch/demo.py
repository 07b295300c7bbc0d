"""From nothing to a catalogue and its report: what ``deblend-batch demo`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.errors import ConfigError, OutputConflictError

_MATCH_ARCSEC = 0.12
"""How far a row may be from its true source: three quarters of the PSF's width."""
_MARK = "# Made by deblend-batch demo; the folder is made anew each time.\n"


@dataclass(frozen=True)
class DemoResult:
    """What the demo made, and how good it is.

    Parameters
    ----------
    sources : int
        Primary rows.
    sources_per_second : float
        Of the run, once its actors were ready.
    without_truth : int
        Primary rows without a true source.
    missed : int
        True sources with a near neighbour that have no row.
    flux_mape, bias, sigma : float
        Mean absolute flux error (a fraction), mean and spread of the magnitude error, of the others.
    coverage : float
        Share of true fluxes within one sigma; 0.68 if errors are right.
    seconds : float
        Wall time of everything.
    folder, shards, report, config : str
        Where things are.
    """

    sources: int
    sources_per_second: float
    without_truth: int
    missed: int
    flux_mape: float
    bias: float
    sigma: float
    coverage: float
    seconds: float
    folder: str
    shards: str
    report: str
    config: str

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the result as names and texts."""
        return [
            ("sources", f"{self.sources:,} found in the image alone, and measured"),
            ("speed", f"{self.sources_per_second:,.0f} sources/s"),
            ("no such source", f"{self.without_truth:,} rows"),
            ("missed", f"{self.missed:,} true sources that have a neighbour"),
            ("flux error", f"{100 * self.flux_mape:.1f} % mean absolute"),
            ("error bars", f"true within one sigma in {100 * self.coverage:.0f} %"),
            ("mag error", f"bias {self.bias:+.3f}, sigma {self.sigma:.3f}"),
            ("total time", f"{self.seconds:.0f} s"),
            ("catalogue", self.shards),
            ("report", self.report),
            ("config", f"{self.config}  (edit it, then: deblend-batch run {self.config})"),
        ]


def run_demo(
    folder: str,
    *,
    size: int = 2304,
    pairs: int = 425,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> DemoResult:
    """Simulate a field, find its sources in the image, measure them, and compare with the truth.

    Parameters
    ----------
    folder : str
        Local folder for everything; an earlier demo there is replaced.
    size : int
        Edge of the field, px.
    pairs : int
        Simulated pairs.
    seed : int
        Seed of the simulation.
    say : callable
        Told what happens.

    Returns
    -------
    DemoResult
        What came out.

    Raises
    ------
    OutputConflictError
        If the folder holds something else.
    """
    from deblend_batch.cluster.connection import connected
    from deblend_batch.detect.field import detect_field
    from deblend_batch.engine.run import process_field
    from deblend_batch.evaluation.evaluate import evaluate_catalog
    from deblend_batch.field.layout import Field
    from deblend_batch.refine.field import how_to_detect
    from deblend_batch.report.page import write_report
    from deblend_batch.simulate.fields.field import simulate_field

    started = time.monotonic()
    folder = _take(folder)
    config = storage.join(folder, "config.yaml")
    say(f"simulating a {size} x {size} px field with {pairs:,} pairs (preset candels-h) ...")
    output = Output(storage.join(folder, "run"))
    with connected():
        truth = simulate_field(
            storage.join(folder, "field.zarr"),
            shape_yx=(size, size),
            n_pairs=pairs,
            n_isolated=pairs // 3,
            n_groups=pairs // 40,
            seed=seed,
            processes=os.cpu_count() or 1,
        )
        found = storage.join(folder, "sources.parquet")
        settings = {
            "field": truth.field_url,
            "detections": found,
            "output": output.url,
            "engine": {"where": "ray"},
        }
        storage.write_bytes(config, (_MARK + yaml.safe_dump(settings, sort_keys=False)).encode())
        say("finding its sources ...")
        opened = Field.open(truth.field_url)
        params, finish = how_to_detect(opened, None, refine=True)
        seen = detect_field(opened, found, params=params, finish=finish)
        say(f"measuring {seen.sources:,} sources ...")
        summary = process_field(config)
    say("comparing with the truth ...")
    compared = evaluate_catalog(output.url, truth.truth_url, match_arcsec=_MATCH_ARCSEC)
    score = compared.scores[0].members["pooled"]
    report = write_report(output)
    rows = summary.totals["rows"]
    return DemoResult(
        sources=rows,
        sources_per_second=rows / summary.seconds,
        without_truth=compared.counts["without truth"],
        missed=compared.counts["missed"],
        flux_mape=score.flux_mape,
        bias=score.bias,
        sigma=score.sigma,
        coverage=score.coverage,
        seconds=time.monotonic() - started,
        folder=folder,
        shards=output.shards_url,
        report=report,
        config=config,
    )


def _take(folder: str) -> str:
    """Make the demo's folder, or empty that of an earlier demo."""
    if not storage.is_local(folder):
        raise ConfigError(f"{folder}: the demo writes to a local folder; give a path")
    folder = os.path.abspath(folder)
    storage.check_apart(folder, key="--output")
    names = storage.list_names(folder)
    config = storage.join(folder, "config.yaml")
    if names and not (
        "config.yaml" in names and storage.read_bytes(config).startswith(_MARK.encode())
    ):
        raise OutputConflictError(
            f"{folder}: not empty ({names[0]} is there) and not an earlier demo; give another folder"
        )
    storage.remove_tree(folder)
    # Marked at once, so that a demo that was interrupted can be run again.
    storage.write_bytes(config, _MARK.encode())
    return folder
