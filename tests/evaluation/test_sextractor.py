from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.methods import sextractor
from deblend_batch.simulate.pairs.batch import PairBatch

installed = pytest.mark.skipif(
    sextractor.find_program() is None, reason="SExtractor is not installed"
)


def _run(pairs: PairBatch) -> np.ndarray:
    return sextractor.run_sextractor(pairs.stamps, pairs.true_yx, pairs.radius_px).flux


@installed
def test_well_separated_gaussians_are_recovered(gaussian_pairs: PairBatch) -> None:
    flux = _run(gaussian_pairs)
    assert np.isfinite(flux).all()
    assert np.median(np.abs(flux / gaussian_pairs.flux - 1)) < 0.1


@installed
def test_stamps_do_not_see_each_other(pairs_of_gaussians: Callable[..., PairBatch]) -> None:
    pairs = pairs_of_gaussians(300)  # more than one mosaic
    order = np.random.default_rng(0).permutation(300)
    moved = PairBatch(**{k: getattr(pairs, k)[order] for k in pairs.__dataclass_fields__})
    # SExtractor deals out shared pixels by lot, hence the tolerance.
    np.testing.assert_allclose(_run(moved), _run(pairs)[order], rtol=0.02)


@installed
@pytest.mark.parametrize("kept", [0, 1])
def test_a_missing_member_is_undetected(gaussian_pairs: PairBatch, kept: int) -> None:
    noise = gaussian_pairs.stamps - gaussian_pairs.truth.sum(axis=1)
    stamps = (noise + gaussian_pairs.truth[:, kept]).astype(np.float32)
    found = sextractor.run_sextractor(stamps, gaussian_pairs.true_yx, gaussian_pairs.radius_px)
    assert np.isfinite(found.flux[:, kept]).all()
    assert np.isnan(found.flux[:, 1 - kept]).all()


@installed
def test_no_objects_at_all(gaussian_pairs: PairBatch) -> None:
    noise = (gaussian_pairs.stamps - gaussian_pairs.truth.sum(axis=1)).astype(np.float32)
    found = sextractor.run_sextractor(noise, gaussian_pairs.true_yx, gaussian_pairs.radius_px)
    assert np.isnan(found.flux).all()
    assert found.n_objects.tolist() == [0] * 40


def test_an_absent_program_is_one_line(
    gaussian_pairs: PairBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EvaluationError, match="not installed; apt install source-extractor"):
        _run(gaussian_pairs)


def test_a_failing_program_is_one_line(
    gaussian_pairs: PairBatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "sex"
    program.write_text("#!/bin/sh\necho first >&2\necho 'cannot allocate' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sextractor, "PROGRAMS", (str(program),))
    with pytest.raises(EvaluationError, match=r"sex: cannot allocate; check the installation$"):
        _run(gaussian_pairs)
