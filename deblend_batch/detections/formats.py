"""Tables in every common format, read as Arrow tables of the columns that are wanted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import psutil
import pyarrow as pa

from deblend_batch import storage
from deblend_batch.detections import delimited, ecsv, fits, parquet, votable
from deblend_batch.detections.bounds import Choose
from deblend_batch.errors import DetectionsError, TooLargeError, UserError
from deblend_batch.storage import Options

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
_MAX_REASON = 300
"""Characters of what a library says of a file."""


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
    """
    if parquet.is_folder(url, options):
        yield from _explained(url, "Parquet", parquet.scan_folder(url, choose, options))
        return
    with storage.open_read(url, options) as raw:
        kind = kind_of(url, _head(url, raw))
        file = storage.unpacked(raw, url)
        if kind == "parquet" and file is not raw:
            raise DetectionsError(
                f"{url}: Parquet within gzip has to be read in leaps; unpack it first"
            )
        yield from _explained(url, kind, _READERS[kind](file, choose))


def read_table(
    url: str, choose: Choose, options: Options | None = None, *, most: int | None = None
) -> pa.Table:
    """Read the wanted columns of a table into memory.

    Parameters
    ----------
    url : str
        As of :func:`scan_table`.
    choose : callable
        Picks columns from the table's names.
    options : mapping, optional
        fsspec storage options.
    most : int, optional
        Bytes that they may take there; without it half of the free memory.
    """
    most = psutil.virtual_memory().available // 2 if most is None else most
    parts, size = [], 0
    for part in scan_table(url, choose, options):
        parts.append(part)
        size += part.nbytes
        if size > most:
            raise TooLargeError(
                f"{url}: takes more than {most:,} bytes of memory, the bound here; keep the rows that are "
                "needed"
            )
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise _meaning(url, "mixed", error) from error


def kind_of(url: str, head: bytes) -> str:
    """Tell a table's format.

    Parameters
    ----------
    url : str
        Where it is; its suffix decides where the content does not.
    head : bytes
        The first bytes, unzipped; empty for a file that is not there yet.
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


def _head(url: str, raw: BinaryIO) -> bytes:
    """Return the first bytes of a file, unzipped."""
    try:
        head = storage.unpacked(raw, url).read(_HEAD_BYTES)
        raw.seek(0)
    except (EOFError, OSError, zlib.error) as error:
        raise _meaning(url, "gzipped", error) from error
    return head


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
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:_MAX_REASON]
    return DetectionsError(f"{url}: cannot read this {kind} table ({reason}); check the file")


_READERS: Mapping[str, Callable[[BinaryIO, Choose], Iterator[pa.Table]]] = {
    "parquet": parquet.scan_file,
    "fits": fits.scan,
    "votable": votable.scan,
    "ecsv": ecsv.scan,
    "csv": delimited.scan,
}
