"""The catalogue's columns: types, units, UCDs and descriptions, as Arrow field metadata."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from deblend_batch.errors import FieldError

_ORIGIN = b"origin"


def _column(name: str, kind: pa.DataType, description: str, ucd: str, unit: str = "") -> pa.Field:
    metadata = {"description": description, "ucd": ucd}
    if unit:
        metadata["unit"] = unit
    return pa.field(name, kind, nullable=False, metadata=metadata)


def shard_schema(bands: Sequence[str], *, fitted: bool = False) -> pa.Schema:
    """Return the schema of a shard.

    Parameters
    ----------
    bands : sequence of str
        Names of the field's bands; each adds a flux, a magnitude and their errors.
    fitted : bool
        Whether the rows are those of a fit, which says more of a source than a network does.

    Returns
    -------
    pyarrow.Schema
        One row is one source in one blend. Field metadata carries ``unit`` (VOUnit), ``ucd`` (UCD1+) and
        ``description``.
    """
    fluxes = [column for band in bands for column in _band_columns(band)]
    more = [*_SHAPES, *(column for band in bands for column in _fit_columns(band))]
    return pa.schema([*_PLACES, *fluxes, *_QUALITY, *(more if fitted else [])])


def carried_field(column: pa.Field) -> pa.Field:
    """Say of a column of the detections where it comes from; its unit, and what else the table said, stay."""
    said = {b"description": b"as in the detection table"}
    metadata = {**said, **(column.metadata or {}), _ORIGIN: b"detections"}
    return column.with_nullable(True).with_metadata(metadata)


def is_carried(column: pa.Field) -> bool:
    """Tell whether a column of the catalogue comes from the detection table."""
    return _ORIGIN in (column.metadata or {})


def is_fitted(schema: pa.Schema) -> bool:
    """Tell whether a shard's rows are those of a fit."""
    return "n_members" in schema.names


_PLACES = [
    _column("blend_id", pa.int64(), "stable hash of the member ids", "meta.id.assoc"),
    _column("source_id", pa.int64(), "detection id", "meta.id;meta.main"),
    _column("neighbour_id", pa.int64(), "detection id of the other member", "meta.id.assoc"),
    _column("role", pa.string(), "central or companion", "meta.code"),
    _column("is_primary", pa.bool_(), "the one row of this source to use", "meta.code"),
    _column("ra", pa.float64(), "right ascension, ICRS", "pos.eq.ra;meta.main", "deg"),
    _column("dec", pa.float64(), "declination, ICRS", "pos.eq.dec;meta.main", "deg"),
    _column("x", pa.float64(), "column in the image, 0-based", "pos.cartesian.x", "pixel"),
    _column("y", pa.float64(), "row in the image, 0-based", "pos.cartesian.y", "pixel"),
    _column(
        "separation", pa.float32(), "distance to the other member", "pos.angDistance", "arcsec"
    ),
]
_QUALITY = [
    _column("mask_area", pa.float32(), "area of this member's mask", "phys.area", "pixel2"),
    _column(
        "mask_overlap", pa.float32(), "area shared with the other member", "phys.area", "pixel2"
    ),
    _column("flags", pa.int32(), "quality bits, see docs/flags.md", "meta.code.qual"),
    _column("tile", pa.string(), "tile that holds the central", "meta.id"),
    _column("_healpix_29", pa.int64(), "nested HEALPix index, order 29", "pos.healpix"),
]


def _pair(name: str, description: str, ucd: str, unit: str = "") -> list[pa.Field]:
    """Return the columns of a quantity and of its error."""
    return [
        _column(name, pa.float32(), description, ucd, unit),
        _column(
            f"{name}_err",
            pa.float32(),
            f"one-sigma uncertainty of {name}",
            f"stat.error;{ucd}",
            unit,
        ),
    ]


_SHAPES = [
    _column("method", pa.string(), "what measured this row", "meta.code"),
    _column("n_members", pa.int16(), "sources fitted together", "meta.number"),
    _column(
        "x_err", pa.float32(), "one-sigma uncertainty of x", "stat.error;pos.cartesian.x", "pixel"
    ),
    _column(
        "y_err", pa.float32(), "one-sigma uncertainty of y", "stat.error;pos.cartesian.y", "pixel"
    ),
    _column(
        "is_star", pa.bool_(), "a point source explains the light better", "src.class.starGalaxy"
    ),
    *_pair("radius", "half-light radius, circularised; 0 for stars", "phys.angSize", "arcsec"),
    *_pair("sersic_n", "Sersic index; NaN for stars", "src.morph.param"),
    *_pair("axis_ratio", "minor over major axis; NaN for stars", "src.morph.param"),
    *_pair("position_angle", "of the major axis, north through east", "pos.posAng", "deg"),
]


def _fit_columns(band: str) -> list[pa.Field]:
    return [
        _column(
            f"flux_corr_{band}",
            pa.float32(),
            f"correlation of the errors of this flux and the neighbour's in {band}",
            "stat.correlation;phot.flux",
        ),
        _column(
            f"blendedness_{band}",
            pa.float32(),
            f"share of the light within its own profile in {band} that is others'",
            "stat.fit.param",
        ),
        _column(f"chi2_{band}", pa.float32(), f"chi2 per pixel in {band}", "stat.fit.chi2"),
        _column(
            f"sky_{band}",
            pa.float32(),
            f"fitted background per pixel in {band}",
            "instr.skyLevel",
            "nJy",
        ),
        _column(
            f"sky_err_{band}",
            pa.float32(),
            f"one-sigma uncertainty of the background in {band}",
            "stat.error;instr.skyLevel",
            "nJy",
        ),
        _column(
            f"flags_{band}",
            pa.int32(),
            f"quality bits of {band} alone, see docs/flags.md",
            "meta.code.qual",
        ),
    ]


def check_bands(bands: Sequence[str], where: str) -> None:
    """Refuse bands whose names give two columns of the catalogue one name."""
    owner: dict[str, str] = {}
    for band in bands:
        for column in (*_band_columns(band), *_fit_columns(band)):
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
    names = [column.name for column in schema if not is_carried(column)]
    found = [name.removeprefix("flux_") for name in names if name.startswith("flux_")]
    return [band for band in found if f"flux_err_{band}" in names]
