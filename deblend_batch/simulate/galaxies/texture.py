"""What makes a disc more than an ellipse: arms, patches, lopsidedness, clumps, companion-less asymmetry.

All functions work on an oversampled grid, before the PSF, and leave the total flux to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from deblend_batch.simulate.galaxies.population import Kind

Image = NDArray[np.float32]

_TEXTURE_SIDE = 1024
_TEXTURES = 6
_LARGEST_WAVE = 4
_CLUMP_SCALE = 0.4
_CLUMP_REACH = 2.0
_NUCLEUS_SIGMA = (0.04, 0.15)


@dataclass(frozen=True)
class DiscFrame:
    """Coordinates of grid samples in the plane of a disc.

    Parameters
    ----------
    major, minor : numpy.ndarray
        float32 (y, x), offsets along the major axis and, stretched by 1 / q, along the minor axis, in
        half-light radii.
    radius : numpy.ndarray
        float32 (y, x), distance from the centre in half-light radii.
    """

    major: Image
    minor: Image
    radius: Image


def disc_frame(
    offset_y: Image, offset_x: Image, radius: float, q: float, position_angle: float
) -> DiscFrame:
    """Turn sky offsets into the coordinates of an inclined thin disc.

    Parameters
    ----------
    offset_y, offset_x : numpy.ndarray
        float32 (n, 1) and (1, n), offsets from the centre in samples.
    radius : float
        Half-light radius along the major axis, in samples.
    q : float
        Axis ratio.
    position_angle : float
        Angle of the major axis from the x axis, in radians.
    """
    cos, sin = np.cos(position_angle) / radius, np.sin(position_angle) / radius
    major: Image = offset_x * np.float32(cos) + offset_y * np.float32(sin)
    minor: Image = offset_y * np.float32(cos / q) - offset_x * np.float32(sin / q)
    return DiscFrame(major, minor, np.sqrt(major * major + minor * minor))


@lru_cache(maxsize=1)
def _textures() -> Image:
    """Periodic Gaussian random fields of unit rms with power k^-2.4, the same in every process."""
    rng = np.random.default_rng(20190501)
    frequency = np.hypot(
        scipy.fft.fftfreq(_TEXTURE_SIDE)[:, None], scipy.fft.rfftfreq(_TEXTURE_SIDE)
    )
    amplitude = np.maximum(frequency, _LARGEST_WAVE / _TEXTURE_SIDE) ** -1.2
    amplitude[0, 0] = 0.0
    fields = []
    for _ in range(_TEXTURES):
        white = scipy.fft.rfft2(rng.standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE)))
        field = scipy.fft.irfft2(white * amplitude)
        fields.append((field / field.std()).astype(np.float32))
    return np.array(fields)


def patches(frame: DiscFrame, contrast: float, rng: np.random.Generator) -> Image:
    """Patchy star formation and dust: a log-normal random field in the plane of the disc.

    Returns
    -------
    numpy.ndarray
        float32 (y, x), factors.
    """
    field = _textures()[rng.integers(_TEXTURES)]
    scale = np.float32(rng.uniform(36.0, 90.0))
    start = rng.integers(1, 1 << 20, 2, dtype=np.int32)
    # The nearest sample will do: the PSF hides the steps.
    row = ((frame.minor * scale).astype(np.int32) + start[0]) % _TEXTURE_SIDE
    column = ((frame.major * scale).astype(np.int32) + start[1]) % _TEXTURE_SIDE
    factor: Image = np.exp(np.float32(contrast) * field[row, column])
    return factor


def spiral_arms(frame: DiscFrame, strength: float, rng: np.random.Generator) -> Image:
    """Logarithmic spiral arms that fade in beyond a third of the half-light radius.

    Returns
    -------
    numpy.ndarray
        float32 (y, x), factors.
    """
    arms = int(rng.choice([1, 2, 2, 2, 2, 3, 4]))
    winding = rng.choice([-1, 1]) / np.tan(np.radians(rng.uniform(10, 32)))
    log_radius = np.log(np.maximum(frame.radius, np.float32(0.05)))
    phase = np.float32(arms) * (
        np.arctan2(frame.minor, frame.major) - np.float32(winding) * log_radius
    )
    phase += np.float32(rng.uniform(0, 2 * np.pi))
    fade = np.clip((frame.radius - np.float32(0.2)) / np.float32(0.5), 0, 1)
    factor: Image = np.exp(np.float32(strength) * fade * np.cos(phase))
    return factor


def lopsidedness(frame: DiscFrame, strength: float, rng: np.random.Generator) -> Image:
    """More light on one side, growing outwards (the m = 1 mode of disc galaxies, Rix & Zaritsky 1995).

    Returns
    -------
    numpy.ndarray
        float32 (y, x), factors.
    """
    phase = rng.uniform(0, 2 * np.pi)
    along = frame.major * np.float32(np.cos(phase)) + frame.minor * np.float32(np.sin(phase))
    return np.asarray(
        1 + np.float32(strength) * along / np.hypot(frame.radius, np.float32(1.0)), np.float32
    )


@dataclass(frozen=True)
class Clumps:
    """Gaussian knots of star formation.

    Parameters
    ----------
    y, x : numpy.ndarray
        float32 (k,), offsets from the galaxy's centre in samples.
    sigma : numpy.ndarray
        float32 (k,), sizes in samples.
    flux : numpy.ndarray
        float32 (k,), shares of the galaxy's flux.
    """

    y: NDArray[np.float32]
    x: NDArray[np.float32]
    sigma: NDArray[np.float32]
    flux: NDArray[np.float32]

    def paint(self, offset_y: Image, offset_x: Image) -> Image:
        """Draw all knots on a grid of offsets, float32 (n, 1) and (1, n); the sum is about ``flux.sum()``."""
        width = np.maximum(self.sigma, np.float32(0.45))
        profile_y = np.exp(-0.5 * ((offset_y - self.y) / width) ** 2)
        profile_x = np.exp(-0.5 * ((offset_x.T - self.x) / width) ** 2)
        weight = self.flux / (np.float32(2 * np.pi) * width**2)
        return np.asarray((profile_y * weight) @ profile_x.T, np.float32)


def draw_clumps(
    kind: Kind,
    share: float,
    radius: float,
    q: float,
    position_angle: float,
    rng: np.random.Generator,
) -> Clumps:
    """Scatter knots over a disc, exponential in radius, a power law (-1.7) in flux; the last is a nucleus.

    Parameters
    ----------
    kind : {"sph", "sphd", "disk", "irr"}
        Irregulars get fewer and larger knots.
    share : float
        Flux of all knots, as a share of the galaxy's.
    radius : float
        Half-light radius of the disc along the major axis, in samples.
    q : float
        Axis ratio of the disc.
    position_angle : float
        Angle of the major axis, in radians.
    rng : numpy.random.Generator
        Source of randomness.
    """
    irregular = kind == "irr"
    count = int(rng.integers(2, 10)) if irregular else int(rng.integers(4, 30))
    distance = radius * np.minimum(rng.gamma(2.0, _CLUMP_SCALE, count), _CLUMP_REACH)
    angle = rng.uniform(0, 2 * np.pi, count)
    along, across = distance * np.cos(angle), distance * np.sin(angle) * q
    cos, sin = np.cos(position_angle), np.sin(position_angle)
    flux = rng.uniform(0.03, 1.0, count) ** (-1 / 0.7)
    low, high = (0.06, 0.35) if irregular else (0.02, 0.1)
    sigma = radius * np.exp(rng.uniform(np.log(low), np.log(high), count))
    flux *= share / flux.sum()
    y, x = across * cos + along * sin, along * cos - across * sin
    y[-1] = x[-1] = 0.0
    sigma[-1], flux[-1] = radius * rng.uniform(*_NUCLEUS_SIGMA), _nucleus_share(rng)
    return Clumps(*(part.astype(np.float32) for part in (y, x, sigma, flux)))


def _nucleus_share(rng: np.random.Generator) -> float:
    """Flux of a compact nucleus, which two discs in three have."""
    return min(float(rng.gamma(1.0, 0.04)), 0.2) if rng.random() < 2 / 3 else 0.0
