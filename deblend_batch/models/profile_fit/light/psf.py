"""Point-spread functions as sums of Gaussians, the pixel included.

What is fitted is the *effective* PSF, that is the optical one convolved with the square pixel: sampled at
pixel centres it is what an image holds. Everything downstream is then Gaussians, whose convolutions with a
galaxy's Gaussians have closed forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblend_batch.errors import ModelError
from deblend_batch.field.psf.profile import (
    MOFFAT_BETA,
    diffraction_image,
    moffat,
    pixel_integrated,
)
from deblend_batch.models.profile_fit.light.mixture import (
    Gaussians,
    diffraction_gaussians,
    seeing_gaussians,
)

COMPONENTS = 4
"""Gaussians under seeing."""
DIFFRACTION_COMPONENTS = 6
PsfKind = Literal["gaussian", "moffat", "airy"]
KernelKind = Literal["seeing", "diffraction"]

_PROFILES: dict[KernelKind, PsfKind] = {"seeing": "moffat", "diffraction": "airy"}
_SHAPE_ERROR = 0.02  # surveys' PSFs of one width differ by twice that; a fit absorbs half
_MOST_ERROR = 0.05
_HALF_WIDTHS = 7.0
_LEAST_HALF_PX = 10
_MOST_HALF_PX = 40
_SMALLEST_KERNEL_PX = 3
_FWHM_OF_SIGMA = 2.3548200450309493

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PsfMixture:
    """A PSF with the pixel in it as a sum of Gaussians about one centre.

    Parameters
    ----------
    weight : numpy.ndarray
        float64 (component,), summing to one.
    covariance : numpy.ndarray
        float64 (component, 3): xx, xy, yy in square pixels.
    residual : float
        Share of the light that the mixture puts in the wrong place: half the sum of the absolute
        differences from the kernel. A few per mille is good; beyond 0.03 fluxes feel it.
    shape_error : float
        Share of the light that may be in the wrong place because the shape was assumed, not given.
    """

    weight: Array
    covariance: Array
    residual: float
    shape_error: float = 0.0

    @property
    def error(self) -> float:
        """Share of the light that may be in the wrong place; no more than what an image's kernel has.

        A kernel that was measured on few stars leaves its noise over, which is no error of the Gaussians.
        """
        return min(float(np.hypot(self.residual, self.shape_error)), _MOST_ERROR)

    def image(self, size: int) -> Array:
        """Draw the mixture about the middle of a square stamp.

        Parameters
        ----------
        size : int
            Side of the stamp, px.

        Returns
        -------
        numpy.ndarray
            float64 (y, x); the centre is at ``(size - 1) / 2`` on both axes.
        """
        return Gaussians(self.weight, self.covariance, np.zeros(2)).image(size)


def psf_from_kernel(
    kernel: NDArray[np.floating],
    kind: KernelKind = "seeing",
    *,
    pixel_included: bool = True,
    components: int = COMPONENTS,
) -> PsfMixture:
    """Fit a mixture to the image of a point source.

    Parameters
    ----------
    kernel : numpy.ndarray
        (y, x), square, odd or even; any positive sum. The centre is fitted within a pixel of the middle
        and not kept: positions mean the middle of the light.
    kind : {"seeing", "diffraction"}
        Whether the atmosphere made it, so that the kernel holds all of the light, or a telescope in space,
        with rings and wings that fall with the third power of the radius: the light beyond the kernel then
        follows from that in its outermost ring, and is counted, so that fluxes are total ones.
    pixel_included : bool
        Whether the kernel is what an image of a star shows (true) or the optical PSF sampled at points,
        which is then widened by the pixel's variance.
    components : int
        Number of Gaussians under seeing; six for diffraction.

    Returns
    -------
    PsfMixture
        The fit.

    Raises
    ------
    ModelError
        If the kernel is not a square image of finite numbers with a positive sum and a peak inside.
    """
    image = _checked(kernel)
    mixture = _fitted(image, kind, components)
    if pixel_included:
        return mixture
    pixel = np.array([1.0, 0.0, 1.0]) / 12.0
    return PsfMixture(mixture.weight, mixture.covariance + pixel, mixture.residual)


def psf_from_fwhm(
    fwhm_px: float,
    kind: PsfKind = "moffat",
    *,
    beta: float = MOFFAT_BETA,
    components: int = COMPONENTS,
) -> PsfMixture:
    """Fit a mixture to a round PSF of a known width, convolved with the pixel.

    Parameters
    ----------
    fwhm_px : float
        Full width at half maximum before the pixel, px.
    kind : {"gaussian", "moffat", "airy"}
        Profile. ``"airy"`` is that of an obscured aperture (0.33), blurred by Gaussian jitter.
    beta : float
        Moffat index.
    components : int
        Number of Gaussians of a Moffat profile; an Airy pattern has six.

    Returns
    -------
    PsfMixture
        The fit.

    Raises
    ------
    ModelError
        If the width or the kind is not usable.
    """
    if not (np.isfinite(fwhm_px) and 0.0 < fwhm_px <= 50.0):
        raise ModelError(f"PSF FWHM {fwhm_px!r} px: give a number above 0 and up to 50 px")
    if kind == "gaussian":
        variance = (fwhm_px / _FWHM_OF_SIGMA) ** 2 + 1.0 / 12.0
        return PsfMixture(np.ones(1), np.array([[variance, 0.0, variance]]), 0.0)
    half = int(np.clip(np.ceil(_HALF_WIDTHS * fwhm_px), _LEAST_HALF_PX, _MOST_HALF_PX))
    if kind == "moffat":
        image = pixel_integrated(lambda r: moffat(r, fwhm_px, beta), half)
        return _fitted(image, "seeing", components)
    if kind == "airy":
        return _fitted(diffraction_image(fwhm_px, half), "diffraction", components)
    raise ModelError(f"PSF kind {kind!r}: choose 'gaussian', 'moffat' or 'airy'")


def psf_of_width(fwhm_px: float, kind: KernelKind) -> PsfMixture:
    """Fit a mixture to a PSF of which nothing but the width is known.

    Parameters
    ----------
    fwhm_px : float
        Full width at half maximum before the pixel, px.
    kind : {"seeing", "diffraction"}
        Whether it is the atmosphere's, a Moffat profile, or that of a telescope in space.

    Returns
    -------
    PsfMixture
        With the error of a shape that is assumed.
    """
    return replace(psf_from_fwhm(fwhm_px, _PROFILES[kind]), shape_error=_SHAPE_ERROR)


def _checked(kernel: NDArray[np.floating]) -> Array:
    image = np.asarray(kernel, np.float64)
    if image.ndim != 2 or image.shape[0] != image.shape[1] or len(image) < _SMALLEST_KERNEL_PX:
        raise ModelError(f"PSF kernel of shape {image.shape}: give a square image of 3 px or more")
    if not np.isfinite(image).all():
        raise ModelError("PSF kernel holds NaN or infinite pixels: mend it or leave the cell out")
    total, peak = float(image.sum()), float(image.max())
    if not total > 1e-6 * peak * image.size or peak <= 0.0:
        raise ModelError(f"PSF kernel sums to {total:.3g}: a PSF has a positive sum")
    return np.asarray(image / total, np.float64)


def _fitted(image: Array, kind: KernelKind, components: int) -> PsfMixture:
    found = (
        diffraction_gaussians(image)
        if kind == "diffraction"
        else seeing_gaussians(image, components)
    )
    residual = 0.5 * float(np.abs(found.image(len(image)) - image).sum())
    return PsfMixture(found.weight, found.covariance, residual)


class PsfStack(NamedTuple):
    """Mixtures of n blends and their bands; float64.

    Parameters
    ----------
    weight : Tensor, shape (blend, band, component)
        Weights, zero for components that a mixture does not have.
    covariance : Tensor, shape (blend, band, component, 3)
        xx, xy, yy, square pixels, the pixel included.
    error : Tensor, shape (blend, band)
        Share of a point source's light that may be in the wrong place.
    """

    weight: Tensor
    covariance: Tensor
    error: Tensor

    @classmethod
    def of(cls, mixtures: Sequence[Sequence[PsfMixture]], components: int = 1) -> PsfStack:
        """Stack mixtures given as rows of bands, one row a blend.

        Parameters
        ----------
        mixtures : sequence of sequences of PsfMixture
            ``mixtures[blend][band]``.
        components : int
            Least number of Gaussians: rows of the same number can be fitted together.

        Returns
        -------
        PsfStack
            The stack, on the host.
        """
        most = max((len(each.weight) for row in mixtures for each in row), default=components)
        most = max(most, components)
        bands = len(mixtures[0]) if mixtures else 1
        weight = np.zeros((len(mixtures), bands, most))
        covariance = np.zeros((len(mixtures), bands, most, 3))
        covariance[..., [0, 2]] = 1.0
        for row, blend in enumerate(mixtures):
            for column, each in enumerate(blend):
                weight[row, column, : len(each.weight)] = each.weight
                covariance[row, column, : len(each.weight)] = each.covariance
        error = np.array([[each.error for each in row] for row in mixtures]).reshape(-1, bands)
        return cls(torch.from_numpy(weight), torch.from_numpy(covariance), torch.from_numpy(error))

    def rows(self, index: Tensor | slice) -> PsfStack:
        """Return some blends."""
        return PsfStack(*(each[index] for each in self))

    def sigma_px(self) -> Tensor:
        """Width of the core, (blend, band): that of one Gaussian as high at its middle."""
        xx, xy, yy = self.covariance.unbind(3)
        height = (self.weight / torch.sqrt(xx * yy - xy.square())).sum(dim=2)
        return height.clamp_min(1e-6).rsqrt()
