"""The verbs of the product: demo, publish, report."""

from __future__ import annotations

from typing import Annotated

import typer

from deblend_batch.cli.options import OutputArg, StorageOpt, open_output
from deblend_batch.cli.output import JsonOpt, print_table, show

app = typer.Typer()
demo_app = typer.Typer()


@demo_app.command()
def demo(
    output: Annotated[str, typer.Option("--output", help="Folder for everything.")] = "demo",
    size: Annotated[int, typer.Option(help="Edge of the field, px.", min=512)] = 2304,
    pairs: Annotated[int, typer.Option(help="Simulated pairs.", min=10)] = 425,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.", min=0)] = 0,
) -> None:
    """Simulate a field, find and measure the sources of its image, and compare with the truth."""
    from deblend_batch.demo import run_demo

    print_table(run_demo(output, size=size, pairs=pairs, seed=seed, say=typer.echo).to_rows())


@app.command()
def merge(
    outputs: Annotated[
        list[str],
        typer.Argument(
            help="Output folders of complete runs, then the folder of their catalogue; paths or URLs.",
            metavar="OUTPUT... MERGED",
            show_default=False,
        ),
    ],
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> int:
    """Merge the outputs of several sites, or of parts of a survey, to one; run again to go on."""
    from deblend_batch.engine.audit.merge import merge_outputs
    from deblend_batch.errors import ConfigError
    from deblend_batch.progress import telling

    if len(outputs) < 3:
        raise ConfigError("merge: give two or more outputs, and then the folder of their catalogue")
    *parts, merged = [open_output(output, storage_options) for output in outputs]
    with telling("tiles") as progress:
        made = merge_outputs(parts, merged, progress)
    show(made, as_json=as_json)
    return made.exit_code


@app.command()
def publish(
    output: OutputArg, storage_options: StorageOpt = None, as_json: JsonOpt = False
) -> None:
    """Publish a complete run as a HATS catalogue, for lsdb."""
    from deblend_batch.engine.audit.publication import publish_run
    from deblend_batch.progress import telling

    with telling("tasks") as progress:
        published = publish_run(open_output(output, storage_options), progress)
    show(published, as_json=as_json)


@app.command()
def report(output: OutputArg, storage_options: StorageOpt = None) -> None:
    """Write the QA report of a run: one self-contained page."""
    from deblend_batch.report.page import write_report

    typer.echo(write_report(open_output(output, storage_options)))
