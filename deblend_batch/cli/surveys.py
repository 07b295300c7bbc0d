"""The verb that lists the surveys whose files are known."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from deblend_batch.cli.output import JsonOpt, print_json, print_table

app = typer.Typer()


@app.command()
def surveys(
    name: Annotated[
        Optional[str],  # noqa: UP045 (typer reads it)
        typer.Argument(help="Survey to show, or FILE.yaml; all are listed if absent."),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """List the surveys that ingest --survey and detections.survey know, or show one's record."""
    from deblend_batch.surveys.shipped import load_survey, shipped_surveys

    if name is None:
        known = shipped_surveys()
        if as_json:
            print_json([each.model_dump(mode="json") for each in known.values()])
        else:
            print_table([(each.name, each.title) for each in known.values()])
        return
    record = load_survey(name)
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        print_table(list(_rows(record.model_dump(mode="json", exclude_defaults=True))))


def _rows(values: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Return a record's keys and values, a row each, as its file has them."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{above}{key}.")
        elif isinstance(value, list):
            rows.append((f"{above}{key}", ", ".join(map(str, value))))
        else:
            rows.append((f"{above}{key}", str(value)))
    return rows
