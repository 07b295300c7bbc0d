"""A batch's stamps made ready: bad pixels out, units of order one, whitened, binned."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.light.cells import Cells, Layout
from deblend_batch.models.profile_fit.light.psf import PsfStack
from deblend_batch.models.profile_fit.search.normal import Pixels


class Blends(NamedTuple):
    """What is known of a batch of blends before the fit; first axis the blend, on one device.

    Parameters
    ----------
    image, weight : Tensor of float32, shape (blend, band, y, x)
        Pixels in units of ``unit``, and their inverse variance; both 0 where there is no data.
    unit : Tensor of float64, shape (blend, band)
        Power of two near the noise, in the caller's unit.
    ours : Tensor of bool, shape (blend, y, x)
        Pixels that are not nearer to a member that is only fitted beside others than to one that is measured.
    xy : Tensor of float64, shape (blend, member, 2)
        Given positions, x then y, px from the stamp's middle.
    position_err : Tensor of float64, shape (blend, member)
        Their errors along each axis, px.
    psf : PsfStack
        The PSFs.
    pixel_scale_arcsec : Tensor of float64, shape (blend,)
        Size of a pixel.
    njy_per_unit : Tensor of float64, shape (blend, band)
        nJy of one ``unit``.
    sky_mean, sky_sigma : Tensor of float64, shape (blend, band)
        Prior on the sky, in units of ``unit``.
    """

    image: Tensor
    weight: Tensor
    unit: Tensor
    ours: Tensor
    xy: Tensor
    position_err: Tensor
    psf: PsfStack
    pixel_scale_arcsec: Tensor
    njy_per_unit: Tensor
    sky_mean: Tensor
    sky_sigma: Tensor

    def rows(self, index: Tensor | slice) -> Blends:
        """Return some blends."""
        some: list[Any] = [
            each.rows(index) if isinstance(each, PsfStack) else each[index] for each in self
        ]
        return Blends(*some)


def unit_of(weight: Tensor) -> Tensor:
    """Power of two near the noise of the best pixel, float64 (blend, band).

    Dividing by it keeps single precision away from its ends, and is exact, so that fluxes scale with images.
    """
    best = torch.where(weight.isfinite(), weight, 0.0).flatten(2).amax(dim=2).double()
    _, exponent = torch.frexp(torch.where(best > 0, best, 1.0))
    return torch.exp2(-torch.div(exponent, 2, rounding_mode="floor").double())


def cleaned(pixels: Tensor, weight: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 images and weights in units of ``unit``, 0 where either says that there is no data."""
    good = (weight > 0) & weight.isfinite() & pixels.isfinite()
    factor = unit[..., None, None]
    image = torch.where(good, pixels.double() / factor, 0.0).float()
    return image, torch.where(good, weight.double() * factor.square(), 0.0).float()


def nearest_measured(
    positions: Tensor, n_members: Tensor, n_measured: Tensor, stamp: torch.Size
) -> Tensor:
    """Find the pixels nearest to members that are measured, which stand first: bool (blend, y, x)."""
    apart = positions.new_full((2, len(positions), *stamp), torch.inf).float()
    rows, columns = (torch.arange(side, device=positions.device) for side in stamp)
    for member in range(positions.shape[1]):
        y, x = positions[:, member, :, None].unbind(1)
        squared = (rows - y).square()[:, :, None] + (columns - x).square()[:, None]
        for which, wanted in enumerate((member < n_measured, member >= n_measured)):
            counts = (wanted & (member < n_members))[:, None, None]
            torch.where(
                counts, torch.minimum(apart[which], squared.float()), apart[which], out=apart[which]
            )
    return apart[0] <= apart[1]


def whitened(
    blends: Blends,
    weight: Tensor,
    value: Tensor,
    model: Tensor | float,
    layout: Layout,
    cells: Cells,
) -> Pixels:
    """Make the data of a search.

    Parameters
    ----------
    blends : Blends
        The data.
    weight, value : Tensor of float32, shape (blend, band, y, x)
        Inverse variances, and what is averaged with them.
    model : Tensor of float32, shape (blend, band, cell), or 0
        What is added to the means.
    layout : Layout
        The cells.
    cells : Cells
        Their places.

    Returns
    -------
    Pixels
        Means of the cells' pixels that have weight.
    """
    index = cells.place[:, None].expand(-1, weight.shape[1], -1)
    total, summed = (layout.pyramid(each).gather(2, index) for each in (weight, weight * value))
    root = total.sqrt()
    mean = torch.where(total > 0, summed / total, 0.0)
    return Pixels(
        root,
        root * (mean + model),
        cells.basis,
        blends.psf.weight,
        blends.psf.covariance,
        blends.sky_mean,
        blends.sky_sigma,
    )
