"""Tables in every common format, read as Arrow tables of the columns that are wanted."""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, cast

import astropy.table
import numpy as np
import pyarrow as pa
import pyarrow.csv
from astropy.io import fits

from deblend_batch import storage
from deblend_batch.detections import parquet
from deblend_batch.errors import DetectionsError, UserError
from deblend_batch.storage import Options

Choose = Callable[[Sequence[str]], Sequence[str]]
"""Given a table's column names, says which to read; raises where it finds none that serve."""

SUFFIXES: Mapping[str, str] = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".votable": "votable",
    ".vot": "votable",
    ".xml": "votable",
    ".ecsv": "ecsv",
    ".csv": "csv",
    ".tsv": "csv",
}
"""Formats by the end of a file's name; ``.gz`` may follow."""

_HEAD_BYTES = 2048
_CSV_NULLS = ["", "NaN", "nan", "NULL", "null", "N/A", "NA", "--", "None"]


def scan_table(url: str, choose: Choose, options: Options | None = None) -> Iterator[pa.Table]:
    """Read the wanted columns of a table, part by part where the format allows.

    Parameters
    ----------
    url : str
        Parquet (a file, a folder of files, a HATS catalogue or collection), FITS, VOTable, ECSV or
        CSV, told apart by content and, failing that, by suffix; may be gzipped.
    choose : callable
        Picks columns from the table's names.
    options : mapping, optional
        fsspec storage options.

    Yields
    ------
    pyarrow.Table
        The chosen columns, in the chosen order; masked values are null, a unit is in the field's
        metadata. At least one, which may have no rows.

    Raises
    ------
    NotFoundError
        If there is no such file.
    DetectionsError
        If the format is unknown or the content damaged.
    StorageError
        If the store refuses.
    """
    if parquet.is_folder(url, options):
        yield from _explained(url, "Parquet", parquet.scan_folder(url, choose, options))
        return
    with storage.open_read(url, options) as raw:
        file = _unzipped(raw)
        kind = kind_of(url, _head(url, file))
        yield from _explained(url, kind, _READERS[kind](file, choose))


def kind_of(url: str, head: bytes) -> str:
    """Tell a table's format.

    Parameters
    ----------
    url : str
        Where it is; its suffix decides where the content does not.
    head : bytes
        The first bytes, unzipped; empty for a file that is not there yet.

    Returns
    -------
    str
        ``parquet``, ``fits``, ``votable``, ``ecsv`` or ``csv``.

    Raises
    ------
    DetectionsError
        If neither tells.
    """
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    if b"<VOTABLE" in head:
        return "votable"
    if head.startswith(b"# %ECSV"):
        return "ecsv"
    name = storage.name_of(url).lower().removesuffix(".gz")
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    known = ", ".join(sorted(SUFFIXES))
    raise DetectionsError(f"{url}: unknown table format; name it with one of {known}")


def _head(url: str, file: BinaryIO) -> bytes:
    try:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except (EOFError, OSError) as error:
        raise _meaning(url, "gzipped", error) from error
    return head


def _unzipped(raw: BinaryIO) -> BinaryIO:
    zipped = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    return cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if zipped else raw


def _explained(url: str, kind: str, parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Pass parts on; turn a reader's exceptions into one-line errors."""
    try:
        yield from parts
    except UserError as error:
        # A reader knows what is wrong; this function knows where.
        message = str(error)
        raise type(error)(message if url in message else f"{url}: {message}") from error
    except Exception as error:
        raise _meaning(url, kind, error) from error


def _meaning(url: str, kind: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return storage.translate(url, error)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DetectionsError(f"{url}: cannot read this {kind} table ({reason}); check the file")


def _read_fits(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    with fits.open(file, memmap=False) as hdus:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        images = [hdu for hdu in tables if isinstance(hdu, fits.CompImageHDU)]
        tables = [hdu for hdu in tables if hdu not in images]
        if not tables:
            raise DetectionsError("this FITS file holds no table; give the catalogue's file")
        names = choose(tables[0].columns.names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # units outside the standard; ours are checked later
            table = astropy.table.Table.read(tables[0])
        yield _from_astropy(table, names)


def _read_with_astropy(form: str) -> Callable[[BinaryIO, Choose], Iterator[pa.Table]]:
    def read(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy warns of each slip in a VOTable and goes on
            table = astropy.table.Table.read(io.BytesIO(file.read()), format=form)
        yield _from_astropy(table, choose(table.colnames))

    return read


def _from_astropy(table: astropy.table.Table, names: Sequence[str]) -> pa.Table:
    arrays, fields = [], []
    for name in names:
        column = table[name]
        values = np.ma.asarray(column)
        data = np.asarray(values.data)
        if data.ndim != 1 or data.dtype.kind not in "biuf":
            raise DetectionsError(f"column {name!r} holds {data.dtype}{data.shape[1:] or ''}")
        native = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
        mask = np.ma.getmaskarray(values)
        arrays.append(pa.array(native, mask=mask if mask.any() else None))
        unit = getattr(column, "unit", None)
        fields.append(field_with(name, arrays[-1].type, {"unit": str(unit)} if unit else {}))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def field_with(name: str, dtype: pa.DataType, metadata: Mapping[str, str]) -> pa.Field:
    """Return an Arrow field with string metadata.

    Parameters
    ----------
    name : str
        Name of the column.
    dtype : pyarrow.DataType
        Its type.
    metadata : mapping of str
        Such as ``unit``, ``ucd``, ``description``.

    Returns
    -------
    pyarrow.Field
        The field.
    """
    return pa.field(name, dtype, metadata=dict(metadata) or None)


def _read_csv(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    header = file.readline().decode("utf-8-sig").strip()
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().strip('"') for name in header.lstrip("# ").split(delimiter)]
    wanted = list(choose(names))
    rest = file.read()
    if not rest.strip():
        yield pa.table({name: pa.array([], pa.null()) for name in wanted})
        return
    # One block, so that a column's type is decided by all of its values.
    yield pyarrow.csv.read_csv(
        io.BytesIO(rest),
        pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(rest) + 1),
        pyarrow.csv.ParseOptions(delimiter=delimiter),
        pyarrow.csv.ConvertOptions(include_columns=wanted, null_values=_CSV_NULLS),
    )


_READERS: Mapping[str, Callable[[BinaryIO, Choose], Iterator[pa.Table]]] = {
    "parquet": parquet.scan_file,
    "fits": _read_fits,
    "votable": _read_with_astropy("votable"),
    "ecsv": _read_with_astropy("ascii.ecsv"),
    "csv": _read_csv,
}
