"""The catalogue's columns: types, units, UCDs and descriptions, as Arrow field metadata."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from deblend_batch.errors import FieldError


def _column(name: str, kind: pa.DataType, description: str, ucd: str, unit: str = "") -> pa.Field:
    metadata = {"description": description, "ucd": ucd}
    if unit:
        metadata["unit"] = unit
    return pa.field(name, kind, nullable=False, metadata=metadata)


def shard_schema(bands: Sequence[str]) -> pa.Schema:
    """Return the schema of a shard.

    Parameters
    ----------
    bands : sequence of str
        Names of the field's bands; each adds a flux, a magnitude and their errors.

    Returns
    -------
    pyarrow.Schema
        One row is one member of one pair. Field metadata carries ``unit`` (VOUnit), ``ucd`` (UCD1+) and
        ``description``.
    """
    fluxes = [column for band in bands for column in _band_columns(band)]
    return pa.schema(
        [
            _column("blend_id", pa.int64(), "stable hash of the member ids", "meta.id.assoc"),
            _column("source_id", pa.int64(), "detection id", "meta.id;meta.main"),
            _column(
                "neighbour_id", pa.int64(), "detection id of the other member", "meta.id.assoc"
            ),
            _column("role", pa.string(), "central or companion", "meta.code"),
            _column("is_primary", pa.bool_(), "the one row of this source to use", "meta.code"),
            _column("ra", pa.float64(), "right ascension, ICRS", "pos.eq.ra;meta.main", "deg"),
            _column("dec", pa.float64(), "declination, ICRS", "pos.eq.dec;meta.main", "deg"),
            _column("x", pa.float64(), "column in the image, 0-based", "pos.cartesian.x", "pixel"),
            _column("y", pa.float64(), "row in the image, 0-based", "pos.cartesian.y", "pixel"),
            _column(
                "separation",
                pa.float32(),
                "distance to the other member",
                "pos.angDistance",
                "arcsec",
            ),
            *fluxes,
            _column("mask_area", pa.float32(), "area of this member's mask", "phys.area", "pixel2"),
            _column(
                "mask_overlap",
                pa.float32(),
                "area shared with the other member",
                "phys.area",
                "pixel2",
            ),
            _column("flags", pa.int32(), "quality bits, see docs/flags.md", "meta.code.qual"),
            _column("tile", pa.string(), "tile that holds the central", "meta.id"),
            _column("_healpix_29", pa.int64(), "nested HEALPix index, order 29", "pos.healpix"),
        ]
    )


def check_bands(bands: Sequence[str], where: str) -> None:
    """Refuse bands whose names give two columns of the catalogue one name."""
    owner: dict[str, str] = {}
    for band in bands:
        for column in _band_columns(band):
            if column.name in owner:
                raise FieldError(
                    f"{where}: attribute 'bands': {owner[column.name]!r} and {band!r} both make the "
                    f"catalogue's column {column.name!r}; rename one of them"
                )
            owner[column.name] = band


def _band_columns(band: str) -> list[pa.Field]:
    return [
        _column(f"flux_{band}", pa.float32(), f"total flux in {band}", "phot.flux", "nJy"),
        _column(
            f"flux_err_{band}",
            pa.float32(),
            f"one-sigma uncertainty of the flux in {band}",
            "stat.error;phot.flux",
            "nJy",
        ),
        _column(f"mag_{band}", pa.float32(), f"AB magnitude in {band}", "phot.mag", "mag"),
        _column(
            f"mag_err_{band}",
            pa.float32(),
            f"one-sigma uncertainty of the magnitude in {band}",
            "stat.error;phot.mag",
            "mag",
        ),
    ]


def bands_of(schema: pa.Schema) -> list[str]:
    """Return the bands of a shard's schema, in order."""
    names = set(schema.names)
    found = [name.removeprefix("flux_") for name in schema.names if name.startswith("flux_")]
    return [band for band in found if f"flux_err_{band}" in names]
