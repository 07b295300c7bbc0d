from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.models.networks import heads
from deblend_batch.models.networks.interface import NetworkInput
from deblend_batch.models.networks.preprocess import PreprocessConfig, prepare
from tests.models.gaussians import SIZE, gaussian_pairs

PAIRS = gaussian_pairs(9)
FIELDS = ["image", "linear", "scale", "split_logit", "octant", "usable"]


def _prepare(factor: float = 1.0, **config: object) -> NetworkInput:
    columns = [PAIRS.stamps * np.float32(factor), PAIRS.central_yx, PAIRS.companion_yx]
    stamps, central, companion = map(torch.from_numpy, columns)
    neighbours = torch.from_numpy(PAIRS.neighbours_yx)
    return prepare(stamps, central, companion, neighbours, PreprocessConfig(**config))  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.integers(-90, 90))
def test_a_power_of_two_changes_only_the_unit(exponent: int) -> None:
    before, after = _prepare(), _prepare(2.0**exponent)
    for name in FIELDS:
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert torch.equal(after.unit, before.unit * 2.0**exponent)


@settings(deadline=None)
@given(st.floats(1e-20, 1e20))
def test_any_factor_leaves_the_image_alone_to_rounding(factor: float) -> None:
    before, after = _prepare(), _prepare(factor)
    torch.testing.assert_close(after.image, before.image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        after.scale.double() * after.unit.double(),
        before.scale.double() * before.unit.double() * factor,
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize(("encoding", "channels"), [("plain", 1), ("signed", 1), ("heatmaps", 3)])
def test_encodings(encoding: str, channels: int) -> None:
    inputs = _prepare(encoding=encoding)
    assert inputs.image.shape == (9, channels, SIZE, SIZE)
    assert PreprocessConfig(encoding=encoding).channels == channels  # type: ignore[arg-type]


def test_the_sign_tells_the_members_apart() -> None:
    plain, signed = _prepare(encoding="plain").image, _prepare(encoding="signed").image
    assert torch.equal(plain.abs(), signed.abs())
    centre = SIZE // 2
    assert (signed[:, 0, centre, centre] * plain[:, 0, centre, centre] > 0).all()
    assert ((signed * plain) < 0).any(dim=(1, 2, 3)).all()


def test_heat_maps_peak_at_the_members() -> None:
    spots = _prepare(encoding="heatmaps", orient=False).image[:, 1:]
    for row in range(9):
        for channel, yx in enumerate((PAIRS.central_yx[row], PAIRS.companion_yx[row])):
            peak = np.unravel_index(int(spots[row, channel].argmax()), (SIZE, SIZE))
            assert np.abs(np.array(peak) - yx).max() <= 0.5


def test_the_split_follows_the_fluxes() -> None:
    share = torch.sigmoid(_prepare(aperture_px=4.0).split_logit).numpy()
    true_share = PAIRS.flux[:, 0] / PAIRS.flux.sum(axis=1)
    assert np.corrcoef(share, true_share)[0, 1] > 0.9


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_bad_pixels_are_unusable_and_harmless(bad: float) -> None:
    stamps = torch.from_numpy(PAIRS.stamps).clone()
    stamps[4, 3, 3] = bad
    stamps[5] = 0
    central = torch.from_numpy(PAIRS.central_yx).clone()
    central[6, 0] = bad
    companion = torch.from_numpy(PAIRS.companion_yx)
    inputs = prepare(stamps, central, companion, None, PreprocessConfig())
    assert inputs.usable.tolist() == [True] * 4 + [False] * 3 + [True] * 2
    assert all(getattr(inputs, name).isfinite().all() for name in [*FIELDS, "unit"])


@pytest.mark.parametrize("brightest", [1e-44, 1e-38, 1.0, 3e38])
def test_extreme_units_stay_finite(brightest: float) -> None:
    stamps = torch.from_numpy(PAIRS.stamps / np.abs(PAIRS.stamps).max())
    central, companion = map(torch.from_numpy, (PAIRS.central_yx, PAIRS.companion_yx))
    inputs = prepare(stamps * brightest, central, companion, None, PreprocessConfig())
    assert inputs.image.isfinite().all()
    assert (inputs.unit > 0).all()
    assert inputs.unit.isfinite().all()


def test_pixels_on_the_divide_are_the_centrals() -> None:
    stamps = torch.ones(1, SIZE, SIZE)
    central = torch.tensor([[16.0, 16.0]])
    inputs = prepare(
        stamps, central, central + torch.tensor([[4.0, 0.0]]), None, PreprocessConfig()
    )
    assert (inputs.image[0, 0, 18, 1:] > 0).all()


@pytest.mark.parametrize("head", ["seed", "fraction"])
def test_heads_scale_with_the_stamp(head: heads.Head) -> None:
    raw = torch.randn(9, 2)
    inputs = _prepare()
    double = inputs._replace(scale=2 * inputs.scale)
    assert torch.equal(heads.fluxes(raw, double, head), 2 * heads.fluxes(raw, inputs, head))


def test_the_fraction_head_is_total_and_share() -> None:
    raw = torch.tensor([[0.3, -0.7]])
    inputs = _prepare()
    inputs = NetworkInput(*(field[:1] for field in inputs))
    flux = heads.fluxes(raw, inputs, "fraction")[0]
    torch.testing.assert_close(flux.sum(), inputs.scale[0] * float(np.exp(0.3)))
    torch.testing.assert_close(torch.log(flux[0] / flux[1]), inputs.split_logit[0] - 0.7)


def test_the_fraction_head_survives_a_lost_network() -> None:
    raw = torch.tensor([[1e30, 0.0]]).expand(9, 2)
    assert heads.fluxes(raw, _prepare(), "fraction").isfinite().all()
