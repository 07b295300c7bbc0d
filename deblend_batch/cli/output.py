"""What verbs print: plain text for people, JSON for scripts."""

from __future__ import annotations

import json
from typing import Annotated, Any, Protocol

import typer

from deblend_batch.text import printable

JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Shown(Protocol):
    """A result that verbs print."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-able values."""

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the result as names and texts."""


def show_help_alone(context: typer.Context) -> None:
    """Print the help of a group of verbs that was called without one, and exit as for a mistake."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def show(found: Shown, *, as_json: bool) -> None:
    """Print a result as a person or a script reads it."""
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(found.to_rows())


def print_json(value: Any) -> None:
    """Print a value as JSON on the standard output."""
    typer.echo(json.dumps(value, indent=1))


def print_table(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        typer.echo(f"{printable(name):<{width}}  {printable(value)}")


def print_columns(rows: list[tuple[str, ...]], *, as_remark: bool = False) -> None:
    """Print a table of several columns; on the standard error where a script reads the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip(), err=as_remark)
