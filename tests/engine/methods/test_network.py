"""What networks are given of stamps, and what their answers for single bands say of pairs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.engine.methods.network import NetworkMethod, domain_flags
from deblend_batch.models.card import Domain
from deblend_batch.tiling.stamps import Cut, Stamps
from tests.blends import blends_of_two

ANY_DOMAIN = Domain(psf_fwhm_px=(0, 99), separation_px=(0, 99), snr=(0, 1e9))


def method(*, keep_masks: bool = False) -> NetworkMethod:
    """A method whose network is never asked."""
    network: Any = SimpleNamespace(card=SimpleNamespace(domain=ANY_DOMAIN), default_batch_size=64)
    return NetworkMethod(network, keep_masks=keep_masks)


def field_of(bands: int) -> Any:
    """As much of a field as a network's answers need."""
    return SimpleNamespace(n_bands=bands, psf_fwhm_px=(3.0,) * bands)


def cut_of(n: int, bands: int = 1) -> Cut:
    """Pairs that were cut."""
    yx = np.tile([[20.0, 20.0], [23.0, 22.0]], (n, 1, 1))
    blends = blends_of_two(yx)
    return Cut(
        blends,
        np.full((n, 2), 12),
        (yx - 12).astype(np.float32),
        blends.others_yx,
        np.arange(n * bands, dtype=np.float32).reshape(n, bands) + 1,
        blends.flags,
        np.zeros((n, bands, 2), bool),
    )


def said(first: int, n: int, *, masks: bool) -> dict[str, NDArray[np.float32]]:
    """Fluxes that count the rows; masks of as many pixels as the row's number."""
    flux = np.arange(2 * first, 2 * (first + n), dtype=np.float32).reshape(n, 2)
    maps = np.zeros((n, 3, 4, 4), np.float32)
    for row in range(n):
        maps[row].reshape(3, 16)[:, : (first + row) % 16] = 0.9
    answer = {"flux": flux, "flux_err": np.sqrt(flux)}
    return {**answer, "masks": maps} if masks else answer


def test_bands_become_rows_that_vary_fastest() -> None:
    cut = cut_of(3, 2)
    pixels = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 2, 2)
    rows = method().given(Stamps(cut, pixels, None), field_of(2))
    assert {len(values) for values in rows.values()} == {6}
    np.testing.assert_array_equal(rows["pixels"][3], pixels[1, 1])
    np.testing.assert_array_equal(rows["central_yx"][3], cut.members_yx[1, 0])
    np.testing.assert_array_equal(rows["companion_yx"][3], cut.members_yx[1, 1])
    assert rows["sigma"].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("n_bands", [1, 2, 3])
@pytest.mark.parametrize("cuts", [(0, 6), (0, 1, 6), (0, 2, 3, 6)])
def test_pieces_of_a_request_are_put_end_to_end(n_bands: int, cuts: tuple[int, ...]) -> None:
    pieces = [said(a, b - a, masks=True) for a, b in pairwise(cuts)]
    n = 6 // n_bands
    found = method(keep_masks=True).measured(cut_of(n, n_bands), pieces, field_of(n_bands))
    assert found["flux"].shape == (n, n_bands, 2)
    np.testing.assert_array_equal(found["flux"].ravel(), np.arange(12))
    of_first_band = np.repeat(np.arange(0, 6, n_bands)[:, None], 2, axis=1)
    np.testing.assert_array_equal(found["mask_area"], of_first_band)
    np.testing.assert_array_equal(found["mask_overlap"], of_first_band)
    np.testing.assert_array_equal(
        (found["masks"] == 230).sum(axis=(2, 3))[:, 1:], found["mask_area"]
    )


@pytest.mark.parametrize("masks", [False, True])
def test_masks_are_let_go_unless_they_are_kept(masks: bool) -> None:
    found = method().measured(cut_of(4), [said(0, 4, masks=masks)], field_of(1))
    assert "masks" not in found
    assert np.isnan(found["mask_area"]).all() != masks


def test_a_companion_outside_its_stamp_has_no_flux() -> None:
    cut = cut_of(2)
    bits = np.zeros((2, 2), np.int32)
    bits[1] = flags.COMPANION_OUTSIDE.value
    answer = said(1, 2, masks=False)
    found = method().measured(replace(cut, flags=bits), [answer], field_of(1))
    for name in ("flux", "flux_err"):
        assert np.isnan(found[name][:, 0]).tolist() == [[False, False], [False, True]]
    assert np.isfinite(answer["flux"]).all()


@pytest.mark.parametrize(
    ("separation", "fwhm", "flux", "flagged"),
    [
        (10.0, 3.0, 100.0, False),
        (1.0, 3.0, 100.0, True),
        (50.0, 3.0, 100.0, True),
        (10.0, 9.0, 100.0, True),
        (10.0, 3.0, 5.0, True),
        (10.0, 3.0, 1e6, True),
        (10.0, 3.0, np.nan, False),
    ],
)
def test_what_training_never_saw_is_flagged(
    separation: float, fwhm: float, flux: float, flagged: bool
) -> None:
    values = np.full((1, 1, 2), flux, np.float32)
    domain = Domain(psf_fwhm_px=(2, 5), separation_px=(2, 40), snr=(10, 1000))
    bits = domain_flags(values, np.array([separation]), np.ones((1, 1), "f4"), [fwhm], domain)
    assert (bits == flags.OUT_OF_DOMAIN.value).all() == flagged
