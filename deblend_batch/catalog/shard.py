"""A shard: the catalogue rows of one tile, as Parquet bytes that depend on the rows alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.schema import shard_schema
from deblend_batch.field.healpix import healpix_29
from deblend_batch.field.photometry import magnitude, magnitude_error, nanojansky_per_unit
from deblend_batch.tiling.pairs import Pairs


@dataclass(frozen=True)
class Measurement:
    """What the model said of the pairs of a tile.

    Parameters
    ----------
    flux, flux_err : ndarray of float32, shape (n, band, 2)
        Of [central, companion], image units.
    mask_area, mask_overlap : ndarray of float32, shape (n, 2)
        Square pixels; NaN for models without masks.
    flags : ndarray of int32, shape (n, 2)
        Flags from the stamps and the model.
    """

    flux: NDArray[np.float32]
    flux_err: NDArray[np.float32]
    mask_area: NDArray[np.float32]
    mask_overlap: NDArray[np.float32]
    flags: NDArray[np.int32]


def make_rows(
    tile: str,
    pairs: Pairs,
    measured: Measurement,
    bands: Sequence[str],
    zero_points: Sequence[float],
) -> pa.Table:
    """Make catalogue rows, two a pair (central, then companion), by blend id.

    Parameters
    ----------
    tile : str
        The tile's name.
    pairs : Pairs
        Its pairs, sorted by blend id.
    measured : Measurement
        In the same order.
    bands : sequence of str
        Names of the bands.
    zero_points : sequence of float
        AB magnitude of one image unit, per band.
    """
    n = len(pairs)
    ra, dec = pairs.radec[..., 0].ravel(), pairs.radec[..., 1].ravel()
    factor = nanojansky_per_unit(np.asarray(zero_points, np.float64))
    flux = (measured.flux * factor[None, :, None]).astype(np.float32)
    flux_err = (measured.flux_err * factor[None, :, None]).astype(np.float32)
    columns: dict[str, object] = {
        "blend_id": np.repeat(pairs.blend_id, 2),
        "source_id": pairs.source_id.ravel(),
        "neighbour_id": pairs.source_id[:, ::-1].ravel(),
        "role": pa.array(["central", "companion"] * n, pa.string()),
        "is_primary": pairs.is_primary.ravel(),
        "ra": ra,
        "dec": dec,
        "x": pairs.yx[..., 1].ravel(),
        "y": pairs.yx[..., 0].ravel(),
        "separation": np.repeat(pairs.separation_arcsec, 2).astype(np.float32),
        "mask_area": measured.mask_area.ravel(),
        "mask_overlap": measured.mask_overlap.ravel(),
        "flags": _with_flux_flags(measured).ravel(),
        "tile": pa.array([tile] * (2 * n), pa.string()),
        "_healpix_29": healpix_29(ra, dec),
    }
    for number, band in enumerate(bands):
        of_band, err = flux[:, number].ravel(), flux_err[:, number].ravel()
        columns[f"flux_{band}"], columns[f"flux_err_{band}"] = of_band, err
        columns[f"mag_{band}"] = magnitude(of_band).astype(np.float32)
        columns[f"mag_err_{band}"] = magnitude_error(of_band, err).astype(np.float32)
    schema = shard_schema(bands)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _with_flux_flags(measured: Measurement) -> NDArray[np.int32]:
    with np.errstate(invalid="ignore"):
        negative = (measured.flux <= 0).any(axis=1)
    # A companion outside the stamp has no flux for another reason, which has its own flag.
    outside = (measured.flags & flags.COMPANION_OUTSIDE.value) != 0
    missing = ~np.isfinite(measured.flux).all(axis=1) & ~outside
    bits = measured.flags.copy()
    bits[negative] |= flags.NOT_POSITIVE.value
    bits[missing] |= flags.NO_DATA.value
    return bits


def encode(rows: pa.Table) -> bytes:
    """Encode rows as Parquet; the same rows give the same bytes.

    Returns
    -------
    bytes
        A whole Parquet file.
    """
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", row_group_size=1 << 20)
    return sink.getvalue()
