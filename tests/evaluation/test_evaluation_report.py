from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deblend_batch.evaluation.evaluate import evaluate_catalog, evaluate_pairs
from deblend_batch.evaluation.evaluation import Evaluation
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.methods.method import Estimate, Method, baseline_methods
from deblend_batch.evaluation.report.example_figure import (
    draw_example,
    example_caption,
    residual_sigma,
)
from deblend_batch.evaluation.report.page import render_report, write_report
from deblend_batch.evaluation.scores import score
from deblend_batch.simulate.pairs.batch import PairBatch


def _with_masks(batch: PairBatch) -> Estimate:
    return Estimate(1.1 * batch.flux.astype(float), batch, None, batch.masks().astype(np.float32))


@pytest.fixture(scope="module")
def evaluation(gaussian_pairs: PairBatch) -> Evaluation:
    methods = [Method("ours", _with_masks), *baseline_methods(["sep-seed", "profiles"])]
    return evaluate_pairs([gaussian_pairs], methods, "Gaussians")


@pytest.fixture(scope="module")
def page(evaluation: Evaluation) -> str:
    return render_report(evaluation)


@pytest.mark.parametrize(
    "title",
    [
        "Summary",
        "Recovered against true magnitude",
        "Errors against the difference of magnitudes",
        "Errors by kind of member",
        "Masks",
        "Example pairs, ours",
        "Intervals",
        "Methods and data",
        "Definitions",
    ],
)
def test_every_section_is_there(page: str, title: str) -> None:
    assert f"<h2>{title}</h2>" in page


def test_figures_are_inside_and_limits_only_in_tables(page: str) -> None:
    # 2 x 2 scatter, 2 + 4 curves, 5 groups and the bound, 2 histograms, 4 examples
    assert page.count('src="data:image/png;base64,') == 4 + 6 + 6 + 2 + 4
    assert "true profiles (limit)" in page
    assert "true profiles (limit): recovered against" not in page


def test_a_page_says_what_undetected_means_and_how_the_intervals_are_made(page: str) -> None:
    for words in (
        "Undetected is a member to which",
        "whole galaxies are drawn",
        "/ Cramér–Rao",
        "asinh scale",
    ):
        assert words in page


def test_a_figure_of_the_page_is_the_same_again(evaluation: Evaluation, page: str) -> None:
    again = base64.b64encode(draw_example(evaluation.examples[0])).decode()
    assert f"data:image/png;base64,{again}" in page


def test_a_residual_is_what_a_wrong_flux_leaves(evaluation: Evaluation) -> None:
    example = evaluation.examples[0]
    noise = (example.stamp - example.truth.sum(axis=0)) / example.sigma
    expected = noise - 0.1 * example.truth.sum(axis=0) / example.sigma
    np.testing.assert_allclose(residual_sigma(example), expected, atol=1e-3)
    assert "(+10.0 %)" in example_caption(example)


def _evaluation(members: Members, flux: np.ndarray) -> Evaluation:
    recovered = Recovered("ours", flux)
    return Evaluation("catalog", "T", "s", members, (recovered,), (score(members, recovered, 0),))


def _members(n: int, *, known: bool = True) -> Members:
    unknown = np.full(n, np.nan)
    return Members(
        flux=np.full(n, 10.0),
        mag=np.full(n, 22.0),
        is_central=np.ones(n, bool),
        mag_difference=np.full(n, 0.5) if known else unknown,
        separation=np.full(n, 1.0) if known else unknown,
        separation_radii=unknown,
        kind=np.full(n, ""),
        galaxy_id=np.arange(n),
        separation_unit="arcsec",
    )


@pytest.mark.parametrize(
    ("members", "undetected"),
    [(_members(6), True), (_members(6, known=False), False)],
    ids=["all undetected", "nothing known"],
)
def test_poor_data_still_makes_a_page(members: Members, undetected: bool) -> None:
    flux = np.full(len(members.flux), np.nan) if undetected else members.flux
    assert "<h2>Summary</h2>" in render_report(_evaluation(members, flux))


def test_one_member_has_a_page_that_is_written_whole_and_the_same_again(tmp_path: Path) -> None:
    members = _members(1)
    found = _evaluation(members, members.flux)
    write_report(found, str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Summary</h2>" in page
    assert page == render_report(found)


def test_a_catalogue_has_a_page(
    tmp_path: Path, pairs_of_gaussians: Callable[..., PairBatch]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 40
    ids = np.arange(2 * n)
    mag = np.linspace(20, 23, 2 * n)
    truth = {"id": ids, "mag": mag, "type": ["sph", "irr"] * n}
    pq.write_table(pa.table(truth), tmp_path / "truth.parquet")
    flux = (10 ** (0.4 * (31.4 - mag))).astype(np.float32)
    rows = {
        "source_id": ids,
        "neighbour_id": ids.reshape(-1, 2)[:, ::-1].ravel(),
        "role": ["central", "companion"] * n,
        "is_primary": np.ones(2 * n, bool),
        "ra": np.zeros(2 * n),
        "dec": np.zeros(2 * n),
        "separation": np.linspace(0.3, 2, 2 * n).astype(np.float32),
        "flux_h": 1.02 * flux,
        "flux_err_h": 0.05 * flux,
    }
    pq.write_table(pa.table(rows), tmp_path / "catalog.parquet")
    found = evaluate_catalog(str(tmp_path / "catalog.parquet"), str(tmp_path / "truth.parquet"))
    assert found.scores[0].members["pooled"].flux_mape == pytest.approx(0.02, rel=1e-3)
    assert found.scores[0].members["pooled"].coverage == 1
    assert "Catalogue against truth, h" in render_report(found)
