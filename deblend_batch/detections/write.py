"""Detection tables as files: whole or absent, with units, UCDs and descriptions."""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import astropy.table
import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.detections.formats.scan import kind_of
from deblend_batch.storage import Options

Columns = Mapping[str, NDArray[Any]]

_ROW_GROUP = 1 << 17


@dataclass(frozen=True)
class ColumnInfo:
    """What a reader should know of a column.

    Parameters
    ----------
    unit : str
        VOUnit string; empty where the column has none.
    ucd : str
        Unified content descriptor, from the IVOA's list.
    description : str
        One line.
    """

    unit: str
    ucd: str
    description: str


COLUMN_INFO: Mapping[str, ColumnInfo] = {
    "id": ColumnInfo("", "meta.id;meta.main", "Source id: order-29 nested HEALPix index"),
    "ra": ColumnInfo("deg", "pos.eq.ra;meta.main", "Right ascension, ICRS"),
    "dec": ColumnInfo("deg", "pos.eq.dec;meta.main", "Declination, ICRS"),
    "x": ColumnInfo("pixel", "pos.cartesian.x;instr.det", "Column, 0-based pixel centres"),
    "y": ColumnInfo("pixel", "pos.cartesian.y;instr.det", "Row, 0-based pixel centres"),
    "x_err": ColumnInfo("pixel", "stat.error;pos.cartesian.x", "One-sigma error of x"),
    "y_err": ColumnInfo("pixel", "stat.error;pos.cartesian.y", "One-sigma error of y"),
    "mag": ColumnInfo("mag", "phot.mag", "AB magnitude of the flux"),
    "mag_err": ColumnInfo("mag", "stat.error;phot.mag", "One-sigma error of the magnitude"),
    "radius": ColumnInfo("arcsec", "phys.angSize;src", "Half-light radius"),
    "flux": ColumnInfo("nJy", "phot.flux", "Flux: of the fit where it was refined, else Kron's"),
    "flux_err": ColumnInfo("nJy", "stat.error;phot.flux", "One-sigma error of the flux"),
    "snr": ColumnInfo("", "stat.snr", "Flux over its error"),
    "fragment": ColumnInfo("", "stat.likelihood", "How like a piece of its host it is, 0 to 1"),
    "flags": ColumnInfo("", "meta.code.qual", "SExtractor's flags, and ours from 256 on"),
    "origin": ColumnInfo("", "meta.code", "Where it came from: detected, or added by a fit"),
    "fate": ColumnInfo("", "meta.code", "What became of it: kept, or dropped"),
    "reason": ColumnInfo("", "meta.note", "Why it was dropped"),
    "beside": ColumnInfo("", "meta.id.assoc", "Id of the source that has its light now, or -1"),
    "round": ColumnInfo("", "meta.number", "Round of its last fit; 0 where it was not fitted"),
}
"""The columns that ``detect`` writes; others are written without metadata."""


def write_detections(
    url: str,
    columns: Columns,
    options: Options | None = None,
    *,
    metadata: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write a detection table; its suffix says which format.

    Parameters
    ----------
    url : str
        Ends in ``.parquet``, ``.fits``, ``.ecsv``, ``.csv`` or ``.vot``; ``.gz`` may follow.
    columns : mapping of ndarray, shape (n,)
        Names to values, in the order of the file.
    options : mapping, optional
        fsspec storage options.
    metadata : mapping, optional
        Of the whole table; other formats than Parquet have no place for it.
    """
    kind = kind_of(url, b"")
    content = _parquet(columns, metadata) if kind == "parquet" else _ENCODERS[kind](columns)
    if url.lower().endswith(".gz"):
        content = gzip.compress(content)
    storage.write_bytes(url, content, options)


def arrow_schema(columns: Columns) -> pa.Schema:
    """Return the Arrow schema of a detection table, with unit, UCD and description of each field.

    Parameters
    ----------
    columns : mapping of ndarray
        Names to values.
    """
    return pa.schema([_field(name, values) for name, values in columns.items()])


def _field(name: str, values: NDArray[Any]) -> pa.Field:
    info = COLUMN_INFO.get(name, ColumnInfo("", "", ""))
    texts = {"unit": info.unit, "ucd": info.ucd, "description": info.description}
    metadata = {key: text for key, text in texts.items() if text}
    return pa.field(name, pa.from_numpy_dtype(values.dtype), metadata=metadata or None)


def _parquet(columns: Columns, metadata: Mapping[bytes, bytes] | None) -> bytes:
    arrays = [pa.array(np.ascontiguousarray(values)) for values in columns.values()]
    schema = arrow_schema(columns).with_metadata(dict(metadata or {}) or None)
    table = pa.Table.from_arrays(arrays, schema=schema)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=_ROW_GROUP)
    return sink.getvalue()


def _with_astropy(form: str) -> Callable[[Columns], bytes]:
    def encode(columns: Columns) -> bytes:
        table = astropy.table.Table({name: np.asarray(v) for name, v in columns.items()})
        for name in table.colnames:
            info = COLUMN_INFO.get(name, ColumnInfo("", "", ""))
            table[name].unit = u.Unit(info.unit) if info.unit else None
            table[name].description = info.description or None
            if info.ucd and form != "fits":
                table[name].meta["ucd"] = info.ucd
        text = form.startswith("ascii")
        sink: io.StringIO | io.BytesIO = io.StringIO() if text else io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", u.UnitsWarning)
            table.write(sink, format=form)
        content = sink.getvalue()
        return content.encode() if isinstance(content, str) else content

    return encode


_ENCODERS: Mapping[str, Callable[[Columns], bytes]] = {
    "fits": _with_astropy("fits"),
    "votable": _with_astropy("votable"),
    "ecsv": _with_astropy("ascii.ecsv"),
    "csv": _with_astropy("ascii.csv"),
}
