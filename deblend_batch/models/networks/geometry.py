"""Where pixels lie relative to the sources: canonical orientation, distances, third sources.

All functions work on whole batches with array operations only, so that they cost little on any
device and a row's result never depends on the other rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLIP_Y, FLIP_X, TRANSPOSE = 1, 2, 4


def octant_of(central_yx: Tensor, companion_yx: Tensor) -> Tensor:
    """Find the turn that brings each companion into the first octant, ``0 <= dx <= dy``.

    Parameters
    ----------
    central_yx, companion_yx : Tensor of float32, shape (n, 2)
        Positions in the stamp, px.

    Returns
    -------
    Tensor of int64, shape (n,)
        Sum of ``FLIP_Y``, ``FLIP_X`` and ``TRANSPOSE``, to be applied in this order.
    """
    dy, dx = (companion_yx - central_yx).unbind(dim=1)
    flips: Tensor = FLIP_Y * (dy < 0) + FLIP_X * (dx < 0)
    turn: Tensor = flips + TRANSPOSE * (dx.abs() > dy.abs())
    return turn


def turn_stamps(stamps: Tensor, octant: Tensor) -> Tensor:
    """Turn stamps about their centre pixel ``size // 2``, exactly.

    A stamp of even size has one row and one column without a mirror image; they are set to 0 in
    every stamp, turned or not, so that all eight turns of a stamp give the same canonical one.

    Parameters
    ----------
    stamps : Tensor, shape (n, ..., y, x)
        Square stamps.
    octant : Tensor of int64, shape (n,)
        Result of :func:`octant_of`.

    Returns
    -------
    Tensor, shape (n, ..., y, x)
        The turned stamps, a new tensor.
    """
    odd = _odd_part(stamps)
    turned = torch.zeros_like(stamps)
    for code in range(8):
        rows = (octant == code).nonzero().squeeze(1)
        if len(rows):
            some = odd[rows].flip(_flipped(code))
            _odd_part(turned)[rows] = some.transpose(-2, -1) if code & TRANSPOSE else some
    return turned


def turn_back(stamps: Tensor, octant: Tensor) -> Tensor:
    """Undo :func:`turn_stamps`.

    Parameters
    ----------
    stamps : Tensor, shape (n, ..., y, x)
        Stamps or maps in the canonical frame.
    octant : Tensor of int64, shape (n,)
        The turn that was applied.

    Returns
    -------
    Tensor, shape (n, ..., y, x)
        The same in the original frame; 0 where an even size has no mirror image.
    """
    odd = _odd_part(stamps)
    back = torch.zeros_like(stamps)
    for code in range(8):
        rows = (octant == code).nonzero().squeeze(1)
        if len(rows):
            some = odd[rows]
            some = some.transpose(-2, -1) if code & TRANSPOSE else some
            _odd_part(back)[rows] = some.flip(_flipped(code))
    return back


def turn_positions(yx: Tensor, octant: Tensor, size: int) -> Tensor:
    """Turn positions as :func:`turn_stamps` turns pixels.

    Parameters
    ----------
    yx : Tensor of float32, shape (n, 2) or (n, k, 2)
        Positions in the stamp, px.
    octant : Tensor of int64, shape (n,)
        The turn to apply.
    size : int
        Edge of the stamp, px.

    Returns
    -------
    Tensor of float32, same shape
        Positions in the turned stamp.
    """
    shape = (-1,) + (1,) * (yx.dim() - 2)
    y, x = yx.unbind(dim=-1)
    has_y, has_x, has_t = ((octant & bit).bool().view(shape) for bit in (FLIP_Y, FLIP_X, TRANSPOSE))
    y = torch.where(has_y, 2 * (size // 2) - y, y)
    x = torch.where(has_x, 2 * (size // 2) - x, x)
    return torch.stack([torch.where(has_t, x, y), torch.where(has_t, y, x)], dim=-1)


def squared_distance(yx: Tensor, size: int) -> Tensor:
    """Squared distance of every pixel to a position of each stamp.

    Parameters
    ----------
    yx : Tensor of float32, shape (n, 2)
        Positions, px.
    size : int
        Edge of the stamps, px.

    Returns
    -------
    Tensor of float32, shape (n, y, x)
        Square pixels.
    """
    axis = torch.arange(size, dtype=yx.dtype, device=yx.device)
    along = (axis - yx[..., None]).square()
    return along[:, 0, :, None] + along[:, 1, None, :]


def blank_neighbours(stamps: Tensor, nearest: Tensor, neighbours_yx: Tensor) -> Tensor:
    """Set pixels that are nearer to a third source than to both members to 0.

    Parameters
    ----------
    stamps : Tensor of float32, shape (n, y, x)
        The stamps.
    nearest : Tensor of float32, shape (n, y, x)
        Squared distance to the nearer member, square pixels.
    neighbours_yx : Tensor of float32, shape (n, k, 2)
        Positions of third sources, px; NaN where there is none.

    Returns
    -------
    Tensor of float32, shape (n, y, x)
        Blanked stamps; ``stamps`` itself where there is no third source at all.
    """
    size = stamps.shape[-1]
    for k in range(neighbours_yx.shape[1]):
        at = neighbours_yx[:, k]
        if at.is_cuda:  # choosing rows would make the host wait
            stamps = stamps.masked_fill(squared_distance(at, size) < nearest, 0.0)
            continue
        rows = at.isfinite().all(dim=1).nonzero().squeeze(1)
        if len(rows):
            third = squared_distance(at[rows], size) < nearest[rows]
            stamps = stamps.index_put((rows,), stamps[rows].masked_fill(third, 0.0))
    return stamps


def _odd_part(stamps: Tensor) -> Tensor:
    """View the pixels that have a mirror image about pixel ``size // 2``."""
    return stamps if stamps.shape[-1] % 2 else stamps[..., 1:, 1:]


def _flipped(code: int) -> list[int]:
    return [-2] * bool(code & FLIP_Y) + [-1] * bool(code & FLIP_X)
