from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblend_batch.errors import ModelError
from deblend_batch.models.model import Model
from deblend_batch.models.prediction import Prediction
from tests.models.gaussians import SIZE, GaussianPairs, gaussian_pairs
from tests.models.tiny import tiny_model

ARCHITECTURES = ["blend2flux", "unet", "blend2mask2flux"]
MODELS = {name: tiny_model(name) for name in ARCHITECTURES}
PAIRS = gaussian_pairs(40)


def _predict(model: Model, rows: Any = slice(None), factor: float = 1.0, **more: Any) -> Prediction:
    return model.predict(
        PAIRS.stamps[rows] * np.float32(factor),
        PAIRS.companion_yx[rows],
        PAIRS.central_yx[rows],
        PAIRS.neighbours_yx[rows],
        PAIRS.sigma[rows] * np.float32(factor),
        **more,
    )


def _assert_equal(one: Prediction, other: Prediction) -> None:
    for name in ("flux", "flux_err", "masks"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs), err_msg=name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_predictions_have_the_promised_shapes(name: str) -> None:
    prediction = _predict(MODELS[name])
    assert prediction.flux.shape == prediction.flux_err.shape == (40, 2)
    assert prediction.flux.dtype == prediction.flux_err.dtype == np.float32
    assert np.isfinite(prediction.flux).all()
    if MODELS[name].card.has_masks:
        assert prediction.masks.shape == (40, 3, SIZE, SIZE)
        assert ((prediction.masks >= 0) & (prediction.masks <= 1)).all()
    else:
        assert prediction.masks is None


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(40)), cut=st.integers(0, 40))
def test_a_row_does_not_depend_on_the_others(name: str, order: list[int], cut: int) -> None:
    whole = _predict(MODELS[name], batch_size=16)
    parts = [_predict(MODELS[name], order[:cut], batch_size=16)]
    parts += [_predict(MODELS[name], order[cut:], batch_size=16)]
    np.testing.assert_array_equal(np.concatenate([p.flux for p in parts]), whole.flux[order])
    if whole.masks is not None:
        masks = np.concatenate([p.masks for p in parts])
        np.testing.assert_array_equal(masks, whole.masks[order])


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 64])
def test_on_a_cpu_the_batch_size_changes_no_bit(name: str, batch_size: int) -> None:
    whole, other = (_predict(MODELS[name]), _predict(MODELS[name], batch_size=batch_size))
    np.testing.assert_array_equal(other.flux, whole.flux)
    np.testing.assert_array_equal(other.flux_err, whole.flux_err)


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(deadline=None, max_examples=10)
@given(exponent=st.integers(-60, 60))
def test_powers_of_two_scale_exactly(name: str, exponent: int) -> None:
    factor = 2.0**exponent
    one, scaled = _predict(MODELS[name]), _predict(MODELS[name], factor=factor)
    expected = Prediction(
        one.flux * np.float32(factor), one.flux_err * np.float32(factor), one.masks
    )
    np.testing.assert_allclose(scaled.flux_err, expected.flux_err, rtol=1e-6)
    _assert_equal(Prediction(scaled.flux, expected.flux_err, scaled.masks), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(deadline=None, max_examples=10)
@given(factor=st.floats(1e-15, 1e15))
def test_any_factor_scales_to_rounding(name: str, factor: float) -> None:
    one, scaled = _predict(MODELS[name]), _predict(MODELS[name], factor=factor)
    np.testing.assert_allclose(scaled.flux, one.flux * factor, rtol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("axes", [(-2,), (-1,), (-2, -1)])
def test_mirrored_stamps_have_mirrored_results(name: str, axes: tuple[int, ...]) -> None:
    def mirrored(yx: NDArray[np.float32]) -> NDArray[np.float32]:
        yx = yx.copy()
        for axis in axes:
            yx[..., axis] = 2 * (SIZE // 2) - yx[..., axis]
        return yx

    stamps = PAIRS.stamps.copy()
    stamps[:, 0] = stamps[:, :, 0] = 0  # an even stamp's first lines have no mirror image
    inner = np.flip(stamps[:, 1:, 1:], axes)
    flipped = stamps.copy()
    flipped[:, 1:, 1:] = inner
    one = MODELS[name].predict(stamps, PAIRS.companion_yx, PAIRS.central_yx, PAIRS.neighbours_yx)
    other = MODELS[name].predict(
        flipped,
        mirrored(PAIRS.companion_yx),
        mirrored(PAIRS.central_yx),
        mirrored(PAIRS.neighbours_yx),
    )
    np.testing.assert_allclose(other.flux, one.flux, rtol=1e-4)
    if one.masks is not None:
        back = np.flip(other.masks[..., 1:, 1:], axes)
        np.testing.assert_allclose(back, one.masks[..., 1:, 1:], atol=1e-4)


def _as_torch(pairs: GaussianPairs) -> dict[str, Any]:
    names = ("stamps", "companion_yx", "central_yx", "neighbours_yx", "sigma")
    return {name: torch.from_numpy(getattr(pairs, name)) for name in names}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torch_in_torch_out(name: str) -> None:
    prediction = MODELS[name].predict(**_as_torch(PAIRS))
    assert isinstance(prediction.flux, torch.Tensor)
    _assert_equal(prediction, _predict(MODELS[name]))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4"])
def test_other_dtypes_and_read_only_arrays_are_taken(dtype: str) -> None:
    stamps = PAIRS.stamps.astype(dtype)
    stamps.setflags(write=False)
    model = MODELS["blend2flux"]
    plain = model.predict(stamps.astype(np.float32), PAIRS.companion_yx)
    _assert_equal(model.predict(stamps, PAIRS.companion_yx), plain)


def test_the_central_is_at_the_centre_unless_said() -> None:
    model, middle = MODELS["blend2flux"], np.full((40, 2), SIZE // 2)
    one = model.predict(PAIRS.stamps, PAIRS.companion_yx)
    _assert_equal(model.predict(PAIRS.stamps, PAIRS.companion_yx, middle), one)


def test_no_rows_no_result() -> None:
    prediction = _predict(MODELS["unet"], slice(0))
    assert prediction.flux.shape == (0, 2)
    assert prediction.masks.shape == (0, 3, SIZE, SIZE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_unusable_stamps_have_no_flux(name: str) -> None:
    stamps = PAIRS.stamps.copy()
    stamps[3] = 0
    stamps[5, 1, 1] = np.nan
    stamps[7, 1, 1] = np.inf
    prediction = MODELS[name].predict(stamps, PAIRS.companion_yx, PAIRS.central_yx)
    assert np.flatnonzero(np.isnan(prediction.flux).any(axis=1)).tolist() == [3, 5, 7]
    assert np.isnan(prediction.flux_err[[3, 5, 7]]).all()
    if prediction.masks is not None:
        assert (prediction.masks[[3, 5, 7]] == 0).all()


def test_a_member_outside_its_stamp_has_no_flux() -> None:
    companion = PAIRS.companion_yx.copy()
    companion[2] = (SIZE + 3, 4)
    companion[4] = np.nan
    prediction = MODELS["blend2flux"].predict(PAIRS.stamps, companion, PAIRS.central_yx)
    for values in (prediction.flux, prediction.flux_err):
        assert np.isnan(values[2]).tolist() == [False, True]
        assert np.isnan(values[4]).all()
        assert np.isfinite(np.delete(values, [2, 4], axis=0)).all()


def test_third_sources_are_blanked() -> None:
    model, rows = MODELS["blend2flux"], np.arange(0, 40, 3)  # those that have one
    with_third, without = (
        _predict(model, rows),
        model.predict(PAIRS.stamps[rows], PAIRS.companion_yx[rows], PAIRS.central_yx[rows]),
    )
    assert (with_third.flux.sum(axis=1) < without.flux.sum(axis=1)).mean() > 0.8
    empty = np.empty((len(rows), 0, 2), np.float32)
    columns = (PAIRS.stamps[rows], PAIRS.companion_yx[rows], PAIRS.central_yx[rows], empty)
    _assert_equal(model.predict(*columns), without)


def test_a_model_without_an_error_model_says_so() -> None:
    model = tiny_model(uncertainty=None)
    assert np.isnan(_predict(model).flux_err).all()


def test_errors_are_known_without_noise() -> None:
    prediction = MODELS["blend2flux"].predict(PAIRS.stamps, PAIRS.companion_yx)
    assert (prediction.flux_err > 0).all()


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("stamps", np.zeros((40, 32, 31)), r"stamps have shape \(40, 32, 31\); this model takes"),
        ("stamps", np.zeros((32, 32)), r"stamps have shape \(32, 32\)"),
        ("companion_yx", np.zeros((39, 2)), r"companion_yx has shape \(39, 2\)"),
        ("central_yx", np.zeros((40, 3)), r"central_yx has shape \(40, 3\); it must be \(40, 2\)"),
        ("neighbours_yx", np.zeros((40, 2)), r"neighbours_yx has shape \(40, 2\); .*\(40, k, 2\)"),
        ("sigma", np.zeros((40, 1)), r"sigma has shape \(40, 1\); it must be \(40,\)"),
        ("stamps", np.zeros((40, 32, 32), complex), "stamps has dtype complex128"),
        ("stamps", [[1.0, 2.0]], "stamps is of type list; give a NumPy array or a torch tensor"),
        ("stamps", None, "stamps is of type NoneType; give a NumPy array"),
        ("companion_yx", [(1, 2)], "companion_yx is of type list"),
        ("central_yx", (16, 16), "central_yx is of type tuple"),
        ("neighbours_yx", [], "neighbours_yx is of type list"),
        ("sigma", 0.1, "sigma is of type float"),
        ("batch_size", 0, "batch_size is 0; it must be at least 1"),
        ("sigma", np.full(40, "x"), "sigma has dtype <U1; it must be a real number type"),
    ],
)
def test_wrong_arguments_are_refused(argument: str, value: Any, message: str) -> None:
    names = ("stamps", "companion_yx", "central_yx", "neighbours_yx", "sigma")
    arguments = {name: getattr(PAIRS, name) for name in names}
    with pytest.raises(ModelError, match=message):
        MODELS["blend2flux"].predict(**{**arguments, argument: value})


def test_prediction_is_a_plain_record() -> None:
    assert astuple(Prediction(1, 2, None)) == (1, 2, None)
