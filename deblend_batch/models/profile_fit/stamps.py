"""A batch's stamps made ready: bad pixels out, units of order one, whitened, binned."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deblend_batch.models.profile_fit.normal import Pixels
from deblend_batch.models.profile_fit.psf import PsfStack


class Blends(NamedTuple):
    """What is known of a batch of blends before the fit; first axis the blend, on one device.

    Parameters
    ----------
    image, weight : Tensor of float32, shape (blend, band, y, x)
        Pixels in units of ``unit``, and their inverse variance; both 0 where there is no data.
    unit : Tensor of float64, shape (blend, band)
        Power of two near the noise, in the caller's unit.
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
    xy: Tensor
    position_err: Tensor
    psf: PsfStack
    pixel_scale_arcsec: Tensor
    njy_per_unit: Tensor
    sky_mean: Tensor
    sky_sigma: Tensor

    def rows(self, index: Tensor) -> Blends:
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


def whitened(blends: Blends, step: int, pixels: int) -> Pixels:
    """Make the data of a search, binned ``step`` by ``step`` and filled up to a number of pixels.

    Returns
    -------
    Pixels
        Weighted means of the bins that have weight; the bin's size is added to the PSF's.
    """
    image, weight = blends.image, blends.weight
    if step > 1:
        summed, total = (_binned(each, step) for each in (weight * image, weight))
        image, weight = torch.where(total > 0, summed / total, 0.0), total
    image, weight = (
        functional.pad(each.flatten(2), (0, pixels - each[0, 0].numel()))
        for each in (image, weight)
    )
    root = weight.sqrt()
    wider = blends.psf.covariance.new_tensor([1.0, 0.0, 1.0]) * ((step**2 - 1) / 12.0)
    return Pixels(
        root,
        root * image,
        blends.psf.weight,
        blends.psf.covariance + wider,
        blends.sky_mean,
        blends.sky_sigma,
    )


def _binned(plane: Tensor, step: int) -> Tensor:
    height, width = plane.shape[-2:]
    padded = functional.pad(plane, (0, -width % step, 0, -height % step))
    parts = [padded[..., dy::step, dx::step] for dy in range(step) for dx in range(step)]
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
