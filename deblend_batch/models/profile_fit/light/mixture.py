"""The search for the Gaussians whose sum is an image of a point source."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

Array = NDArray[np.float64]

_WING_FLOOR = (
    1e-3  # of the peak: below it errors count absolutely, above it relatively, as photons would
)
_SUM_WEIGHT = 10.0
_NARROWEST_PX = 0.3  # a square pixel alone has 0.29
_OF_DIFFRACTION = 5
_RIDGE = 1e-5  # keeps weights of either sign below about ten: single precision can bear that
_RING = 0.65  # of the inscribed circle's radius: from here on wings are looked at
_MOST_BEYOND = 0.1  # a kernel that ends in its core does not tell what is beyond
_FAR = 1.5  # half-sides: the Gaussian that is most like wings which fall with the third power


class Gaussians(NamedTuple):
    """Gaussians about one centre.

    Parameters
    ----------
    weight : ndarray of float64, shape (component,)
        Light of each.
    covariance : ndarray of float64, shape (component, 3)
        xx, xy, yy, square pixels.
    centre_yx : ndarray of float64, shape (2,)
        From the image's middle, px.
    """

    weight: Array
    covariance: Array
    centre_yx: Array

    def image(self, size: int) -> Array:
        """Draw their sum."""
        planes = _planes(self.covariance, self.centre_yx, size)
        return np.asarray((planes * self.weight).sum(axis=2), np.float64)


def seeing_gaussians(image: Array, components: int) -> Gaussians:
    """Fit Gaussians of positive weights, as the atmosphere makes them."""

    def solved(planes: Array, scale: Array) -> Array:
        design = (planes * scale[:, :, None]).reshape(-1, components)
        # One row more holds the sum at one. No weight is negative: nearly equal Gaussians of either sign
        # would cancel each other, and single precision with them.
        row = np.full((1, components), _SUM_WEIGHT * np.abs(design).sum())
        rows = np.concatenate([design, row])
        target = np.concatenate([(image * scale).ravel(), row[0, :1]])
        weight = nnls(rows.T @ rows, rows.T @ target)[0]
        return np.asarray(weight / weight.sum(), np.float64)

    return _search(image, components, 1.6, solved)


def diffraction_gaussians(image: Array) -> Gaussians:
    """Fit Gaussians to the rings and wings of a telescope in space.

    A dark ring needs weights of either sign. The wings of an aperture fall with the third power of the
    radius, so that a good part of the light lies beyond any kernel: it is a wide Gaussian of its own, and
    the others have what the kernel shows.
    """
    beyond = _light_beyond(image)
    size = len(image)
    wide = np.array([[1.0, 0.0, 1.0]]) * (_FAR * size / 2.0) ** 2
    shown = _planes(wide, np.zeros(2), size)[..., 0]
    light = beyond / (1.0 - shown.sum())
    inner = (1.0 - beyond) * image - light * shown

    def solved(planes: Array, scale: Array) -> Array:
        design = (planes * scale[:, :, None]).reshape(-1, _OF_DIFFRACTION)
        normal = design.T @ design
        unit = np.trace(normal) / _OF_DIFFRACTION
        # With the sum held by a multiplier.
        system = np.zeros((_OF_DIFFRACTION + 1, _OF_DIFFRACTION + 1))
        system[:-1, :-1] = normal + _RIDGE * unit * np.eye(_OF_DIFFRACTION)
        system[-1, :-1] = system[:-1, -1] = unit
        target = np.append(design.T @ (inner * scale).ravel(), (1.0 - light) * unit)
        return np.asarray(np.linalg.solve(system, target)[:-1], np.float64)

    found = _search(inner, _OF_DIFFRACTION, 1.3, solved)
    return Gaussians(
        np.append(found.weight, light),
        np.concatenate([found.covariance, wide]),
        found.centre_yx,
    )


def _light_beyond(image: Array) -> float:
    """Light beyond a kernel over all light, from that in its outermost ring."""
    size = len(image)
    axis = np.arange(size) - (size - 1) / 2.0
    radius = np.hypot(axis[:, None], axis) / (size / 2.0)
    ring = float(image[(radius >= _RING) & (radius < 1.0)].sum())
    # The light beyond a radius falls with its first power, where the brightness falls with the third.
    beyond = ring / (1.0 / _RING - 1.0) - float(image[radius >= 1.0].sum())
    beyond = max(beyond, 0.0)
    return min(beyond / (1.0 + beyond), _MOST_BEYOND)


def _search(
    image: Array, components: int, ratio: float, solved: Callable[[Array, Array], Array]
) -> Gaussians:
    """Search widths, stretches and the centre; weights are linear, and follow from them."""
    size = len(image)
    scale = 1.0 / np.sqrt(np.maximum(image, 0.0) + _WING_FLOOR * image.max())
    # The core's width, from the area above half the peak.
    core = max(np.sqrt(np.count_nonzero(image > 0.5 * image.max()) / np.pi) / 1.177, 0.45)
    ladder = core * 0.85 * ratio ** np.arange(components)
    start = np.concatenate([_peak_offset(image), np.log(ladder), np.zeros(2 * components)])

    def drawn(values: Array) -> tuple[Array, Array, Array]:
        covariance, centre = _shapes(values, components, size)
        planes = _planes(covariance, centre, size)
        return solved(planes, scale), covariance, planes

    def misfit(values: Array) -> Array:
        weight, _, planes = drawn(values)
        return np.asarray((((planes * weight).sum(axis=2) - image) * scale).ravel())

    found = least_squares(misfit, start, method="trf", x_scale=0.3, ftol=1e-5, max_nfev=40)
    weight, covariance, _ = drawn(found.x)
    order = np.argsort(covariance[:, 0] + covariance[:, 2])
    return Gaussians(weight[order], covariance[order], _shapes(found.x, components, size)[1])


def _shapes(values: Array, components: int, size: int) -> tuple[Array, Array]:
    widest = np.log(size / 3.0)
    sigma = np.sqrt(
        _NARROWEST_PX**2 + np.exp(2.0 * np.clip(values[2 : 2 + components], -5, widest))
    )
    e1, e2 = np.clip(values[2 + components :].reshape(2, components), -3, 3)
    stretch = np.sqrt(1.0 + e1**2 + e2**2)
    covariance = (sigma**2)[:, None] * np.stack([stretch + e1, e2, stretch - e1], axis=1)
    return covariance, np.clip(values[:2], -1.5, 1.5)


def _planes(covariance: Array, centre_yx: Array, size: int) -> Array:
    """Draw Gaussians of unit light, (y, x, component)."""
    axis = np.arange(size) - (size - 1) / 2.0
    y, x = axis[:, None, None] - centre_yx[0], axis[None, :, None] - centre_yx[1]
    xx, xy, yy = covariance.T
    determinant = xx * yy - xy**2
    exponent = (yy * x**2 - 2.0 * xy * x * y + xx * y**2) / determinant
    height = 1.0 / (2.0 * np.pi * np.sqrt(determinant))
    return np.asarray(height * np.exp(-0.5 * np.minimum(exponent, 80.0)), np.float64)


def _peak_offset(image: Array) -> Array:
    y, x = np.unravel_index(int(image.argmax()), image.shape)
    middle = (len(image) - 1) / 2.0
    return np.clip(np.array([y - middle, x - middle], np.float64), -1.0, 1.0)
