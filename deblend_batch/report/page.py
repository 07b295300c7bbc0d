"""The QA report of a run, from its output and, for example stamps, its fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deblend_batch import flags, storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import RunFile
from deblend_batch.errors import DeblendError
from deblend_batch.field.layout import Field
from deblend_batch.pages.page import Figure, Number, Section, Table, render_page
from deblend_batch.report import figures
from deblend_batch.report.survey import CatalogSurvey, choose_examples, survey_catalog
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box

_STAMP_PX = 64


def write_report(output: Output) -> str:
    """Write the QA report of a run into its output folder."""
    ledger = Ledger(output)
    run = ledger.read_run()
    survey = survey_catalog(ledger)
    sections = [_summary(run, survey)]
    if survey is not None:
        sections += [_sky(survey), _photometry(survey)]
        sections += _examples(run, survey, output)
        sections.append(_speed(survey))
    sections += [_flags(run), _quarantine(ledger), _provenance(run)]
    name = storage.name_of(output.url)
    page = render_page(
        f"Deblended catalogue: {name}",
        f"{run['state'].replace('_', ' ')}, {run['updated_at'][:19]} UTC",
        sections,
        footer=f"fingerprint {run['fingerprint']}",
    )
    output.write(output.report_url, page.encode())
    return output.report_url


def _summary(run: RunFile, survey: CatalogSurvey | None) -> Section:
    totals = run["totals"]
    pairs, tiles, found = totals["pairs"], totals["tiles"], totals["detections"]
    numbers = [
        Number("pairs measured", f"{pairs['written']:,}", f"of {pairs['expected']:,} expected"),
        Number("quarantined", f"{pairs['quarantined']:,}", "pairs"),
        Number("tiles", f"{tiles['written']:,}", f"of {tiles['expected']:,}"),
        Number("detections used", f"{found.get('used', 0):,}", f"of {found.get('read', 0):,}"),
    ]
    if survey is not None:
        band = survey.bands[0]
        rows = survey.sampled()
        err = rows[f"flux_err_{band}"].to_numpy() / np.abs(rows[f"flux_{band}"].to_numpy())
        known = err[np.isfinite(err)]
        typical = f"{100 * float(np.median(known)):.1f} %" if len(known) else "–"
        numbers.append(Number("typical flux error", typical, f"median, {band}"))
    text = "One row a source; what counts as a pair here is a blend of any number of sources."
    if survey is None or 2 * pairs["written"] == totals["rows"]:
        text = "Two rows a pair: central and companion."
    return Section("Summary", text, numbers)


def _sky(survey: CatalogSurvey) -> Section:
    rows = survey.sampled()
    band = survey.bands[0]
    return Section(
        "Pairs",
        figures=[
            Figure(figures.sky_map(rows), "Map of the pairs", "Each point is a pair's central."),
            Figure(
                figures.separation_against_contrast(rows, band),
                "Magnitude difference against separation",
                f"How unequal the members are, in {band}.",
            ),
        ],
    )


def _photometry(survey: CatalogSurvey) -> Section:
    rows, band = survey.sampled(), survey.bands[0]
    counts = [
        Figure(figures.magnitude_counts(survey, name), f"Number counts in {name}")
        for name in survey.bands
    ]
    errors = Figure(
        figures.signal_to_noise(rows, band),
        "Relative flux error against magnitude",
        f"One-sigma flux error over flux, in {band}.",
    )
    return Section("Photometry", figures=[*counts, errors])


def _examples(run: RunFile, survey: CatalogSurvey, output: Output) -> list[Section]:
    """Draw example stamps, where the run's field can still be read."""
    url = run["config"].get("field")
    pairs = choose_examples(survey.sampled())
    if not isinstance(url, str) or not pairs:
        return []
    try:
        opened = Field.open(url, output.options)
        stamps = [_stamp(opened, pair["yx"][0]) for pair in pairs]
    except DeblendError as error:
        return [Section("Example pairs", f"Not shown: {error}")]
    picture = figures.examples(stamps, pairs)
    caption = (
        f"{survey.bands[0]} band, {_STAMP_PX} px wide, asinh stretch; C the central, c the companion, "
        "with their deblended AB magnitudes; above, separation and tile."
    )
    return [
        Section("Example pairs", figures=[Figure(picture, "Example pairs", caption, wide=True)])
    ]


def _stamp(opened: Field, yx: Any) -> Any:
    y, x = (int(np.floor(value + 0.5)) - _STAMP_PX // 2 for value in yx)
    return read_tile(opened, Box(y, x, y + _STAMP_PX, x + _STAMP_PX)).image[0]


def _speed(survey: CatalogSurvey) -> Section:
    return Section(
        "Speed",
        "Wall time that each tile spent in an actor; tiles share an actor, so times overlap.",
        figures=[Figure(figures.tile_times(survey.receipts), "Time against pairs of each tile")],
    )


def _flags(run: RunFile) -> Section:
    counts, rows = run["totals"]["flags"], max(run["totals"]["rows"], 1)
    table = Table(
        ["flag", "rows", "share", "meaning"],
        [
            [
                flag.name,
                f"{counts.get(flag.name, 0):,}",
                f"{100 * counts.get(flag.name, 0) / rows:.1f} %",
                flag.description,
            ]
            for flag in flags.REGISTRY
        ],
    )
    return Section("Flags", table=table)


def _quarantine(ledger: Ledger) -> Section:
    records = list(ledger.read_quarantines(ledger.output.quarantined()[:100]))
    if not records:
        return Section("Quarantine", "Empty.")
    rows = [[record.tile, f"{len(record.pairs):,}", record.reason] for record in records]
    return Section("Quarantine", table=Table(["tile", "pairs", "reason"], rows))


def _provenance(run: RunFile) -> Section:
    config = [[key, _text(value)] for key, value in run["config"].items()]
    versions = [[name, version] for name, version in run["versions"].items()]
    weights = [["weights sha256", run["fingerprint_of"]["model"]]]
    return Section(
        "Provenance",
        table=[
            Table(["config", "value"], config + weights),
            Table(["package", "version"], versions),
        ],
    )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value))
    return "–" if value is None else str(value)
