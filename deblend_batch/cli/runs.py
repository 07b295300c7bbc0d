"""The verbs of a run: plan, run, status, retry, verify."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from deblend_batch.cli.ahead import AHEAD
from deblend_batch.cli.options import OutputArg, StorageOpt, open_output, read_storage_options
from deblend_batch.cli.output import JsonOpt, show

app = typer.Typer()

ConfigArg = Annotated[
    str, typer.Argument(help="Config file (YAML); path or URL.", show_default=False)
]
FieldOpt = Annotated[Optional[str], typer.Option(help="Overrides 'field'.")]  # noqa: UP045 (typer)
DetectionsOpt = Annotated[Optional[str], typer.Option(help="Overrides 'detections'.")]  # noqa: UP045
OutputOpt = Annotated[Optional[str], typer.Option("--output", help="Overrides 'output'.")]  # noqa: UP045
ModelOpt = Annotated[Optional[str], typer.Option(help="Overrides 'model'.")]  # noqa: UP045
SeparationOpt = Annotated[
    Optional[float], typer.Option(help="Overrides 'pairs.max_separation', arcsec.")  # noqa: UP045
]
TileOpt = Annotated[Optional[int], typer.Option(help="Overrides 'tiles.size', px.")]  # noqa: UP045
ActorsOpt = Annotated[Optional[int], typer.Option(help="Overrides 'engine.actors'.")]  # noqa: UP045
WhereOpt = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Overrides 'engine.where': auto, ray or local."),
]
GpusOpt = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=0, help="GPUs that the run will have; this machine's if absent."),
]
SpeedOpt = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(min=1e-3, help="Stamps/s of the model on one actor; measured here if absent."),
]


def _overrides(
    field: str | None,
    detections: str | None,
    output: str | None,
    model: str | None,
    max_separation: float | None,
    tile_size: int | None,
    actors: int | None,
    where: str | None,
) -> dict[str, Any]:
    return {
        "field": field,
        "detections": detections,
        "output": output,
        "model": model,
        "pairs.max_separation": max_separation,
        "tiles.size": tile_size,
        "engine.actors": actors,
        "engine.where": where,
    }


@app.command()
def plan(
    config: ConfigArg,
    field: FieldOpt = None,
    detections: DetectionsOpt = None,
    output: OutputOpt = None,
    model: ModelOpt = None,
    max_separation: SeparationOpt = None,
    tile_size: TileOpt = None,
    actors: ActorsOpt = None,
    where: WhereOpt = None,
    gpus: GpusOpt = None,
    speed: SpeedOpt = None,
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Say what a run would do: tiles, pairs, memory, time. Writes nothing to the output."""
    from deblend_batch.config import load_config
    from deblend_batch.engine.plan import plan_run

    overrides = _overrides(
        field, detections, output, model, max_separation, tile_size, actors, where
    )
    options = read_storage_options(storage_options)
    planned = plan_run(load_config(config, overrides, options), gpus=gpus, speed=speed)
    show(planned, as_json=as_json)


@app.command()
def run(
    config: ConfigArg,
    field: FieldOpt = None,
    detections: DetectionsOpt = None,
    output: OutputOpt = None,
    model: ModelOpt = None,
    max_separation: SeparationOpt = None,
    tile_size: TileOpt = None,
    actors: ActorsOpt = None,
    where: WhereOpt = None,
    storage_options: StorageOpt = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only plan; writes nothing.")] = False,
    as_json: JsonOpt = False,
) -> int:
    """Process a field or a survey into catalogue shards; run again to resume."""
    from deblend_batch.config import load_config

    overrides = _overrides(
        field, detections, output, model, max_separation, tile_size, actors, where
    )
    options = read_storage_options(storage_options)
    settled = load_config(config, overrides, options)
    if dry_run:
        from deblend_batch.engine.plan import plan_run  # torch, which no driver needs

        show(plan_run(settled), as_json=as_json)
        return 0
    from deblend_batch.engine.crew.where import named_place

    if named_place(settled.engine) == "ray":
        AHEAD.end()
    from deblend_batch.engine.run import process_field
    from deblend_batch.logs import prints_to_log

    with prints_to_log():
        summary = process_field(settled)
    show(summary, as_json=as_json)
    return summary.exit_code


@app.command()
def status(
    output: OutputArg,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again until the run has ended, or Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two looks of --watch.", min=0.1)
    ] = 10.0,
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Say how far a run is, from its output alone."""
    from deblend_batch.engine.account.reader import StatusReader

    reader = StatusReader(open_output(output, storage_options))
    if watch:
        from deblend_batch.cli.watch import watch_run

        watch_run(reader, interval, as_json=as_json)
    else:
        show(reader.read(), as_json=as_json)


@app.command()
def retry(output: OutputArg, storage_options: StorageOpt = None, as_json: JsonOpt = False) -> int:
    """Process the quarantined tiles of a run again."""
    from deblend_batch.engine.run import retry_run
    from deblend_batch.logs import prints_to_log

    with prints_to_log():
        summary = retry_run(open_output(output, storage_options))
    show(summary, as_json=as_json)
    return summary.exit_code


@app.command()
def verify(
    output: OutputArg,
    recompute: Annotated[
        int, typer.Option(min=0, help="Pairs drawn at random to be measured again; 0 for none.")
    ] = 16,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Of that draw; the run's own if absent.", show_default=False),
    ] = None,
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> int:
    """Check every shard of a run against its ledger, and some pairs against the inputs."""
    from deblend_batch.engine.audit.verify import verify_run
    from deblend_batch.progress import telling

    opened = open_output(output, storage_options)
    with telling("tiles") as progress:
        found = verify_run(opened, recompute=recompute, seed=seed, progress=progress)
    show(found, as_json=as_json)
    return found.exit_code
