"""The verbs of the science: train, evaluate, models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deblend_batch.cli.options import StorageOpt, read_storage_options
from deblend_batch.cli.output import JsonOpt, print_json

if TYPE_CHECKING:
    from deblend_batch.models.card import Domain

app = typer.Typer()


@app.command()
def train(
    output: Annotated[str, typer.Argument(help="Folder for weights, checkpoint and curves.")],
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Training config (YAML); the options below override it."),
    ] = None,
    model: Annotated[Optional[str], typer.Option(help="Recipe of the network.")] = None,  # noqa: UP045
    preset: Annotated[Optional[str], typer.Option(help="Survey to train for.")] = None,  # noqa: UP045
    steps: Annotated[Optional[int], typer.Option(help="Optimiser steps.", min=1)] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Seed.", min=0)] = None,  # noqa: UP045
    device: Annotated[Optional[str], typer.Option(help="Torch device.")] = None,  # noqa: UP045
    replicas: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Copies that train together under Ray Train, each on its share of a batch; "
            "with --device cuda on a GPU each.",
            min=1,
        ),
    ] = None,
    storage_options: StorageOpt = None,
) -> None:
    """Train a model on simulated pairs; run again with the same arguments to resume."""
    from deblend_batch.train.config import load_train_config, make_train_config
    from deblend_batch.train.run import train as train_model

    overrides = {
        "model": model,
        "preset": preset,
        "steps": steps,
        "seed": seed,
        "device": device,
        "replicas": replicas,
    }
    options = read_storage_options(storage_options)
    settled = (
        load_train_config(config, overrides, options)
        if config
        else make_train_config({}, overrides)
    )
    started = time.monotonic()

    def say(report: Any) -> None:
        typer.echo(f"{report}  {time.monotonic() - started:,.0f} s", err=True)

    typer.echo(train_model(settled, output, say, options))


@app.command()
def evaluate(
    paper_table: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Released table of Boucaud et al. 2020 (CSV)."),
    ] = None,
    catalog: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Output folder of a run; needs --truth."),
    ] = None,
    truth: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Table of true fluxes (Parquet)."),
    ] = None,
    band: Annotated[Optional[str], typer.Option(help="Band of the catalogue.")] = None,  # noqa: UP045
    match_arcsec: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Match by position, not by id."),
    ] = None,
    pairs: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Data set of simulated pairs."),
    ] = None,
    model: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Model to run on --pairs; repeat for more."),
    ] = None,
    baseline: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Baseline to run on --pairs; repeat for more; all if absent."),
    ] = None,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Torch device of the models; the CPU if absent."),
    ] = None,
    html: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Also write the report page here."),
    ] = None,
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Measure how well fluxes were recovered: of the paper, of a catalogue, or of models on pairs."""
    from deblend_batch import storage
    from deblend_batch.evaluation.evaluate import evaluate as measure
    from deblend_batch.progress import telling

    options = read_storage_options(storage_options)
    if html:
        tables = [url for url in (paper_table, truth, pairs) if url]
        storage.check_apart(html, tables, options, key="--html", alone=False)
    with telling("pairs") as progress:
        found = measure(
            paper_table=paper_table,
            catalog=catalog,
            truth=truth,
            band=band,
            match_arcsec=match_arcsec,
            pairs=pairs,
            models=model or (),
            baselines=baseline,
            device=device,
            options=options,
            progress=progress,
        )
    if html:
        # Here, so that numbers alone need no matplotlib.
        from deblend_batch.evaluation.report.page import write_report

        write_report(found, html, options)
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(found.to_text())


@app.command()
def models(as_json: JsonOpt = False) -> None:
    """List the shipped models with their cards."""
    from deblend_batch.models import list_models

    cards = list_models()
    if as_json:
        print_json([card.to_json() for card in cards])
        return
    for card in cards:
        mark = "  (default)" if card.default else ""
        typer.echo(f"{card.name}{mark}")
        stamps = f"{card.stamp_size} px stamps"
        what = f"{card.architecture}, {card.parameters:,} parameters, {stamps}; takes pairs"
        if not card.takes_pairs:
            what = f"fits blends of any number of members, all bands together; at most {stamps}"
        typer.echo(f"  {what}")
        typer.echo(f"  trained on {card.trained_on}")
        if card.domain is not None:
            typer.echo(f"  domain: {_domain(card.domain)}")
        if card.test_metrics:
            typer.echo(
                f"  on unseen galaxies, drawn as for training: {_metrics(card.test_metrics)}"
            )


def _domain(domain: Domain) -> str:
    (psf, separation, snr) = (domain.psf_fwhm_px, domain.separation_px, domain.snr)
    return (
        f"PSF FWHM {psf[0]:.2g} to {psf[1]:.2g} px, separation {separation[0]:.2g} to "
        f"{separation[1]:.2g} px, flux of the fainter over the rms of a pixel {snr[0]:,.0f} to {snr[1]:,.0f}"
    )


def _metrics(values: Mapping[str, float]) -> str:
    """Write test metrics with their units, in the order of the card."""
    units = {"bias": "{:+.3f} mag", "sigma": "{:.3f} mag", "nmad": "{:.3f} mag", "iou": "{:.3f}"}
    shown = [
        f"{name.replace('_', ' ')} {units.get(name, '{:.2%}').format(value)}"
        for name, value in values.items()
        if name != "pairs"
    ]
    if "pairs" in values:
        shown.append(f"{values['pairs']:,.0f} pairs")
    return ", ".join(shown) or "not measured"
