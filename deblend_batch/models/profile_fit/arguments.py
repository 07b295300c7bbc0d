"""What callers give to a fit, checked: their mistakes end in one line, data conditions in the result."""

from __future__ import annotations

import torch
from torch import Tensor

from deblend_batch.errors import ModelError
from deblend_batch.models.profile_fit.light.psf import PsfStack

MOST_MEMBERS = 64


def check_stamps(pixels: Tensor, weights: Tensor) -> tuple[int, int]:
    """Return the number of blends and of bands."""
    for name, value in (("pixels", pixels), ("weights", weights)):
        if value.dim() != 4 or not value.is_floating_point():
            raise ModelError(
                f"{name}: {_seen(value)}; give floating-point numbers of shape (blend, band, y, x)"
            )
    if pixels.shape != weights.shape:
        raise ModelError(f"weights: {_seen(weights)}; the pixels have shape {tuple(pixels.shape)}")
    if min(pixels.shape[1:]) < 1:
        raise ModelError(f"pixels: {_seen(pixels)}; a stamp has at least one band and one pixel")
    if bool((weights < 0).any()):
        raise ModelError("weights: negative numbers; a pixel that is not there has weight 0")
    return pixels.shape[0], pixels.shape[1]


def check_members(positions: Tensor, n_members: Tensor, position_err: Tensor, blends: int) -> None:
    """Check positions, their errors and the numbers of members."""
    if positions.dim() != 3 or positions.shape[0] != blends or positions.shape[2] != 2:
        raise ModelError(
            f"positions: {_seen(positions)}; give (blend, member, 2) for {blends} blends"
        )
    members = positions.shape[1]
    if members > MOST_MEMBERS:
        raise ModelError(
            f"positions: {members} members; a fit takes {MOST_MEMBERS} at most, divide the group"
        )
    if n_members.shape != (blends,) or n_members.is_floating_point():
        raise ModelError(f"n_members: {_seen(n_members)}; give one whole number for each blend")
    if blends and not 1 <= int(n_members.min()) <= int(n_members.max()) <= members:
        raise ModelError(f"n_members: numbers outside 1 to {members}, the members of positions")
    if position_err.shape != (blends, members):
        raise ModelError(
            f"position_err: {_seen(position_err)}; give (blend, member) as the positions are"
        )
    used = torch.arange(members, device=n_members.device) < n_members[:, None]
    if not bool(positions[used].isfinite().all()):
        raise ModelError("positions: NaN or infinite among the members that n_members counts")
    errors = position_err[used]
    if not bool(((errors > 0) & errors.isfinite()).all()):
        raise ModelError("position_err: an error of a position is a positive number, px")


def check_measured(n_measured: Tensor, n_members: Tensor) -> None:
    """Check how many members of each blend are measured."""
    if n_measured.shape != n_members.shape or n_measured.is_floating_point():
        raise ModelError(f"n_measured: {_seen(n_measured)}; give one whole number for each blend")
    if bool(((n_measured < 1) | (n_measured > n_members)).any()):
        raise ModelError("n_measured: numbers outside 1 to n_members")


def check_psf(psf: PsfStack, blends: int, bands: int) -> None:
    """Check that every blend has a PSF in every band, of unit sum and of a width."""
    if psf.weight.dim() != 3 or psf.weight.shape[:2] != (blends, bands):
        raise ModelError(
            f"psf: weights of shape {tuple(psf.weight.shape)}; give (blend, band, component) for "
            f"{blends} blends of {bands} bands"
        )
    if psf.covariance.shape != (*psf.weight.shape, 3):
        raise ModelError(
            f"psf: covariances of shape {tuple(psf.covariance.shape)}; give "
            f"{(*psf.weight.shape, 3)}, as the weights are"
        )
    xx, xy, yy = psf.covariance.unbind(3)
    good = (xx > 0) & (xx * yy > xy.square()) & psf.weight.isfinite()
    if not bool(good.all()):
        raise ModelError("psf: a covariance is not positive or a number is not finite")
    if psf.error.shape != psf.weight.shape[:2] or not bool((psf.error >= 0).all()):
        raise ModelError("psf: give an error of 0 or more for each blend and band")
    if not bool(((psf.weight.sum(dim=2) - 1.0).abs() < 1e-3).all()):
        raise ModelError("psf: the weights of a mixture do not sum to one")


def check_numbers(name: str, value: Tensor, *, positive: bool) -> None:
    """Check that numbers are finite, and positive if they have to be."""
    good = value.isfinite() & ((value > 0) | (not positive))
    if not bool(good.all()):
        kind = "positive numbers" if positive else "finite numbers"
        raise ModelError(f"{name}: give {kind}")


def _seen(value: Tensor) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}"
