"""Other ways to the two fluxes of a pair, for comparison on the same stamps.

The seed work's recipe and the fair one detect objects by themselves; the naive split is told the
two positions; the true profiles are told everything but the two fluxes, and so mark what no method
can beat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray

from deblend_batch.evaluation.methods.matching import match_limit_px, match_members

Floats = NDArray[np.floating[Any]]

SEED_FLUX_SCALE = 10 ** (0.4 * (25.96 - 25.67))
"""The seed work gave SExtractor's isophotal fluxes the zero point 25.67 where that of the images is
25.96: a correction, on average, for the light outside the isophote."""

COLD = {"thresh": 5.0, "minarea": 10, "deblend_nthresh": 64, "deblend_cont": 0.01}
HOT = {"thresh": 4.0, "minarea": 6, "deblend_nthresh": 64, "deblend_cont": 1e-4}
"""The seed work's two passes, as arguments of ``sep.extract``."""

# Of thresholds 1.5, 3, 5 and contrasts 5e-3, 1e-3, 1e-4 among the best in failures and flux error.
_FAIR = {"thresh": 3.0, "minarea": 6, "deblend_nthresh": 64, "deblend_cont": 1e-3}

_KRON_FACTOR, _KRON_LEAST = 2.5, 3.5
_KRON_REACH = 6.0

_CHUNK = 256


@dataclass(frozen=True)
class Photometry:
    """What a baseline made of stamps.

    Parameters
    ----------
    flux : ndarray of float64, shape (n, 2)
        Flux of [central, companion] in the stamps' unit; NaN where not detected.
    n_objects : ndarray of int64, shape (n,)
        Objects that were found in the stamp.
    """

    flux: NDArray[np.float64]
    n_objects: NDArray[np.int64]

    @property
    def detection(self) -> NDArray[np.int64]:
        """The seed work's flag: 0 only central found, 1 only companion, 2 both, 3 more, -1 none."""
        central, companion = np.isfinite(self.flux).T
        cases = [self.n_objects > 2, central & companion, companion, central]
        return np.select(cases, [3, 2, 1, 0], default=-1)


def seed_recipe(stamps: Floats, member_yx: Floats) -> Photometry:
    """Measure as the seed work did: SExtractor's isophotal fluxes, in a cold and a hot pass.

    The background is estimated but not subtracted; its rms sets the threshold. Where the cold pass
    finds fewer than two objects the hot one replaces it. The object nearest to the central's
    position is the central, the brightest other the companion; a lone object is the nearer member.

    Parameters
    ----------
    stamps : ndarray of float, shape (n, y, x)
        Images.
    member_yx : ndarray of float, shape (n, 2, 2)
        True positions, (pair, member, (y, x)), px.
    """
    found = [_seed_stamp(s, yx) for s, yx in zip(_native(stamps), member_yx, strict=True)]
    return _collect(found)


def _seed_stamp(stamp: Floats, member_yx: Floats) -> tuple[list[float], int]:
    rms = sep.Background(stamp).globalrms
    objects = sep.extract(stamp, err=rms, **COLD)
    if len(objects) < 2:
        objects = sep.extract(stamp, err=rms, **HOT)
    flux = np.full(2, np.nan)
    if len(objects) == 0:
        return flux.tolist(), 0
    distance = np.linalg.norm(_positions(objects)[None] - member_yx[:, None], axis=-1)
    if len(objects) == 1:
        flux[np.argmin(distance[:, 0])] = objects["flux"][0]
    else:
        central = int(np.argmin(distance[0]))
        flux[0] = objects["flux"][central]
        flux[1] = np.delete(objects["flux"], central).max()
    return (SEED_FLUX_SCALE * flux).tolist(), len(objects)


def fair_recipe(stamps: Floats, member_yx: Floats, radius_px: Floats) -> Photometry:
    """Measure with SExtractor's algorithms as a careful user would.

    The background is subtracted; fluxes are Kron's (``AUTO``), with pixels of other objects masked
    by the segmentation map; objects are matched to the true positions within 0.5 Re + 3 px.

    Parameters
    ----------
    stamps : ndarray of float, shape (n, y, x)
        Images.
    member_yx : ndarray of float, shape (n, 2, 2)
        True positions, (pair, member, (y, x)), px.
    radius_px : ndarray of float, shape (n, 2)
        True half-light radii, px.
    """
    rows = zip(_native(stamps), member_yx, match_limit_px(radius_px), strict=True)
    return _collect([_fair_stamp(*row) for row in rows])


def _fair_stamp(stamp: Floats, member_yx: Floats, limit_px: Floats) -> tuple[list[float], int]:
    background = sep.Background(stamp)
    data = stamp - background.back()
    objects, segments = sep.extract(data, err=background.globalrms, segmentation_map=True, **_FAIR)
    matched = match_members(_positions(objects), member_yx, limit_px)
    flux = np.append(_kron_flux(data, objects, segments), np.nan)
    return flux[matched].tolist(), len(objects)


def _kron_flux(data: Floats, objects: NDArray[Any], segments: NDArray[np.int32]) -> Floats:
    """Return AUTO fluxes, each with the other objects' pixels masked."""
    ellipse = [objects[name] for name in ("x", "y", "a", "b")]
    ellipse.append(np.clip(objects["theta"], -np.pi / 2, np.pi / 2))
    masked = {"seg_id": np.arange(1, len(objects) + 1, dtype=np.int32), "segmap": segments}
    radius, _ = sep.kron_radius(data, *ellipse, _KRON_REACH, **masked)
    scale = np.fmax(_KRON_FACTOR * radius, _KRON_LEAST)
    flux: Floats = sep.sum_ellipse(data, *ellipse, scale, **masked)[0]
    return flux


def nearest_split(
    stamps: Floats, member_yx: Floats, neighbours_yx: Floats | None = None
) -> Photometry:
    """Divide a stamp's flux by which position each pixel is nearest to.

    Parameters
    ----------
    stamps : ndarray of float, shape (n, y, x)
        Background-subtracted images.
    member_yx : ndarray of float, shape (n, 2, 2)
        True positions, (pair, member, (y, x)), px.
    neighbours_yx : ndarray of float, shape (n, k, 2), optional
        Positions of other sources, NaN-padded: pixels nearest to one of them are nobody's.
    """
    positions = np.asarray(member_yx, np.float64)
    if neighbours_yx is not None:
        positions = np.concatenate([positions, neighbours_yx], axis=1)
    flux = np.concatenate([_split(stamps[rows], positions[rows]) for rows in _chunks(len(stamps))])
    return Photometry(flux, np.full(len(stamps), 2))


def _split(stamps: Floats, positions: Floats) -> NDArray[np.float64]:
    y, x = np.ogrid[: stamps.shape[1], : stamps.shape[2]]
    nearest = np.zeros(stamps.shape, np.intp)
    least = np.full(stamps.shape, np.inf)
    for k in range(positions.shape[1]):
        yx = positions[:, k, :, None, None]
        distance = (y - yx[:, 0]) ** 2 + (x - yx[:, 1]) ** 2
        closer = distance < least  # never for NaN
        nearest[closer], least[closer] = k, distance[closer]
    members = [np.where(nearest == k, stamps, 0).sum(axis=(1, 2), dtype=np.float64) for k in (0, 1)]
    return np.stack(members, axis=1)


def true_profiles(stamps: Floats, truth: Floats, true_flux: Floats) -> Photometry:
    """Fit the true noise-free images by least squares: the limit, not a method.

    Parameters
    ----------
    stamps : ndarray of float, shape (n, y, x)
        Images with uniform noise.
    truth : ndarray of float, shape (n, 2, y, x)
        Noise-free images of [central, companion].
    true_flux : ndarray of float, shape (n, 2)
        Their total fluxes, of which some may lie outside the stamp.

    Returns
    -------
    Photometry
        Fitted amplitudes times the true fluxes.
    """
    parts = []
    for rows in _chunks(len(stamps)):
        images = truth[rows].reshape(truth[rows].shape[0], 2, -1).astype(np.float64)
        normal = images @ images.transpose(0, 2, 1)
        data = images @ stamps[rows].reshape(len(images), -1, 1).astype(np.float64)
        parts.append((np.linalg.pinv(normal) @ data)[..., 0])
    return Photometry(np.concatenate(parts) * true_flux, np.full(len(stamps), 2))


def _native(stamps: Floats) -> Iterator[Floats]:
    """Yield stamps as sep needs them: contiguous, in the byte order of the machine."""
    for stamp in stamps:
        yield np.ascontiguousarray(stamp, np.float32)


def _positions(objects: NDArray[Any]) -> Floats:
    return np.stack([objects["y"], objects["x"]], axis=-1)


def _collect(found: list[tuple[list[float], int]]) -> Photometry:
    flux = np.array([pair for pair, _ in found], np.float64).reshape(-1, 2)
    return Photometry(flux, np.array([number for _, number in found], np.int64))


def _chunks(n: int) -> Iterator[slice]:
    """Yield slices over ``n`` rows; one empty slice for none."""
    for start in range(0, max(n, 1), _CHUNK):
        yield slice(start, start + _CHUNK)
