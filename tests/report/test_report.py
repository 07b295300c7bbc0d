"""The report of a run: one page that needs nothing else, whatever the run is called."""

from __future__ import annotations

import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from deblend_batch import flags
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import QuarantineRecord, Receipt, now
from deblend_batch.catalog.shard import Measurement, encode, make_rows
from deblend_batch.engine.run import process_field
from deblend_batch.errors import CatalogError
from deblend_batch.report.page import write_report
from deblend_batch.report.survey import choose_examples, survey_catalog
from tests.blends import blends_of_two
from tests.support import SmallField, make_meta, run_file

HOSTILE = r"<script>$\frac$"
"""Markup to a browser, and broken mathematics to matplotlib."""


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def names(self) -> set[str]:
        """Which tags there are."""
        return {tag for tag, _ in self.tags}

    @property
    def text(self) -> str:
        """Every word, separated by single spaces."""
        return " ".join(" ".join(self.pieces).split())

    def images(self) -> list[str]:
        """Sources of the pictures."""
        return [str(attrs["src"]) for tag, attrs in self.tags if tag == "img"]


def report_of(output: str) -> Page:
    """Write and read a report."""
    return Page(Path(write_report(Output(output))).read_text())


@pytest.fixture(scope="module")
def hostile_run(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete run whose folder and band have names that nobody should trust."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(small_field.url, folder / "field.zarr")
    zarr.open_group(str(folder / "field.zarr"), mode="a").attrs["bands"] = [HOSTILE]
    output = str(folder / HOSTILE)
    config = small_field.config(output, field=str(folder / "field.zarr"), engine={"actors": 1})
    process_field(config)
    return output


@pytest.fixture(scope="module")
def page(hostile_run: str) -> Page:
    """Its report."""
    return report_of(hostile_run)


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert not {"script", "link", "iframe", "object"} & page.names
    references = [
        str(value)
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in {"href", "src", "srcset", "action", "data"}
    ]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in references)


def test_hostile_names_are_shown_as_text(page: Page, hostile_run: str) -> None:
    assert f"Deblended catalogue: {HOSTILE}" in page.text
    assert f"Number counts in {HOSTILE}" in [attrs.get("alt") for _, attrs in page.tags]
    assert "<script>" not in Path(hostile_run, "report.html").read_text()


def test_the_page_says_what_the_run_found(page: Page, hostile_run: str) -> None:
    run = Ledger(Output(hostile_run)).read_run()
    totals = run["totals"]
    assert f"pairs measured {totals['pairs']['written']:,}" in page.text
    assert f"tiles {totals['tiles']['written']:,} of {totals['tiles']['expected']:,}" in page.text
    assert f"of {totals['detections']['read']:,}" in page.text
    assert run["fingerprint"] in page.text
    assert run["fingerprint_of"]["model"] in page.text
    for flag in flags.REGISTRY:
        assert f"{flag.name} {totals['flags'].get(flag.name, 0):,} " in page.text
    # Sky, contrast, counts, errors, examples, times.
    assert len(page.images()) == 6


def test_writing_it_again_replaces_it(page: Page, hostile_run: str) -> None:
    before = Path(hostile_run, "report.html").read_bytes()
    write_report(Output(hostile_run))
    assert Path(hostile_run, "report.html").read_bytes() == before


def test_a_run_whose_field_is_gone_has_a_report_without_stamps(
    page: Page, hostile_run: str, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(hostile_run, copy)
    run = Ledger(Output(str(copy))).read_run()
    run["config"]["field"] = str(tmp_path / "gone.zarr")
    Ledger(Output(str(copy))).write_run(run)
    without = report_of(str(copy))
    assert len(without.images()) == len(page.images()) - 1
    assert re.search(r"Not shown: \S+gone.zarr: no Zarr group here", without.text)


def test_an_empty_run_has_a_report(small_field: SmallField, tmp_path: Path) -> None:
    alone = pq.read_table(small_field.detections).slice(0, 1)
    pq.write_table(alone, tmp_path / "none.parquet")
    output = str(tmp_path / "out")
    process_field(small_field.config(output, detections=str(tmp_path / "none.parquet")))
    empty = report_of(output)
    assert empty.images() == []
    assert "pairs measured 0 of 0 expected" in empty.text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="not the output of a run"):
        write_report(Output(str(tmp_path)))


def shard_rows(bands: list[str], flux: np.ndarray) -> pa.Table:
    """Rows of as many pairs as there are fluxes; separations fall, so that order shows."""
    n = len(flux)
    place = np.arange(2 * n, dtype=np.float64).reshape(n, 2)
    pairs = blends_of_two(
        np.stack([place, place], axis=-1),
        radec=np.stack([150 + place / 1e4, place / 1e4], axis=-1),
        separation_arcsec=np.repeat(np.linspace(2, 0.5, n)[:, None], 2, axis=1),
    )
    values = np.tile(np.asarray(flux, np.float32)[:, None, None], (1, len(bands), 2))
    missing = np.full((n, 2), np.nan, np.float32)
    errors = (np.abs(values) / 10).astype(np.float32)
    measured = Measurement(
        {
            "flux": values,
            "flux_err": errors,
            "mask_area": missing,
            "mask_overlap": missing,
            "flags": pairs.flags,
        }
    )
    meta = make_meta(
        bands=tuple(bands),
        zero_point=(31.4,) * len(bands),
        psf_fwhm_arcsec=(0.3,) * len(bands),
        noise_sigma=None,
    )
    return make_rows("t", pairs, measured, meta, "a network")


def write_run(output: str, shards: dict[str, pa.Table]) -> Ledger:
    """Write what a finished run leaves, without running it."""
    ledger = Ledger(Output(output))
    pairs = sum(len(rows) for rows in shards.values()) // 2
    counts = {"expected": pairs, "written": pairs, "quarantined": 0, "pending": 0}
    totals: dict[str, Any] = {"pairs": counts, "tiles": counts, "rows": 2 * pairs}
    config = {"field": None, "survey": ["a.zarr", "b.zarr"]}
    record = {**run_file(), "state": "complete", "config": config}
    ledger.write_run({**record, "totals": run_file()["totals"] | totals})
    for tile, rows in shards.items():
        n, shard = len(rows), encode(rows)
        ledger.create_shard(tile, shard)
        ledger.create_receipt(Receipt(tile, n // 2, n, len(shard), "", "f", "m", {}, {}, {}, now()))
    return ledger


@pytest.mark.parametrize(
    "bands",
    [(["g", "r"], ["g", "r"]), (["g", "r"], ["g"]), (["g"], ["g", "r"]), (["g"], ["r"])],
    ids=["same", "second has fewer", "second has more", "none in common"],
)
def test_fields_of_a_survey_may_have_other_bands(
    tmp_path: Path, bands: tuple[list[str], list[str]]
) -> None:
    tables = {
        f"f000{number}-y0000x0000": shard_rows(names, np.full(4, 100.0))
        for number, names in enumerate(bands)
    }
    ledger = write_run(str(tmp_path / "out"), tables)
    survey = survey_catalog(ledger)
    assert survey is not None
    assert survey.rows == 16
    assert survey.bands == list(dict.fromkeys(bands[0] + bands[1]))
    for band in survey.bands:
        members = 4 * sum(band in names for names in bands)
        assert survey.mags[band, "central"].sum() == survey.mags[band, "companion"].sum() == members
    assert "pairs measured 8 of 8 expected" in report_of(ledger.output.url).text


@pytest.mark.parametrize("flux", [-1.0, np.nan], ids=["negative", "missing"])
def test_a_catalogue_without_a_single_magnitude_has_a_report(tmp_path: Path, flux: float) -> None:
    rows = shard_rows(["h"], np.full(3, flux))
    assert report_of(write_run(str(tmp_path / "out"), {"y0000x0000": rows}).output.url).images()


def test_quarantined_tiles_are_listed(tmp_path: Path) -> None:
    ledger = write_run(str(tmp_path / "out"), {})
    for number in range(3):
        reason = f"field.zarr: chunk {number} <b>broken</b>"
        ledger.quarantine(QuarantineRecord(f"y000{number}x0000", reason, "E", 1, [(1, 2, 3)] * 7))
    found = report_of(ledger.output.url)
    assert "y0002x0000 7 field.zarr: chunk 2 <b>broken</b>" in found.text
    assert "b" not in found.names


def test_a_large_catalogue_is_sampled_by_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deblend_batch.report.survey._SAMPLE", 10)
    tables = {f"y0000x000{n}": shard_rows(["h"], np.arange(101, 141)) for n in range(3)}
    survey = survey_catalog(write_run(str(tmp_path / "out"), tables))
    assert survey is not None
    rows = survey.sampled()
    assert 20 <= len(rows) <= 24
    assert rows["role"].to_pylist() == ["central", "companion"] * (len(rows) // 2)
    assert (survey.rows, survey.mags["h", "central"].sum()) == (240, 120)


@pytest.mark.parametrize(("n", "count"), [(1, 12), (5, 12), (40, 12), (40, 3)])
def test_examples_are_bright_spread_in_separation_and_always_the_same(n: int, count: int) -> None:
    rows = shard_rows(["h"], np.arange(1, n + 1))
    chosen = choose_examples(rows, count)
    again = choose_examples(pq.read_table(io.BytesIO(encode(rows))), count)
    found = [pair["blend_id"] for pair in chosen]
    assert found == [pair["blend_id"] for pair in again]
    assert 1 <= len(found) <= count
    separations = [pair["separation"] for pair in chosen]
    assert separations == sorted(separations)
    # Pair i has flux i + 1, and the brighter half the smaller separations: from its closest to its farthest.
    bright = [i for i in range(n) if i + 1 >= (n + 1) / 2]
    assert set(found) <= set(bright)
    assert (found[0], found[-1]) == (bright[-1], bright[0])


def test_no_examples_where_no_magnitude_is_known() -> None:
    assert choose_examples(shard_rows(["h"], np.full(3, np.nan))) == []
