"""Tables of a simulated field: the sources as they are, and as a detector would list them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.field.layout import Field
from deblend_batch.simulate.galaxies.population import KINDS
from deblend_batch.simulate.pairs.rules import centroid_sigma, signal_to_noise
from deblend_batch.simulate.presets import Preset

Floats = NDArray[np.float64]

_MAG_ERROR_FLOOR = 0.03
_RADIUS_ERROR = 0.05
_NO_COMPANION = 0


@dataclass(frozen=True)
class FieldTruth:
    """What was simulated, and where it is.

    Parameters
    ----------
    field_url : str
        The field.
    truth_url : str
        Parquet table of all sources as they are.
    detections_url : str
        Parquet table of all sources as a detector would list them.
    n_sources : int
        Number of rows of both tables.
    n_pairs, n_isolated, n_groups : int
        Number of systems.
    """

    field_url: str
    truth_url: str
    detections_url: str
    n_sources: int
    n_pairs: int
    n_isolated: int
    n_groups: int


@dataclass(frozen=True)
class Sources:
    """All sources of a field, as they are.

    Parameters
    ----------
    id, system, companion : numpy.ndarray
        int64 (n,); ``companion`` is 0 where the system is no pair.
    yx : numpy.ndarray
        float64 (n, 2), centroids, 0-based pixel centres.
    mag, radius_arcsec, axis_ratio : numpy.ndarray
        float64 (n,); the radius holds half the light, along the major axis, without PSF.
    kind : numpy.ndarray
        int64 (n,), index into ``KINDS``.
    """

    id: NDArray[np.int64]
    system: NDArray[np.int64]
    companion: NDArray[np.int64]
    yx: Floats
    mag: Floats
    radius_arcsec: Floats
    axis_ratio: Floats
    kind: NDArray[np.int64]


def truth_table(sources: Sources, field: Field) -> pa.Table:
    """Build the table of sources as they are."""
    sky = field.pixel_to_world(sources.yx)
    _, which, size = np.unique(sources.system, return_inverse=True, return_counts=True)
    return _table(
        {
            "id": (sources.id, ""),
            "ra": (sky[:, 0], "deg"),
            "dec": (sky[:, 1], "deg"),
            "x": (sources.yx[:, 1], "pixel"),
            "y": (sources.yx[:, 0], "pixel"),
            "mag": (sources.mag, "mag"),
            "flux_njy": (10 ** (-0.4 * (sources.mag - 31.4)), "nJy"),
            "radius": (sources.radius_arcsec, "arcsec"),
            "axis_ratio": (sources.axis_ratio, ""),
            "type": (np.array(KINDS)[sources.kind], ""),
            "group": (sources.system, ""),
            "group_size": (size[which], ""),
            "companion_id": (
                pa.array(sources.companion, mask=sources.companion == _NO_COMPANION),
                "",
            ),
        }
    )


def detections_table(sources: Sources, field: Field, preset: Preset, seed: int) -> pa.Table:
    """Build the table of sources as a detector would list them: with errors of position, magnitude and size.

    Returns
    -------
    pyarrow.Table
        ``id``, ``ra``, ``dec``, ``mag``, ``radius`` (circular half-light radius with the PSF).
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(15,)))
    flux = 10 ** (-0.4 * (sources.mag - preset.zero_point))
    scale, fwhm_px = preset.pixel_scale_arcsec, np.array(preset.psf_fwhm_px)
    known = (flux, sources.radius_arcsec / scale, fwhm_px, np.array(preset.noise_sigma))
    yx = sources.yx + centroid_sigma(*known)[:, None] * rng.standard_normal(sources.yx.shape)
    sky = field.pixel_to_world(yx)
    mag_error = np.hypot(_MAG_ERROR_FLOOR, 1.086 / signal_to_noise(*known))
    mag = sources.mag + mag_error * rng.standard_normal(flux.size)
    observed = np.hypot(
        sources.radius_arcsec * np.sqrt(sources.axis_ratio), 0.5 * preset.psf.fwhm_arcsec
    )
    radius = observed * np.exp(_RADIUS_ERROR * rng.standard_normal(flux.size))
    return _table(
        {
            "id": (sources.id, ""),
            "ra": (sky[:, 0], "deg"),
            "dec": (sky[:, 1], "deg"),
            "mag": (mag.astype(np.float32), "mag"),
            "radius": (radius.astype(np.float32), "arcsec"),
        }
    )


def write_table(url: str, table: pa.Table, options: storage.Options | None = None) -> None:
    """Write a Parquet file, whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=100_000)
    storage.write_bytes(url, buffer.getvalue(), options)


def _table(columns: dict[str, tuple[Any, str]]) -> pa.Table:
    arrays = [
        pa.array(values) if isinstance(values, np.ndarray) else values
        for values, _ in columns.values()
    ]
    schema = [
        pa.field(name, array.type, metadata={"unit": unit} if unit else None)
        for (name, (_, unit)), array in zip(columns.items(), arrays, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(schema))
