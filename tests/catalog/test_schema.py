"""The catalogue's columns say what they hold, in the vocabularies of the Virtual Observatory."""

from __future__ import annotations

import astropy.units as u
import pyarrow as pa
import pytest
from astropy.io.votable.ucd import parse_ucd
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.catalog.schema import bands_of, check_bands, shard_schema
from deblend_batch.errors import FieldError

SCHEMA = shard_schema(["g", "r"])

CONTRACT = {
    **dict.fromkeys(["blend_id", "source_id", "neighbour_id", "_healpix_29"], pa.int64()),
    **dict.fromkeys(["role", "tile"], pa.string()),
    **dict.fromkeys(["ra", "dec", "x", "y"], pa.float64()),
    "is_primary": pa.bool_(),
    "flags": pa.int32(),
    **dict.fromkeys(["separation", "mask_area", "mask_overlap"], pa.float32()),
    **{
        f"{kind}_{band}": pa.float32()
        for band in ("g", "r")
        for kind in ("flux", "flux_err", "mag", "mag_err")
    },
}


def test_the_columns_are_those_of_the_contract() -> None:
    assert {field.name: field.type for field in SCHEMA} == CONTRACT
    assert not any(field.nullable for field in SCHEMA)


@pytest.mark.parametrize("column", list(SCHEMA), ids=lambda column: column.name)
def test_every_column_has_a_description_a_ucd_and_a_unit_that_parse(column: pa.Field) -> None:
    texts = {key.decode(): value.decode() for key, value in column.metadata.items()}
    assert texts["description"]
    # Raises unless every word is in the IVOA's list, in a place that it allows.
    assert parse_ucd(texts["ucd"], check_controlled_vocabulary=True)
    if "unit" in texts:
        u.Unit(texts["unit"], format="vounit")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("ra", u.deg),
        ("dec", u.deg),
        ("x", u.pix),
        ("separation", u.arcsec),
        ("flux_r", u.nJy),
        ("flux_err_r", u.nJy),
        ("mag_r", u.mag),
        ("mask_area", u.pix**2),
    ],
)
def test_units(name: str, unit: u.UnitBase) -> None:
    assert u.Unit(SCHEMA.field(name).metadata[b"unit"].decode(), format="vounit") == unit


def test_one_column_names_the_row_and_two_its_place() -> None:
    main = [field.name for field in SCHEMA if b"meta.main" in field.metadata[b"ucd"]]
    assert main == ["source_id", "ra", "dec"]


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(st.lists(st.one_of(names, st.sampled_from(["h", "err_h"])), unique=True))
def test_bands_are_read_off_the_schema(bands: list[str]) -> None:
    schema = shard_schema(bands)
    if len(set(schema.names)) == len(schema.names):
        check_bands(bands, "field.zarr")
        assert bands_of(schema) == bands
    else:
        with pytest.raises(FieldError, match=r"field.zarr: attribute 'bands': .*; rename one of"):
            check_bands(bands, "field.zarr")


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["h", "err_h"], "'h' and 'err_h' both make the catalogue's column 'flux_err_h'"),
        (["err_h", "g", "h"], "'err_h' and 'h' both make the catalogue's column 'flux_err_h'"),
        (["err_err_h", "err_h"], "both make the catalogue's column 'flux_err_err_h'"),
    ],
)
def test_bands_that_would_share_a_column_are_refused(bands: list[str], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        check_bands(bands, "field.zarr")
