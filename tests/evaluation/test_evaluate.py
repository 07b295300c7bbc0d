from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deblend_batch
from deblend_batch.cli.main import main
from deblend_batch.errors import ConfigError
from deblend_batch.evaluation.evaluate import evaluate, evaluate_pairs
from deblend_batch.evaluation.methods.method import Estimate, Method, baseline_methods, crop
from deblend_batch.simulate.pairs.batch import PairBatch

HEADER = (
    "id,distance,g1_id,g1_mag,g1_rad,g1_type,g2_id,g2_mag,g2_rad,g2_type,g1_flux,g2_flux,"
    "g1_flux_b2f,g2_flux_b2f,g1_flux_sex,g2_flux_sex,g1_flux_b2m2f,g2_flux_b2m2f,detection"
)
ROWS = (
    "2,14.8,1,22.0,6.3,irr,5,22.1,7.3,disk,38.0,36.6,34.5,39.8,33.9,,36.8,34.6,0",
    "3,9.8,2,19.5,9.7,irr,6,18.3,5.6,sphd,368.4,1131.7,390.7,1573.3,1822.2,7.7,496.6,1224.6,2",
    "4,12.8,3,20.5,4.7,sph,7,21.3,5.0,disk,152.1,72.8,150.7,73.3,,57.7,151.6,77.6,1",
)


@pytest.fixture
def paper_table(tmp_path: Path) -> str:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER, *ROWS]) + "\n")
    return str(path)


def test_the_paper_as_json_and_text(paper_table: str) -> None:
    found = evaluate(paper_table=paper_table)
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["mode"] == "paper"
    assert values["n_pairs"] == 3
    assert [(row["method"], row["member"]) for row in values["table"]] == [
        (method, member)
        for member in ("central", "companion")
        for method in ("blend2flux", "blend2mask2flux", "SExtractor")
    ]
    assert set(values["pooled"]) == {"blend2flux", "blend2mask2flux", "mean", "SExtractor"}
    assert values["pooled"]["SExtractor"]["n_undetected"] == 2
    assert "All 3 pairs, both members" in found.to_text()


def test_keys_that_scripts_read_are_there(paper_table: str) -> None:
    values = evaluate(paper_table=paper_table).to_dict()
    assert set(values) == {
        *("mode", "source", "n_members", "notes", "data", "methods", "scores"),
        *("n_pairs", "table", "pooled"),
        *("closest", "sum_flux_mape", "member_correlation", "network_correlation"),
        *("brighter_flux_mape", "fainter_flux_mape", "irregular_flux_mape"),
    }
    assert set(values["table"][0]) == {
        *("method", "member", "n", "n_undetected", "undetected_fraction", "n_not_positive"),
        *("bias", "bias_median", "sigma", "nmad", "outlier_fraction", "mag_mape", "flux_mape"),
        *("flux_mape_all", "failure_fraction", "scatter_over_bound", "coverage", "intervals"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give exactly one of a paper table"),
        ({"paper_table": "a", "pairs": "b"}, "give exactly one of a paper table"),
        ({"catalog": "a"}, "belong together; give both"),
        ({"pairs": "a", "truth": "b"}, "belong together; give both"),
        ({"paper_table": "a", "models": ["m"]}, "models and baselines run on a data set of pairs"),
        ({"paper_table": "a", "baselines": ["split"]}, "models and baselines run on a data set"),
        ({"paper_table": "a", "band": "h"}, "a band and a matching distance belong to a catalogue"),
        ({"pairs": "a", "match_arcsec": 1.0}, "a band and a matching distance belong to a cat"),
        ({"catalog": "a", "truth": "b", "match_arcsec": 0.0}, "must be positive"),
        ({"pairs": "a", "device": "cuda"}, "device 'cuda' is for models; name one"),
    ],
)
def test_sources_and_options_must_agree(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(**arguments)


def test_methods_side_by_side(gaussian_pairs: PairBatch) -> None:
    methods = baseline_methods(["split", "sep-fair", "profiles"])
    found = evaluate_pairs([gaussian_pairs], methods, "Gaussians")
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [each["method"] for each in values["scores"]] == [m.name for m in methods]
    assert found.limits == ("true profiles (limit)",)
    assert values["scores"][2]["pooled"]["scatter_over_bound"] == pytest.approx(1, abs=0.35)
    assert "true profiles (limit): told the true images" in found.to_text()
    assert set(values["methods"]) == {m.name for m in methods}
    assert "Flux MAPE of the detected, by true magnitude (AB)." in found.to_text()


def test_what_a_method_cannot_see_is_said(
    pairs_of_gaussians: Callable[..., PairBatch],
) -> None:
    pairs = pairs_of_gaussians(20, separation_px=20.0)

    def middle(batch: PairBatch) -> Estimate:
        seen = crop(batch, 32, "small")
        flux = batch.flux.astype(float)
        flux[((seen.companion_yx < -0.5) | (seen.companion_yx > 31.5)).any(axis=1), 1] = np.nan
        return Estimate(flux, seen)

    methods = [Method("small", middle), *baseline_methods(["split"])]
    found = evaluate_pairs([pairs, pairs], methods, "Gaussians")
    n = found.scores[0].members["pooled"].n_undetected
    assert n > 0
    (note,) = (note for note in found.notes if note.startswith("Seeing only"))
    assert note.startswith(f"Seeing only the central 32 of 64 px: small. {n} of the 80 members")


def test_a_data_set_is_described(tmp_path: Path, tiny_model: str) -> None:
    url = str(tmp_path / "pairs.zarr")
    arguments = ["--number", "8", "--galaxies", "40", "--seed", "3", "--stamp-size", "64"]
    arguments += ["--processes", "1"]
    assert main(["simulate", "pairs", url, *arguments]) == 0
    found = evaluate(pairs=url, models=[tiny_model], baselines=["split"])
    assert found.data["preset"] == "candels-h"
    assert found.data["seed"] == "3"
    assert "noise_factor 1.0 to 1.0" in found.data["rules"]
    assert "weights sha256" in next(iter(found.methods.values()))


def test_no_methods_is_one_line(gaussian_pairs: PairBatch) -> None:
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate_pairs([gaussian_pairs], [], "Gaussians")


def test_the_package_exports_the_function(paper_table: str) -> None:
    for _ in range(2):
        assert deblend_batch.evaluate(paper_table=paper_table).mode == "paper"
