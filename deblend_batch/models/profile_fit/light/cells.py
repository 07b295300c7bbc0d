"""Cells in which a stamp is looked at: pixels near the members, ever larger squares of them further out.

Light of galaxies and the wings of PSFs change over lengths that grow with the distance from their middle.
Squares that grow as slowly lose next to nothing of what pixels tell (errors are larger by less than a per
cent), and are a seventh as many. All blends of a batch have as many cells of each size, those nearest to
their members: shapes are fixed, places are not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-30
_MOST_BENT = 1.0  # of a logarithm near a zero of the value
_MOST_RISE = 20.0  # of a logarithm over a cell: more is of values that are nothing
_VECTOR = 16  # BLAS rounds by a row's place in memory: rows of whole vectors begin alike


class Span(NamedTuple):
    """Cells of one size.

    Parameters
    ----------
    step : int
        Side, px.
    start, stop : int
        Where they stand among all cells.
    widening : float
        Variance that a cell adds to that of its pixels, along each axis, square pixels: 0 for values at
        their middles.
    """

    step: int
    start: int
    stop: int
    widening: float

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.stop - self.start


class Cells(NamedTuple):
    """Where the cells of each blend are; first axis the blend.

    Parameters
    ----------
    place : Tensor of int64, shape (blend, cell)
        Places in :meth:`Layout.pyramid`.
    basis : Tensor of float32, shape (blend, 6, cell)
        1, x, y, x^2, xy, y^2 of the cells' middles, px from the stamp's middle.
    corner : Tensor of int64, shape (blend, cell, 2)
        First pixel x, y; negative where a cell is none.
    """

    place: Tensor
    basis: Tensor
    corner: Tensor


class Memory:
    """Memory that is used again and again: fresh pages cost more than the arithmetic on them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a contiguous float32 view of some shape; its content is left from before."""
        length = 1
        for side in shape:
            length *= side
        held = self._held.get(name)
        if held is None or held.numel() < length:
            held = torch.empty(length, device=self.device)
            self._held[name] = held
        return held[:length].view(shape)


class Layout:
    """How many cells of each size a stamp has.

    Parameters
    ----------
    height, width : int
        Stamp, px.
    divided : tuple of int
        Cells of each size that are divided into four, the largest first; at most all of them.
    largest : int
        Side of the largest cells, px: a power of two.
    device : torch.device
        Where.
    averaged : bool
        Whether values are means over cells, or those at their middles.
    """

    def __init__(
        self,
        height: int,
        width: int,
        divided: tuple[int, ...],
        largest: int,
        device: torch.device,
        averaged: bool = True,
    ) -> None:
        self.device = device
        self.largest = largest
        self.averaged = averaged
        self._stamp = (height, width)
        self._shape = (-(-height // largest), -(-width // largest))
        self._divided = []
        self.spans: tuple[Span, ...] = ()
        count, step, start = self._shape[0] * self._shape[1], largest, 0
        for wanted in (*divided, 0):
            split = min(wanted, count)
            self._divided.append(split)
            filled = -(-(count - split) // _VECTOR) * _VECTOR
            if filled:
                widening = (step**2 - 1) / 12.0 if averaged else 0.0
                self.spans += (Span(step, start, start + filled, widening),)
            count, step, start = 4 * split, step // 2, start + filled
            if not split:
                break
        self.cells = start

    def pyramid(self, plane: Tensor) -> Tensor:
        """Sum a (..., y, x) plane over cells of every size: (..., place); the last place holds nothing."""
        height, width = self._stamp
        step = self.largest
        rows, columns = self._shape
        summed = functional.pad(plane, (0, columns * step - width, 0, rows * step - height))
        levels = [summed.flatten(-2)]
        while step > 1:
            left = summed[..., ::2, ::2] + summed[..., ::2, 1::2]
            summed = left + (summed[..., 1::2, ::2] + summed[..., 1::2, 1::2])
            levels.append(summed.flatten(-2))
            step //= 2
        return functional.pad(torch.cat(levels[::-1], dim=-1), (0, 1))

    def lay(self, xy: Tensor) -> Cells:
        """Lay the cells of blends whose members are at (blend, member, 2), px from the stamp's middle."""
        rows, columns = self._shape
        cell = torch.arange(rows * columns, device=self.device).expand(len(xy), -1)
        y, x = torch.div(cell, columns, rounding_mode="floor"), cell % columns
        step, offset = self.largest, 0
        index, places, corners = [], [], []
        for split in self._divided:
            middle = self._middle(torch.stack([x, y], dim=2), step)
            order = _nearest(middle, xy)
            kept = order[:, split:]
            index.append(_filled(offset + (y * columns + x).gather(1, kept), self._nothing))
            both = kept[..., None].expand(-1, -1, 2)
            places.append(_filled(middle.gather(1, both), 0))
            corner = step * torch.stack([x, y], dim=2).gather(1, both)
            corners.append(_filled(corner, -step))
            y, x = (2 * each.gather(1, order[:, :split]) for each in (y, x))
            y, x = torch.cat([y, y, y + 1, y + 1], dim=1), torch.cat([x, x + 1, x, x + 1], dim=1)
            offset += rows * columns
            rows, columns, step = 2 * rows, 2 * columns, step // 2
        x, y = torch.cat(places, dim=1).unbind(2)
        basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=1)
        return Cells(torch.cat(index, dim=1), basis.float(), torch.cat(corners, dim=1))

    @property
    def image_size(self) -> int:
        """Length of an image that :meth:`spread` makes: all pixels, and some that are none."""
        height, width = self._stamp
        return -(-(height * width + 1) // _VECTOR) * _VECTOR

    def spread(self, planes: Tensor, cells: Cells, out: Tensor) -> None:
        """Make images of the values of cells and their derivatives up to the second.

        Parameters
        ----------
        planes : Tensor of float32, shape (blend, member, 6 or more, cell)
            As :func:`~deblend_batch.models.profile_fit.light.planes.draw_planes` draws them.
        cells : Cells
            Their places.
        out : Tensor of float32, shape (blend, member, image_size)
            Takes the images, rows of pixels one after the other.
        """
        blends, members = planes.shape[:2]
        height, width = self._stamp
        for span in self.spans:
            some = slice(span.start, span.stop)
            side = torch.arange(span.step, device=self.device) - (span.step - 1) / 2.0
            y, x = side.repeat_interleave(span.step), side.repeat(span.step)
            part = planes[..., some].flatten(0, 1)
            values = part[:, 0, :, None]
            if span.step > 1:
                terms = torch.stack([x, y, x * x, x * y, y * y])
                terms = terms.expand(len(part), -1, -1)
                values = _within(part, values, terms)
            side = torch.arange(span.step, device=self.device)
            inner = torch.stack([side.repeat(span.step), side.repeat_interleave(span.step)], dim=1)
            x, y = (cells.corner[:, some, None] + inner).flatten(1, 2).unbind(2)
            inside = (x < width) & (y < height) & (x >= 0)
            index = torch.where(inside, y * width + x, height * width)
            index = index[:, None].expand(-1, members, -1)
            out.scatter_(2, index, values.reshape(blends, members, -1))

    @property
    def _nothing(self) -> int:
        rows, columns = self._shape
        count, step, place = rows * columns, self.largest, 0
        while step >= 1:
            place, count, step = place + count, 4 * count, step // 2
        return place

    def _middle(self, cell: Tensor, step: int) -> Tensor:
        height, width = self._stamp
        middle = torch.tensor(
            [(width - 1) / 2.0, (height - 1) / 2.0], dtype=torch.float64, device=self.device
        )
        return cell * float(step) + (step - 1) / 2.0 - middle


def _nearest(middle: Tensor, xy: Tensor) -> Tensor:
    """Order cells by their distance from the nearest member."""
    apart = (middle[:, :, None] - xy[:, None]).square().sum(dim=3).amin(dim=2)
    return apart.argsort(dim=1, stable=True)


def _within(planes: Tensor, values: Tensor, terms: Tensor) -> Tensor:
    """Return the values of pixels within cells: (m, cell, pixel).

    By the logarithm where there is one. The dark ring of a telescope in space takes values through zero,
    where none is: there by the values themselves.
    """
    bent = torch.bmm(_log_slopes(planes).transpose(1, 2), terms)
    found = values * bent.clamp(max=_MOST_RISE).exp_()
    dark = (planes[:, 0] < 0.0).any(dim=1)
    if not bool(dark.any()):
        return found
    straight = values + torch.bmm(_slopes(planes).transpose(1, 2), terms)
    near_zero = (values <= 0.0) | ~(bent.abs() < _MOST_BENT)
    return torch.where(dark[:, None, None] & near_zero, straight, found)


def _slopes(planes: Tensor) -> Tensor:
    """Return derivatives by place up to the second, over their factorials: (m, 5, cell)."""
    x, y, xx, xy, yy = planes[:, 1:6].unbind(1)
    return torch.stack([-x, -y, xx, 2.0 * xy, yy], dim=1)


def _log_slopes(planes: Tensor) -> Tensor:
    """Return derivatives of the logarithm by place up to the second, over their factorials: (m, 5, cell).

    The logarithm of a sum of Gaussians is nearly a parabola over a cell, the sum itself is not.
    """
    value = planes[:, 0].clamp_min(_LEAST)
    # A member's place is on the other side of a difference than the pixel's.
    x, y = -planes[:, 1] / value, -planes[:, 2] / value
    xx, xy, yy = (planes[:, place] / value for place in (3, 4, 5))
    return torch.stack([x, y, xx - 0.5 * x * x, 2.0 * xy - x * y, yy - 0.5 * y * y], dim=1)


def _filled(values: Tensor, value: int) -> Tensor:
    missing = -values.shape[1] % _VECTOR
    return functional.pad(values, (0, 0) * (values.dim() - 2) + (0, missing), value=value)


class Plan(NamedTuple):
    """How near the members cells of each size are.

    Parameters
    ----------
    finest : int
        Side of the smallest cells, px: a power of two.
    radii : tuple of float
        Up to these distances from a member cells are of that size, of twice that size and so on, px.
    apart : float
        Share of a further member's surroundings that are not another's, too.
    averaged : bool
        As in :class:`Layout`.
    """

    finest: int
    radii: tuple[float, ...]
    apart: float = 0.4
    averaged: bool = True

    def layout(self, height: int, width: int, members: int, device: torch.device) -> Layout:
        """Return the layout of blends of some members."""
        divided = []
        for level, radius in enumerate(self.radii):
            side = self.finest * 2.0 ** (level + 1)
            area = 3.1416 * (radius + 0.5 * side) ** 2 / side**2
            cells = area * (1.0 + self.apart * (members - 1))
            divided.append(int(-(-cells // _VECTOR) * _VECTOR))
        return Layout(
            height,
            width,
            tuple(divided[::-1]),
            self.finest * 2 ** len(self.radii),
            device,
            self.averaged,
        )


class View(NamedTuple):
    """How blends are looked at.

    Parameters
    ----------
    layout : Layout
        The cells.
    memory : Memory
        What drawing needs.
    chunk : int
        Blends drawn at once; it changes no bit of the result on a CPU.
    """

    layout: Layout
    memory: Memory
    chunk: int
