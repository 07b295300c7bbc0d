"""From stamps in any linear unit to network input: no parameters, exact in the flux scale."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from deblend_batch.models.card import STRICT
from deblend_batch.models.networks import geometry
from deblend_batch.models.networks.interface import NetworkInput

_NOISE_STEP_PX = 4  # every fourth pixel suffices for a median
_RMS_OF_MEDIAN = 1.4826
_NOISE_FLOOR = 1e-3  # of the brightest pixel: keeps noise-free stamps in range
_SPOT_SIGMA_PX = 2.0  # of the position channels' Gaussians
_BELOW_ONE_ULP = 1e-12  # of a squared distance: decides ties, changes nothing else
_SPLIT_LIMIT = 0.02  # smallest share that the split by nearest position may give a member


@dataclass(frozen=True, config=STRICT)
class PreprocessConfig:
    """How stamps become network input; a part of the weights' card.

    Parameters
    ----------
    encoding : {"plain", "signed", "heatmaps"}
        How positions reach the network: not at all; as the sign of the image, positive where the
        central is nearer and negative where the companion is; or as two more channels with a
        Gaussian at each member.
    orient : bool
        Turn every stamp so that the companion lies in the first octant.
    softening : float
        Pixel value, in background rms, round which the compression turns from linear to
        logarithmic.
    aperture_px : float
        Radius of the window whose content gives the flux scale and the split by nearest position,
        px.
    """

    encoding: Literal["plain", "signed", "heatmaps"] = "signed"
    orient: bool = True
    softening: Annotated[float, Field(gt=0)] = 5.0
    aperture_px: Annotated[float, Field(gt=0)] = 20.0

    @property
    def channels(self) -> int:
        """Number of channels of the network's image."""
        return 3 if self.encoding == "heatmaps" else 1


def prepare(
    stamps: Tensor,
    central_yx: Tensor,
    companion_yx: Tensor,
    neighbours_yx: Tensor | None,
    config: PreprocessConfig,
) -> NetworkInput:
    """Turn a batch of stamps into network input.

    Multiplying the stamps by a power of two changes nothing but ``unit``, to the bit.

    Parameters
    ----------
    stamps : Tensor of float32, shape (n, y, x)
        Square stamps in any linear unit, background subtracted, bad pixels 0.
    central_yx, companion_yx : Tensor of float32, shape (n, 2)
        Positions of the members in the stamp, px.
    neighbours_yx : Tensor of float32, shape (n, k, 2), or None
        Positions of third sources in the stamp, px, NaN-padded; their pixels are blanked.
    config : PreprocessConfig
        What the weights were trained with.
    """
    usable = _usable(stamps, central_yx, companion_yx)
    frame = _canonical(stamps, central_yx, companion_yx, usable, orient=config.orient)
    pixels, unit = _power_of_two_unit(frame.pixels)
    noise = _noise(pixels)
    size = pixels.shape[-1]
    to_central = geometry.squared_distance(frame.central_yx, size)
    to_companion = geometry.squared_distance(frame.companion_yx, size)
    nearest = torch.minimum(to_central, to_companion)
    if neighbours_yx is not None:
        turned = geometry.turn_positions(neighbours_yx, frame.octant, size)
        pixels = geometry.blank_neighbours(pixels, nearest, turned)
    side = _side(to_central, to_companion)
    scale, split_logit = _split(pixels, nearest, side, noise, config.aperture_px)
    image = _compress(pixels / (config.softening * noise)[:, None, None])
    return NetworkInput(
        image=_encode(image, side, to_central, to_companion, config),
        linear=pixels / scale[:, None, None],
        scale=scale,
        unit=unit,
        split_logit=split_logit,
        octant=frame.octant,
        usable=usable,
    )


class _Frame(NamedTuple):
    """Stamps and positions as the network will see them."""

    pixels: Tensor
    central_yx: Tensor
    companion_yx: Tensor
    octant: Tensor


def _canonical(
    stamps: Tensor, central_yx: Tensor, companion_yx: Tensor, usable: Tensor, *, orient: bool
) -> _Frame:
    """Empty the rows that are not usable, and turn the others."""
    size = stamps.shape[-1]
    if not usable.all():
        stamps = stamps.masked_fill(~usable[:, None, None], 0.0)
        central_yx, companion_yx = (
            yx.masked_fill(~usable[:, None], size / 2) for yx in (central_yx, companion_yx)
        )
    if not orient:
        nothing = torch.zeros(len(stamps), dtype=torch.int64, device=stamps.device)
        return _Frame(stamps, central_yx, companion_yx, nothing)
    octant = geometry.octant_of(central_yx, companion_yx)
    return _Frame(
        geometry.turn_stamps(stamps, octant),
        geometry.turn_positions(central_yx, octant, size),
        geometry.turn_positions(companion_yx, octant, size),
        octant,
    )


def _usable(stamps: Tensor, central_yx: Tensor, companion_yx: Tensor) -> Tensor:
    brightest = stamps.abs().amax(dim=(1, 2))  # NaN where any pixel is
    somewhere = central_yx.isfinite().all(dim=1) & companion_yx.isfinite().all(dim=1)
    return brightest.isfinite() & (brightest > 0) & somewhere


def _side(to_central: Tensor, to_companion: Tensor) -> Tensor:
    """1 where the central is nearer or neither is, -1 where the companion is."""
    return (to_companion - to_central).add_(_BELOW_ONE_ULP).sign_()


def _compress(pixels: Tensor) -> Tensor:
    """Symmetric logarithm; like asinh linear near 0, and twenty times faster on a CPU."""
    return pixels.abs().log1p_().mul_(pixels.sign())


def _power_of_two_unit(stamps: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each stamp by the power of two next below its brightest pixel, which is exact."""
    brightest = stamps.abs().amax(dim=(1, 2))
    unit = torch.ldexp(torch.ones_like(brightest), torch.frexp(brightest).exponent - 1)
    return stamps / unit[:, None, None], unit


def _noise(pixels: Tensor) -> Tensor:
    """Background rms from the median of every fourth pixel's absolute value."""
    sample = pixels[:, ::_NOISE_STEP_PX, ::_NOISE_STEP_PX].flatten(1).abs()
    median = sample.median(dim=1).values
    floor = _NOISE_FLOOR * pixels.abs().amax(dim=(1, 2))
    return torch.maximum(_RMS_OF_MEDIAN * median, floor).clamp_min(torch.finfo(pixels.dtype).tiny)


def _split(
    pixels: Tensor, nearest: Tensor, side: Tensor, noise: Tensor, aperture_px: float
) -> tuple[Tensor, Tensor]:
    """Flux scale, and logit of the central's share, from a soft window round both positions."""
    falling = nearest / aperture_px**2
    weighted = pixels / falling.mul_(falling).add_(1.0)
    total = weighted.sum(dim=(1, 2))
    difference = weighted.mul_(side).sum(dim=(1, 2))
    scale = torch.maximum(total, aperture_px * noise)
    share = (0.5 + 0.5 * difference / scale).clamp(_SPLIT_LIMIT, 1 - _SPLIT_LIMIT)
    return scale, torch.logit(share)


def _encode(
    image: Tensor,
    side: Tensor,
    to_central: Tensor,
    to_companion: Tensor,
    config: PreprocessConfig,
) -> Tensor:
    if config.encoding == "signed":
        return (image * side)[:, None]
    if config.encoding == "plain":
        return image[:, None]
    spots = [
        torch.exp(-0.5 * distance / _SPOT_SIGMA_PX**2) for distance in (to_central, to_companion)
    ]
    return torch.stack([image, *spots], dim=1)
