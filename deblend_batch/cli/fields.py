"""The verbs that make inputs: ingest, detect, simulate."""

from __future__ import annotations

import typer

app = typer.Typer()
simulate_app = typer.Typer(
    help="Simulate pairs or a survey field, with known truth.", no_args_is_help=True
)
