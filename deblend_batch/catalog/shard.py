"""A shard: the catalogue rows of one tile, as Parquet bytes that depend on the rows alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.schema import carried_field, shard_schema
from deblend_batch.field.healpix import healpix_29
from deblend_batch.field.meta import FieldMeta
from deblend_batch.field.photometry import magnitude, magnitude_error, nanojansky_per_unit
from deblend_batch.tiling.blends import Blends

NO_NEIGHBOUR = -1
"""``neighbour_id`` of a source that is fitted alone."""
_SHAPES = ("sersic_n", "axis_ratio", "position_angle")


Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Measurement:
    """What a model said of the blends of a tile.

    Parameters
    ----------
    columns : mapping of str to ndarray
        By name, the first axis counting blends. All models: ``flux``, ``flux_err``, float32 (n, band, m) in
        image units; ``mask_area``, ``mask_overlap``, float (n, m), square pixels, NaN for models without
        masks; ``flags``, int32 (n, m), from the stamps and the model. A fit, also: ``x``, ``y``, ``ra``,
        ``dec`` (n, m), refined; ``x_err``, ``y_err``, ``radius_px``, ``sersic_n``, ``axis_ratio``,
        ``position_angle`` and their errors, ``is_star`` (n, m); ``flux_corr``, ``blendedness``, ``chi2``,
        ``sky``, ``sky_err``, ``band_flags`` (n, band, m).
    """

    columns: Columns

    @property
    def is_fitted(self) -> bool:
        """Whether it is that of a fit."""
        return "band_flags" in self.columns

    def take(self, rows: NDArray[np.int64]) -> Measurement:
        """Return that of some blends, in the order asked for."""
        return Measurement({name: values[rows] for name, values in self.columns.items()})


def make_rows(
    tile: str,
    blends: Blends,
    measured: Measurement,
    meta: FieldMeta,
    method: str,
    pixel_scale_arcsec: float = np.nan,
    carried: pa.Table | None = None,
) -> pa.Table:
    """Make catalogue rows, one for each member that is measured, central first, by blend id.

    Parameters
    ----------
    tile : str
        The tile's name.
    blends : Blends
        Its blends, sorted by blend id.
    measured : Measurement
        In the same order.
    meta : FieldMeta
        The field's bands and their zero points.
    method : str
        Name of the model.
    pixel_scale_arcsec : float
        Edge of a pixel; of use for a fit.
    carried : pyarrow.Table, optional
        Columns of the detection table, for the same rows.
    """
    rows = blends.is_measured
    columns = _given_columns(tile, blends)
    columns |= {
        "mask_area": measured.columns["mask_area"][rows],
        "mask_overlap": measured.columns["mask_overlap"][rows],
        "flags": _with_flux_flags(measured)[rows],
    }
    bands = _Bands(meta, rows)
    for name in ("flux", "flux_err"):
        columns |= bands.split(name, measured.columns[name], in_njy=True)
    for band in meta.bands:
        flux, err = columns[f"flux_{band}"], columns[f"flux_err_{band}"]
        columns[f"mag_{band}"] = magnitude(flux).astype(np.float32)
        columns[f"mag_err_{band}"] = magnitude_error(flux, err).astype(np.float32)
    if measured.is_fitted:
        columns |= _fit_columns(blends, measured.columns, bands, method, pixel_scale_arcsec)
    columns["_healpix_29"] = healpix_29(columns["ra"], columns["dec"])
    schema = shard_schema(meta.bands, fitted=measured.is_fitted)
    made = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    if carried is not None:
        for field in carried.schema:
            made = made.append_column(carried_field(field), carried[field.name])
    return made


def _given_columns(tile: str, blends: Blends) -> dict[str, Any]:
    """Columns that do not depend on the model, as far as it does not refine them."""
    rows = blends.is_measured
    place = np.maximum(blends.neighbour, 0).astype(np.int64)
    neighbour_id = np.take_along_axis(blends.source_id, place, axis=1)
    central = np.broadcast_to(np.arange(blends.width) == 0, rows.shape)
    return {
        "blend_id": np.broadcast_to(blends.blend_id[:, None], rows.shape)[rows],
        "source_id": blends.source_id[rows],
        "neighbour_id": np.where(blends.neighbour >= 0, neighbour_id, NO_NEIGHBOUR)[rows],
        "role": pa.array(np.where(central, "central", "companion")[rows], pa.string()),
        "is_primary": blends.is_primary[rows],
        "ra": blends.radec[..., 0][rows],
        "dec": blends.radec[..., 1][rows],
        "x": blends.yx[..., 1][rows],
        "y": blends.yx[..., 0][rows],
        "separation": blends.separation_arcsec[rows].astype(np.float32),
        "tile": pa.array([tile] * int(rows.sum()), pa.string()),
    }


@dataclass(frozen=True)
class _Bands:
    """Divides columns of bands and members into one a band, of the rows of the catalogue."""

    meta: FieldMeta
    rows: NDArray[np.bool_]

    def split(
        self, name: str, values: NDArray[Any], *, in_njy: bool = False
    ) -> dict[str, NDArray[Any]]:
        """Return the column of each band; float64 factors, then float32."""
        if in_njy:
            factor = nanojansky_per_unit(np.asarray(self.meta.zero_point, np.float64))
            values = (values * factor[None, :, None]).astype(np.float32)
        return {
            f"{name}_{band}": values[:, number][self.rows]
            for number, band in enumerate(self.meta.bands)
        }


def _fit_columns(
    blends: Blends, found: Columns, bands: _Bands, method: str, pixel_scale_arcsec: float
) -> dict[str, Any]:
    rows = blends.is_measured
    columns: dict[str, Any] = {
        "method": pa.array([method] * int(rows.sum()), pa.string()),
        "n_members": np.broadcast_to(blends.n_members[:, None], rows.shape)[rows],
    }
    for name in ("x", "y", "ra", "dec", "is_star"):
        columns[name] = found[name][rows]
    for name in ("x_err", "y_err", *_SHAPES, *(f"{shape}_err" for shape in _SHAPES)):
        columns[name] = found[name][rows].astype(np.float32)
    for end in ("", "_err"):
        radius = found[f"radius{end}_px"][rows] * pixel_scale_arcsec
        columns[f"radius{end}"] = radius.astype(np.float32)
        columns |= bands.split(f"sky{end}", found[f"sky{end}"], in_njy=True)
    for name in ("flux_corr", "blendedness", "chi2"):
        columns |= bands.split(name, found[name])
    return columns | bands.split("flags", found["band_flags"])


def _with_flux_flags(measured: Measurement) -> NDArray[np.int32]:
    flux, bits = measured.columns["flux"], measured.columns["flags"].copy()
    with np.errstate(invalid="ignore"):
        negative = (flux <= 0).any(axis=1)
    # A companion outside the stamp has no flux for another reason, which has its own flag.
    outside = (bits & flags.COMPANION_OUTSIDE.value) != 0
    missing = ~np.isfinite(flux).all(axis=1) & ~outside
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
