"""Pairs on disk: a Zarr group that training elsewhere, or an evaluation, can read without this package.

The group is made in three steps (:func:`create_pairs`, :func:`write_range`, :func:`finish_pairs`), so that
ranges of pairs can be written by many tasks; :func:`write_pairs` does all three.

Every array's first axis is the pair; each has the attributes ``unit`` and ``description``, and those of the
group say how the pairs were made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from deblend_batch.cluster.workers import ALONE, Workers, shared_url
from deblend_batch.errors import ConfigError
from deblend_batch.progress import Progress, silent
from deblend_batch.simulate import groups
from deblend_batch.simulate.galaxies.population import KINDS
from deblend_batch.simulate.pairs.batch import Encoding, PairBatch
from deblend_batch.simulate.pairs.blending import PairSampler
from deblend_batch.simulate.pairs.plan import BLOCK
from deblend_batch.simulate.presets import Preset, get_preset
from deblend_batch.storage import Options

MARKER = "deblend_batch_pairs"
_REMEDY = "make one with 'deblend-batch simulate pairs'"
RANGE = 8 * BLOCK
"""Pairs that are written at a time: the chunk of the narrow arrays, so that no two ranges share one."""
_CHANNELS: dict[Encoding, tuple[str, ...]] = {
    "gg": ("central", "companion"),
    "ogg": ("overlap", "central", "companion"),
    "bogg": ("background", "overlap", "central_only", "companion_only"),
}
_ABOUT = {
    "stamps": ("image unit", "blends with noise (pair, y, x), cut around the detected central"),
    "truth": ("image unit", "each member alone, without noise (pair, member, y, x)"),
    "masks": (
        "",
        "segmentation of each member alone (pair, channel, y, x); see the attributes of the group",
    ),
    "flux": ("image unit", "true total flux (pair, member)"),
    "cramer_rao": ("image unit", "smallest possible one-sigma error of each flux (pair, member)"),
    "mag": ("mag", "true AB magnitude (pair, member)"),
    "central_yx": (
        "pixel",
        "detected position of the central, 0-based pixel centres (pair, (y, x))",
    ),
    "companion_yx": ("pixel", "detected position of the companion (pair, (y, x))"),
    "neighbours_yx": (
        "pixel",
        "detected positions of third galaxies, NaN where there is none (pair, k, (y, x))",
    ),
    "true_yx": ("pixel", "true positions (pair, member, (y, x))"),
    "offset_yx": (
        "pixel",
        "true position of the companion minus that of the central (pair, (y, x))",
    ),
    "sigma": ("image unit", "background rms per pixel (pair)"),
    "psf_fwhm_px": ("pixel", "full width at half maximum of the PSF (pair)"),
    "radius_px": ("pixel", "half-light radius along the major axis, before the PSF (pair, member)"),
    "kind": ("", "morphological type, index into the attribute 'kinds' (pair, member)"),
    "galaxy_id": ("", "identifier of the isolated galaxy (pair, member)"),
}
_BATCH = tuple(field.name for field in fields(PairBatch))


def create_pairs(
    url: str,
    sampler: PairSampler,
    n: int,
    *,
    encoding: Encoding = "ogg",
    threshold: float = 1.5,
    options: Options | None = None,
    overwrite: bool = False,
) -> zarr.Group:
    """Create the arrays of a set of pairs; it cannot be read before :func:`finish_pairs`.

    Parameters
    ----------
    url : str
        Where; local path or fsspec URL.
    sampler : PairSampler
        Gives the shapes and the description of the pairs.
    n : int
        Number of pairs.
    encoding : {"gg", "ogg", "bogg"}
        Channels of the masks; see :meth:`deblend_batch.simulate.pairs.batch.PairBatch.masks`.
    threshold : float
        Isophote of the masks in units of the background rms.
    options : mapping, optional
        fsspec storage options.
    overwrite : bool
        Replace a set that is there.

    Returns
    -------
    zarr.Group
        Writable.

    Raises
    ------
    ConfigError
        If ``n`` is not positive or the encoding is unknown.
    OutputConflictError
        If something is at ``url`` that must not be removed.
    """
    if n < 1:
        raise ConfigError(f"a set of {n} pairs is empty; ask for at least 1")
    if encoding not in _CHANNELS:
        raise ConfigError(
            f"mask encoding {encoding!r} is unknown; use one of {', '.join(_CHANNELS)}"
        )
    description = _description(sampler, n, encoding, threshold)
    group = groups.create_group(url, MARKER, description, options, overwrite=overwrite)
    for name, array in _columns(sampler.draw_range(0, 1), encoding, threshold).items():
        unit, about = _ABOUT[name]
        group.create_array(
            name,
            shape=(n, *array.shape[1:]),
            dtype=array.dtype,
            chunks=(min(BLOCK if array.ndim > 2 else RANGE, n), *array.shape[1:]),
            attributes={"unit": unit, "description": about},
        )
    return group


def write_range(group: zarr.Group, sampler: PairSampler, start: int, stop: int) -> None:
    """Draw pairs ``start`` to ``stop`` and write them; ranges from multiples of ``RANGE`` on may run at once.

    Parameters
    ----------
    group : zarr.Group
        As :func:`create_pairs` returned it.
    sampler : PairSampler
        The sampler that it was created for.
    start, stop : int
        Range of pairs.
    """
    encoding, threshold = (
        cast("Encoding", group.attrs["mask_encoding"]),
        float(cast("float", group.attrs["mask_threshold"])),
    )
    columns = _columns(sampler.draw_range(start, stop), encoding, threshold)
    for name, array in columns.items():
        group[name][start:stop] = array  # type: ignore[index]


def finish_pairs(group: zarr.Group) -> None:
    """Mark a set of pairs as complete; the last act of making it.

    Parameters
    ----------
    group : zarr.Group
        As :func:`create_pairs` returned it.
    """
    groups.finish_group(group, MARKER)


def write_pairs(
    url: str,
    sampler: PairSampler,
    n: int,
    *,
    encoding: Encoding = "ogg",
    threshold: float = 1.5,
    options: Options | None = None,
    overwrite: bool = False,
    workers: Workers = ALONE,
    progress: Progress = silent,
) -> None:
    """Draw the first ``n`` pairs of a sampler and write them.

    Parameters
    ----------
    url : str
        The Zarr group.
    sampler : PairSampler
        Draws the pairs.
    n : int
        How many.
    encoding, threshold, options, overwrite : optional
        As for :func:`create_pairs`.
    workers : Workers
        Who draws and writes; changes no result.
    progress : callable
        Told of the pairs written.

    Raises
    ------
    ConfigError
        As :func:`create_pairs`; also if several workers are to write to ``memory://``.
    OutputConflictError
        As :func:`create_pairs`.
    """
    if workers.at_once > 1:
        url = shared_url("data set", url)
    group = create_pairs(
        url,
        sampler,
        n,
        encoding=encoding,
        threshold=threshold,
        options=options,
        overwrite=overwrite,
    )
    ranges = [(start, min(start + RANGE, n)) for start in range(0, n, RANGE)]
    for (_, stop), _ in zip(ranges, workers.map(_write_task, ranges, group, sampler), strict=True):
        progress("pairs", stop, n)
    finish_pairs(group)


def check_free(
    url: str,
    options: Options | None = None,
    *,
    overwrite: bool = False,
    inputs: Iterable[str] = (),
) -> None:
    """Refuse a URL where :func:`create_pairs` would, or over ``inputs``: known before galaxies are drawn.

    Raises
    ------
    OutputConflictError
        If something is at ``url`` that must not be removed, or it is no place for a data set.
    """
    groups.check_free(url, MARKER, options, overwrite=overwrite, inputs=inputs)


def _write_task(task: tuple[int, int], group: zarr.Group, sampler: PairSampler) -> None:
    write_range(group, sampler, *task)


def read_pairs(
    url: str, start: int = 0, stop: int | None = None, options: Options | None = None
) -> PairBatch:
    """Read pairs that :func:`write_pairs` wrote; shorthand for :meth:`PairSet.batch`.

    Parameters
    ----------
    url : str
        The Zarr group.
    start, stop : int, optional
        Range of pairs; to the end if ``stop`` is None.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    PairBatch
        The pairs.
    """
    return PairSet(url, options).batch(start, stop)


class PairSet:
    """A set of pairs on disk.

    Parameters
    ----------
    url : str
        The Zarr group.
    options : mapping, optional
        fsspec storage options.

    Raises
    ------
    NotFoundError
        If there is no Zarr group at ``url``.
    ConfigError
        If it is not a complete set of pairs.
    """

    def __init__(self, url: str, options: Options | None = None) -> None:
        self.url = url
        self._group = groups.open_group(url, MARKER, "set of pairs", _REMEDY, options)

    def __len__(self) -> int:
        return int(self._array("sigma").shape[0])

    @cached_property
    def preset(self) -> Preset:
        """The survey that the pairs imitate."""
        return get_preset(str(self._group.attrs["preset"]))

    @property
    def description(self) -> dict[str, Any]:
        """All attributes: seed, split, rules, zero point, pixel scale, encoding of the masks."""
        return dict(self._group.attrs)

    def batch(self, start: int = 0, stop: int | None = None) -> PairBatch:
        """Read a range of pairs into memory.

        Parameters
        ----------
        start, stop : int, optional
            The range; to the end if ``stop`` is None.

        Returns
        -------
        PairBatch
            The pairs.
        """
        return PairBatch(**{name: self._array(name)[start:stop] for name in _BATCH})

    def masks(self, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Read the masks of a range of pairs.

        Parameters
        ----------
        start, stop : int, optional
            The range; to the end if ``stop`` is None.

        Returns
        -------
        ndarray of bool, shape (n, channel, y, x)
            In the set's encoding.
        """
        return np.asarray(self._array("masks")[start:stop], np.bool_)

    def _array(self, name: str) -> Any:
        return groups.open_array(self._group, self.url, name, _REMEDY)


def _columns(batch: PairBatch, encoding: Encoding, threshold: float) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {name: getattr(batch, name) for name in _BATCH}
    columns["offset_yx"] = batch.true_yx[:, 1] - batch.true_yx[:, 0]
    columns["cramer_rao"] = batch.cramer_rao()
    columns["masks"] = batch.masks(threshold, encoding=encoding).astype(np.uint8)
    return columns


def _description(
    sampler: PairSampler, n: int, encoding: Encoding, threshold: float
) -> dict[str, Any]:
    preset = get_preset(sampler.pool.preset)
    return {
        "n_pairs": n,
        "preset": preset.name,
        "source": preset.source,
        "zero_point": preset.zero_point,
        "pixel_scale_arcsec": preset.pixel_scale_arcsec,
        "image_unit": f"flux of AB magnitude {preset.zero_point}",
        "kinds": list(KINDS),
        "mask_encoding": encoding,
        "mask_channels": list(_CHANNELS[encoding]),
        "mask_threshold": threshold,
        "seed": sampler.seed,
        "split": sampler.split,
        "rules": {
            key: list(v) if isinstance(v, tuple) else v for key, v in asdict(sampler.rules).items()
        },
    }
