"""Point-spread functions as sums of Gaussians, the pixel included.

What is fitted is the *effective* PSF, that is the optical one convolved with the square pixel: sampled at
pixel centres it is what an image holds. Everything downstream is then Gaussians, whose convolutions with a
galaxy's Gaussians have closed forms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls
from torch import Tensor

from deblend_batch.errors import ModelError
from deblend_batch.field.psf_profile import (
    DIFFRACTION_FRACTION,
    MOFFAT_BETA,
    OBSCURATION,
    airy,
    is_seeing,
    moffat,
    pixel_integrated,
)

COMPONENTS = 4
PsfKind = Literal["gaussian", "moffat", "airy"]

_WING_FLOOR = (
    1e-3  # of the peak: below it errors count absolutely, above it relatively, as photons would
)
_SUM_WEIGHT = 10.0
_NARROWEST_PX = 0.3  # a square pixel alone has 0.29
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
    """

    weight: Array
    covariance: Array
    residual: float

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
        return _draw(self.weight, self.covariance, np.zeros(2), size)


def psf_from_kernel(
    kernel: NDArray[np.floating],
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
    pixel_included : bool
        Whether the kernel is what an image of a star shows (true) or the optical PSF sampled at points,
        which is then widened by the pixel's variance.
    components : int
        Number of Gaussians.

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
    mixture = _fitted(image, components)
    if pixel_included:
        return mixture
    pixel = np.array([1.0, 0.0, 1.0]) / 12.0
    return PsfMixture(mixture.weight, mixture.covariance + pixel, mixture.residual)


def psf_from_fwhm(
    fwhm_px: float,
    kind: PsfKind = "moffat",
    *,
    beta: float = MOFFAT_BETA,
    obscuration: float = OBSCURATION,
    diffraction_fraction: float = DIFFRACTION_FRACTION,
    components: int = COMPONENTS,
) -> PsfMixture:
    """Fit a mixture to a round PSF of a known width, convolved with the pixel.

    Parameters
    ----------
    fwhm_px : float
        Full width at half maximum before the pixel, px.
    kind : {"gaussian", "moffat", "airy"}
        Profile. ``"airy"`` is that of an obscured aperture, blurred by Gaussian jitter.
    beta : float
        Moffat index.
    obscuration : float
        Linear central obscuration of the aperture.
    diffraction_fraction : float
        Width of the Airy core over that of the whole; the rest is jitter.
    components : int
        Number of Gaussians.

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
    profiles: dict[str, Callable[[Array], Array]] = {
        "moffat": lambda r: moffat(r, fwhm_px, beta),
        "airy": lambda r: airy(r, fwhm_px * diffraction_fraction, obscuration),
    }
    if kind not in profiles:
        raise ModelError(f"PSF kind {kind!r}: choose 'gaussian', 'moffat' or 'airy'")
    half = int(np.clip(np.ceil(_HALF_WIDTHS * fwhm_px), _LEAST_HALF_PX, _MOST_HALF_PX))
    image = pixel_integrated(profiles[kind], half)
    mixture = _fitted(image, components)
    if kind == "airy":
        jitter = (1.0 - diffraction_fraction**2) * (fwhm_px / _FWHM_OF_SIGMA) ** 2
        blurred = mixture.covariance + jitter * np.array([1.0, 0.0, 1.0])
        return PsfMixture(mixture.weight, blurred, mixture.residual)
    return mixture


def psf_of_width(fwhm_px: float, pixel_scale_arcsec: float) -> PsfMixture:
    """Fit a mixture to a PSF of which nothing but the width is known.

    Parameters
    ----------
    fwhm_px : float
        Full width at half maximum before the pixel, px.
    pixel_scale_arcsec : float
        Size of a pixel.

    Returns
    -------
    PsfMixture
        That of the atmosphere, a Moffat profile, from 0.3 arcsec on; below, that of a telescope in space.
    """
    return psf_from_fwhm(fwhm_px, "moffat" if is_seeing(fwhm_px, pixel_scale_arcsec) else "airy")


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


def _fitted(image: Array, components: int) -> PsfMixture:
    size = len(image)
    scale = 1.0 / np.sqrt(np.maximum(image, 0.0) + _WING_FLOOR * image.max())
    # The core's width, from the area above half the peak.
    core = max(np.sqrt(np.count_nonzero(image > 0.5 * image.max()) / np.pi) / 1.177, 0.45)
    ladder = core * 0.85 * 1.6 ** np.arange(components)
    start = np.concatenate([_peak_offset(image), np.log(ladder), np.zeros(2 * components)])

    def misfit(values: Array) -> Array:
        weight, covariance, centre = _solved(values, components, image, scale)
        return np.asarray(((_draw(weight, covariance, centre, size) - image) * scale).ravel())

    found = least_squares(misfit, start, method="trf", x_scale=0.3, ftol=1e-5, max_nfev=40)
    weight, covariance, centre = _solved(found.x, components, image, scale)
    order = np.argsort(covariance[:, 0] + covariance[:, 2])
    residual = 0.5 * float(np.abs(_draw(weight, covariance, centre, size) - image).sum())
    return PsfMixture(weight[order], covariance[order], residual)


def _solved(
    values: Array, components: int, image: Array, scale: Array
) -> tuple[Array, Array, Array]:
    """Return the weights that suit the widths best: they are linear, so that no search is needed for them."""
    widest = np.log(len(image) / 3.0)
    sigma = np.sqrt(
        _NARROWEST_PX**2 + np.exp(2.0 * np.clip(values[2 : 2 + components], -5, widest))
    )
    e1, e2 = np.clip(values[2 + components :].reshape(2, components), -3, 3)
    stretch = np.sqrt(1.0 + e1**2 + e2**2)
    covariance = (sigma**2)[:, None] * np.stack([stretch + e1, e2, stretch - e1], axis=1)
    centre = np.clip(values[:2], -1.5, 1.5)
    planes = _planes(np.ones(components), covariance, centre, len(image))
    design = (planes * scale[:, :, None]).reshape(-1, components)
    # One row more holds the sum at one. No weight is negative: nearly equal Gaussians of either sign would
    # cancel each other, and single precision with them.
    row = np.full((1, components), _SUM_WEIGHT * np.abs(design).sum())
    rows = np.concatenate([design, row])
    target = np.concatenate([(image * scale).ravel(), row[0, :1]])
    weight = nnls(rows.T @ rows, rows.T @ target)[0]
    return weight / weight.sum(), covariance, centre


def _draw(weight: Array, covariance: Array, centre_yx: Array, size: int) -> Array:
    return np.asarray(_planes(weight, covariance, centre_yx, size).sum(axis=2), np.float64)


def _planes(weight: Array, covariance: Array, centre_yx: Array, size: int) -> Array:
    axis = np.arange(size) - (size - 1) / 2.0
    y, x = axis[:, None, None] - centre_yx[0], axis[None, :, None] - centre_yx[1]
    xx, xy, yy = covariance.T
    determinant = xx * yy - xy**2
    exponent = (yy * x**2 - 2.0 * xy * x * y + xx * y**2) / determinant
    height = weight / (2.0 * np.pi * np.sqrt(determinant))
    return np.asarray(height * np.exp(-0.5 * np.minimum(exponent, 80.0)), np.float64)


def _peak_offset(image: Array) -> Array:
    y, x = np.unravel_index(int(image.argmax()), image.shape)
    middle = (len(image) - 1) / 2.0
    return np.clip(np.array([y - middle, x - middle], np.float64), -1.0, 1.0)


class PsfStack(NamedTuple):
    """Mixtures of n blends and their bands; float64.

    Parameters
    ----------
    weight : Tensor, shape (blend, band, component)
        Weights, zero for components that a mixture does not have.
    covariance : Tensor, shape (blend, band, component, 3)
        xx, xy, yy, square pixels, the pixel included.
    """

    weight: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, mixtures: Sequence[Sequence[PsfMixture]]) -> PsfStack:
        """Stack mixtures given as rows of bands, one row a blend.

        Parameters
        ----------
        mixtures : sequence of sequences of PsfMixture
            ``mixtures[blend][band]``.

        Returns
        -------
        PsfStack
            The stack, on the host.
        """
        most = max((len(each.weight) for row in mixtures for each in row), default=1)
        bands = len(mixtures[0]) if mixtures else 1
        weight = np.zeros((len(mixtures), bands, most))
        covariance = np.zeros((len(mixtures), bands, most, 3))
        covariance[..., [0, 2]] = 1.0
        for row, blend in enumerate(mixtures):
            for column, each in enumerate(blend):
                weight[row, column, : len(each.weight)] = each.weight
                covariance[row, column, : len(each.weight)] = each.covariance
        return cls(torch.from_numpy(weight), torch.from_numpy(covariance))

    def rows(self, index: Tensor | slice) -> PsfStack:
        """Return some blends."""
        return PsfStack(self.weight[index], self.covariance[index])

    def sigma_px(self) -> Tensor:
        """Width of the core, (blend, band): that of one Gaussian as high at its middle."""
        xx, xy, yy = self.covariance.unbind(3)
        height = (self.weight / torch.sqrt(xx * yy - xy.square())).sum(dim=2)
        return height.clamp_min(1e-6).rsqrt()
