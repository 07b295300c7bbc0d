"""One isolated galaxy, without noise: GalSim's profiles with structure painted on the disc, through a PSF."""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from deblend_batch.simulate.galaxies.centroid import windowed_centroid
from deblend_batch.simulate.galaxies.population import Component, Structure
from deblend_batch.simulate.galaxies.texture import (
    DiscFrame,
    disc_frame,
    draw_clumps,
    lopsidedness,
    patches,
    spiral_arms,
)
from deblend_batch.simulate.psf import Psf, fourier_image, transfer_function

Image = NDArray[np.float32]

OVERSAMPLING = 2
_PAD_PX = 16
_INDEX_STEP = 0.1
_TRUNCATION = 10.0  # radii; nearer, the edge of a bright spheroid shows
_STEEPEST_WHOLE = 1.5  # profiles of higher index have wings that need an end
_DISC_EXTENT = 4.5
_TEXTURED_RADIUS_PX = 1.5
_EDGE_PX = 6
_FAST = galsim.GSParams(folding_threshold=1e-2, kvalue_accuracy=1e-4, maximum_fft_size=8192)


@dataclass(frozen=True)
class Drawing:
    """A drawn galaxy.

    Parameters
    ----------
    image : numpy.ndarray
        float32 (y, x), total flux one where no light falls outside.
    centre_yx : numpy.ndarray
        float64 (2,), windowed centroid in the image, 0-based pixel centres.
    """

    image: Image
    centre_yx: NDArray[np.float64]


class Renderer:
    """Draws galaxies that share one PSF.

    Parameters
    ----------
    psf : Psf
        The point-spread function.
    stamp_px : int
        Side of the drawn stamps; even.
    """

    def __init__(self, psf: Psf, stamp_px: int = 128) -> None:
        self._stamp = stamp_px
        self._grid = scipy.fft.next_fast_len(OVERSAMPLING * (stamp_px + 2 * _PAD_PX), real=True)
        self._grid += self._grid % 2
        self._transfer = transfer_function(psf, self._grid, OVERSAMPLING)
        sign = 1 - 2 * (np.arange(self._grid) % 2)
        self._centred = (sign[:, None] * sign[None, : self._grid // 2 + 1]).astype(np.float32)
        self._window = _edge_window(stamp_px)
        self._libraries = ThreadpoolController()

    def draw(self, structure: Structure, radius_scale: float, rng: np.random.Generator) -> Drawing:
        """Draw one galaxy of unit flux near the centre of a stamp.

        Parameters
        ----------
        structure : Structure
            The smooth structure.
        radius_scale : float
            Pixels per unit of the structure's radii.
        rng : numpy.random.Generator
            Source of orientation, position within the pixel, and structure of the disc.
        """
        # OpenBLAS rounds differently with another number of threads.
        with self._libraries.limit(limits=1, user_api="blas"):
            return self._draw(structure, radius_scale, rng)

    def _draw(self, structure: Structure, radius_scale: float, rng: np.random.Generator) -> Drawing:
        position_angle = float(rng.uniform(0, np.pi))
        shift = rng.uniform(-0.5, 0.5, 2)
        fourier = np.zeros(self._transfer.shape, np.complex64)
        for part, profile in _smooth_parts(structure, radius_scale, position_angle, rng):
            fourier += np.float32(part) * fourier_image(
                profile.shift(float(shift[1]), float(shift[0])), self._grid, OVERSAMPLING
            )
        disc = structure.disc
        if disc is not None and disc.radius_arcsec * radius_scale >= _TEXTURED_RADIUS_PX:
            box = _textured_disc(
                structure, disc, radius_scale, position_angle, shift, self._stamp, rng
            )
            fourier += scipy.fft.rfft2(self._placed(box)) * self._centred
        image = self._observe(fourier)
        return Drawing(image, windowed_centroid(image, structure.radius_arcsec * radius_scale))

    def _placed(self, box: Image) -> Image:
        grid = np.zeros((self._grid, self._grid), np.float32)
        start = self._grid // 2 - box.shape[0] // 2
        grid[start : start + box.shape[0], start : start + box.shape[1]] = box
        return grid

    def _observe(self, fourier: NDArray[np.complex64]) -> Image:
        samples = scipy.fft.irfft2(fourier * self._transfer, s=(self._grid, self._grid))
        take = (OVERSAMPLING * (np.arange(self._stamp) - self._stamp // 2)) % self._grid
        image = samples[np.ix_(take, take)] * np.float32(OVERSAMPLING**2)
        return np.asarray(np.maximum(image, 0) * self._window, np.float32)


def _edge_window(size: int) -> Image:
    """One inside, falling to zero over the last pixels, so that no stamp ends in a step."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    edge = np.sin(0.5 * np.pi * np.clip(distance / _EDGE_PX, 0, 1)) ** 2
    return np.asarray(edge[:, None] * edge[None, :], np.float32)


def _profile(part: Component, radius: float, position_angle: float) -> galsim.GSObject:
    """GalSim's Sersic profile of unit flux; the index is rounded so that its lookup tables are reused."""
    index = float(np.clip(round(part.n / _INDEX_STEP) * _INDEX_STEP, 0.3, 6.2))
    circular = max(radius, 0.05) * np.sqrt(part.q)
    end = _TRUNCATION * circular if index > _STEEPEST_WHOLE else 0.0
    profile = galsim.Sersic(index, circular, trunc=end, gsparams=_FAST)
    return profile.shear(q=part.q, beta=position_angle * galsim.radians)


def _smooth_parts(
    structure: Structure, radius_scale: float, position_angle: float, rng: np.random.Generator
) -> list[tuple[float, galsim.GSObject]]:
    """List the parts for Fourier space: spheroids, whose cusps a grid cannot hold, and unresolved discs."""
    parts = []
    if structure.spheroid is not None:
        part = structure.spheroid
        angle = position_angle + (0.0 if structure.disc is None else float(rng.normal(0, 0.25)))
        radius = part.radius_arcsec * radius_scale
        parts.append((part.fraction, _profile(part, radius, angle)))
    disc = structure.disc
    if disc is not None and disc.radius_arcsec * radius_scale < _TEXTURED_RADIUS_PX:
        radius = disc.radius_arcsec * radius_scale
        parts.append((disc.fraction, _profile(disc, radius, position_angle)))
    return parts


def _textured_disc(
    structure: Structure,
    disc: Component,
    radius_scale: float,
    position_angle: float,
    shift: NDArray[np.float64],
    stamp_px: int,
    rng: np.random.Generator,
) -> Image:
    """Draw a disc on an odd, oversampled grid about the stamp's centre; it sums to its share of the flux."""
    radius = disc.radius_arcsec * radius_scale
    half = OVERSAMPLING * int(min(np.ceil(_DISC_EXTENT * radius), stamp_px // 2 - 2))
    image = galsim.ImageF(2 * half + 1, 2 * half + 1, scale=1 / OVERSAMPLING)
    profile = _profile(disc, radius, position_angle)
    profile.shift(float(shift[1]), float(shift[0])).drawImage(image, method="sb")
    steps = np.arange(-half, half + 1, dtype=np.float32)
    offset_y = (steps - np.float32(OVERSAMPLING * shift[0]))[:, None]
    offset_x = (steps - np.float32(OVERSAMPLING * shift[1]))[None, :]
    frame = disc_frame(offset_y, offset_x, OVERSAMPLING * radius, disc.q, position_angle)
    light = image.array * _modulation(structure, frame, rng)
    share = min(float(rng.gamma(2.0, 0.14 if structure.kind == "irr" else 0.045)), 0.6)
    clumps = draw_clumps(structure.kind, share, OVERSAMPLING * radius, disc.q, position_angle, rng)
    light *= np.float32((1 - clumps.flux.sum()) / light.sum())
    light += clumps.paint(offset_y, offset_x)
    return np.asarray(light * np.float32(disc.fraction / light.sum()), np.float32)


def _modulation(structure: Structure, frame: DiscFrame, rng: np.random.Generator) -> Image:
    irregular = structure.kind == "irr"
    lopsided = min(abs(float(rng.normal(0, 0.35 if irregular else 0.12))), 0.9)
    factor = lopsidedness(frame, lopsided, rng)
    contrast = rng.uniform(0.3, 1.0) if irregular else rng.uniform(0.1, 0.6)
    factor *= patches(frame, float(contrast), rng)
    if not irregular and rng.random() < 0.7:
        factor *= spiral_arms(frame, float(rng.uniform(0.1, 0.8)), rng)
    return factor
