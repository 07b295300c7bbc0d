from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.pairs.batch import Encoding, PairBatch, encode_masks
from deblend_batch.simulate.pairs.blending import PairSampler
from deblend_batch.simulate.pairs.rules import PairRules

CENTRAL, COMPANION = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 0]], bool)


@pytest.fixture(scope="module")
def batch(pool: GalaxyPool) -> PairBatch:
    return PairSampler(pool, "train", 4, PairRules(stamp_size=64)).draw(40)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("gg", [[1, 1, 0, 0], [0, 1, 1, 0]]),
        ("ogg", [[0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]]),
        ("bogg", [[0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]),
    ],
)
def test_encodings(encoding: Encoding, expected: list[list[int]]) -> None:
    masks = encode_masks(np.stack([CENTRAL, COMPANION])[None], encoding)
    np.testing.assert_array_equal(masks[0, :, 0], np.array(expected, bool))


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="mask encoding 'rle' is unknown; use 'gg', 'ogg' or 'bogg'"
    ):
        encode_masks(np.zeros((1, 2, 1, 1), bool), "rle")  # type: ignore[arg-type]


def test_bogg_is_exclusive_and_complete(batch: PairBatch) -> None:
    np.testing.assert_array_equal(batch.masks(encoding="bogg").sum(axis=1), 1)


def test_masks_are_one_piece_around_the_peak(batch: PairBatch) -> None:
    loose, masks = batch.masks(encoding="gg", connected=False), batch.masks(encoding="gg")
    assert not (masks & ~loose).any()
    peak = batch.truth.reshape(40, 2, -1).argmax(axis=2)
    found = masks.reshape(40, 2, -1)
    assert np.take_along_axis(found, peak[:, :, None], axis=2).all()


def test_separate_islands_are_left_out(batch: PairBatch) -> None:
    truth = np.zeros_like(batch.truth)
    truth[:, :, 10:15, 10:15] = 2.0
    truth[:, :, 40:42, 40:42] = 1.0
    one = replace(batch, truth=truth, sigma=np.full(40, 0.1, np.float32))
    assert one.masks(encoding="gg").sum(axis=(2, 3)).max() == 25
    assert one.masks(encoding="gg", connected=False).sum(axis=(2, 3)).min() == 29


def test_a_member_below_the_threshold_has_no_mask(batch: PairBatch) -> None:
    faint = replace(batch, sigma=np.full(40, 1e6, np.float32))
    assert not faint.masks().any()


@pytest.mark.parametrize(("threshold", "larger"), [(1.0, True), (3.0, False)])
def test_lower_thresholds_give_larger_masks(
    batch: PairBatch, threshold: float, larger: bool
) -> None:
    change = int(batch.masks(threshold).sum()) - int(batch.masks().sum())
    assert (change > 0) == larger


def test_cramer_rao_is_reached_by_least_squares(batch: PairBatch) -> None:
    """Fit the two known profiles to many noisy copies of one pair."""
    rng = np.random.default_rng(5)
    profile = (batch.truth[0] / batch.flux[0, :, None, None]).reshape(2, -1).astype(np.float64)
    copies = batch.truth[0].sum(axis=0).reshape(-1) + batch.sigma[0] * rng.standard_normal(
        (4000, 64 * 64)
    )
    fitted = np.linalg.lstsq(profile.T, copies.T, rcond=None)[0]
    np.testing.assert_allclose(fitted.std(axis=1), batch.cramer_rao()[0], rtol=0.05)
    np.testing.assert_allclose(fitted.mean(axis=1), batch.flux[0], rtol=0.01)


def test_cramer_rao_scales_with_the_noise(batch: PairBatch) -> None:
    louder = replace(batch, sigma=3 * batch.sigma)
    np.testing.assert_allclose(louder.cramer_rao(), 3 * batch.cramer_rao(), rtol=1e-4)


def test_two_identical_profiles_cannot_be_told_apart(batch: PairBatch) -> None:
    same = replace(batch, truth=batch.truth[:, [0, 0]], flux=batch.flux[:, [0, 0]])
    assert (same.cramer_rao() > 1e3 * batch.cramer_rao()).all()


def test_separation_is_between_true_positions(batch: PairBatch) -> None:
    expected = np.linalg.norm(batch.true_yx[:, 1] - batch.true_yx[:, 0], axis=1)
    np.testing.assert_allclose(batch.separation_px, expected, rtol=1e-5)
