"""Predictions of single-band rows become measurements of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.engine.worker.reduce import Part, domain_flags, measurement, reduce
from deblend_batch.models.card import Domain

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Said:
    """A prediction for some rows."""

    flux: Images
    flux_err: Images
    masks: Images | None


def said(first: int, n: int, *, masks: bool) -> Said:
    """Fluxes that count the rows; masks of as many pixels as the row's number."""
    flux = np.arange(2 * first, 2 * (first + n), dtype=np.float32).reshape(n, 2)
    maps = np.zeros((n, 3, 4, 4), np.float32)
    for row in range(n):
        maps[row].reshape(3, 16)[:, : (first + row) % 16] = 0.9
    return Said(flux, np.sqrt(flux), maps if masks else None)


@pytest.mark.parametrize("n_bands", [1, 2, 3])
@pytest.mark.parametrize("cuts", [(0, 6), (0, 1, 6), (0, 2, 3, 6)])
def test_pieces_of_a_request_are_put_end_to_end(n_bands: int, cuts: tuple[int, ...]) -> None:
    pieces = [said(a, b - a, masks=True) for a, b in pairwise(cuts)]
    part = reduce(pieces, n_bands, keep_masks=True)
    assert part.flux.shape == (6 // n_bands, n_bands, 2)
    np.testing.assert_array_equal(part.flux.ravel(), np.arange(12))
    rows_of_first_band = np.arange(0, 6, n_bands)
    np.testing.assert_array_equal(part.area, np.repeat(rows_of_first_band[:, None], 3, axis=1))
    assert part.masks is not None
    np.testing.assert_array_equal((part.masks == 230).sum(axis=(2, 3)), part.area)


@pytest.mark.parametrize(("masks", "keep"), [(False, False), (True, False)])
def test_masks_are_let_go_unless_they_are_kept(masks: bool, keep: bool) -> None:
    part = reduce([said(0, 4, masks=masks)], 1, keep_masks=keep)
    assert part.masks is None
    assert np.isnan(part.area).all() != masks


def test_a_companion_outside_its_stamp_has_no_flux() -> None:
    part = Part(np.ones((2, 1, 2), "f4"), np.ones((2, 1, 2), "f4"), np.ones((2, 3), "f4"), None)
    bits = np.zeros((2, 2), np.int32)
    bits[1] = flags.COMPANION_OUTSIDE.value
    found = measurement(bits, [part])
    assert np.isnan(found.flux[:, 0]).tolist() == [[False, False], [False, True]]
    assert np.isnan(found.flux_err[:, 0]).tolist() == [[False, False], [False, True]]


def test_areas_are_of_the_members_and_their_overlap() -> None:
    flux = np.ones((1, 1, 2), np.float32)
    found = measurement(
        np.zeros((1, 2), np.int32), [Part(flux, flux, np.array([[3, 20, 10]], "f4"), None)]
    )
    assert found.mask_area.tolist() == [[20, 10]]
    assert found.mask_overlap.tolist() == [[3, 3]]


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
    measured = measurement(
        np.zeros((1, 2), np.int32), [Part(values, values, np.ones((1, 3), "f4"), None)]
    )
    domain = Domain(psf_fwhm_px=(2, 5), separation_px=(2, 40), snr=(10, 1000))
    bits = domain_flags(measured, np.array([separation]), np.ones((1, 1), "f4"), [fwhm], domain)
    assert (bits == flags.OUT_OF_DOMAIN.value).all() == flagged
