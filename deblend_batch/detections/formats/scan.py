"""Tables in every common format, read as Arrow tables of the columns that are wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import psutil
import pyarrow as pa

from deblend_batch import storage
from deblend_batch.detections.formats import delimited, ecsv, fits, ipac, parquet, sextractor
from deblend_batch.detections.formats.bounds import Choose
from deblend_batch.detections.formats.votable import document as votable
from deblend_batch.errors import DetectionsError, TooLargeError, UserError
from deblend_batch.file_kinds import kind_of_other
from deblend_batch.storage import Options
from deblend_batch.text import shown

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
    ".txt": "csv",
    ".dat": "csv",
    ".cat": "csv",
    ".asc": "csv",
    ".tbl": "ipac",
}
"""Formats by the end of a file's name; ``.gz``, ``.bz2`` or ``.xz`` may follow."""

_HEAD_BYTES = 2048
_WITH_TABLE = re.compile(r"^(?P<url>.+)\[(?P<table>[^\[\]]+)\]$")
_SEXTRACTOR = re.compile(rb"#\s+1\s+[A-Za-z]\w*[^\r\n]*\s+(?:#\s+\d+\s+[A-Za-z]|[-+.\d]|\Z)")
_RULED = re.compile(rb"(?:[^\n]*\n)?[ \t]*(?=[^\n]*-{3})(?=[^\n]*[|+])[-|+: \t]+\r?(?:\n|\Z)")
"""A first or second line of nothing but rules and crossings."""
_MAX_REASON = 300
"""Characters of what a library says of a file."""


def scan_table(url: str, choose: Choose, options: Options | None = None) -> Iterator[pa.Table]:
    """Read the wanted columns of a table, part by part where the format allows.

    Parameters
    ----------
    url : str
        Parquet (a file, a folder of files, a HATS catalogue or collection), FITS, VOTable, ECSV, IPAC,
        SExtractor's ASCII_HEAD or CSV, told apart by content and, failing that, by suffix; may be packed
        with gzip, bzip2 or xz. ``FILE[NAME]`` or ``FILE[NUMBER]`` is one of the tables of a FITS file (by
        HDU) or a VOTable (counted from 0).
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
    place, which = table_of(url)
    if parquet.is_folder(place, options):
        _check_one(url, which, "a folder")
        yield from _explained(url, "Parquet", parquet.scan_folder(place, choose, options))
        return
    with storage.open_read(place, options) as raw:
        kind = kind_of(place, _head(place, raw))
        file = storage.unpacked(raw, place)
        if kind == "parquet" and file is not raw:
            raise DetectionsError(f"{url}: packed Parquet has to be read in leaps; unpack it first")
        if kind in _OF_SEVERAL:
            parts = _OF_SEVERAL[kind](file, choose, which)
        else:
            _check_one(url, which, kind)
            parts = _READERS[kind](file, choose)
        yield from _explained(url, kind, parts)


def table_of(url: str) -> tuple[str, str | None]:
    """Divide ``FILE[TABLE]`` into the file's URL and the table's name or number, if one is named.

    Examples
    --------
    >>> table_of("cat.fits[LDAC_OBJECTS]")
    ('cat.fits', 'LDAC_OBJECTS')
    """
    match = _WITH_TABLE.match(url)
    return (match["url"], match["table"].strip()) if match else (url, None)


def _check_one(url: str, which: str | None, kind: str) -> None:
    if which is not None:
        raise DetectionsError(f"{url}: {kind} holds one table; leave out [{which}]")


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
    if _SEXTRACTOR.match(head):
        return "sextractor"
    if _RULED.match(head):  # before IPAC, whose second line holds types
        raise DetectionsError(
            f"{url}: is a table as a terminal or Markdown draws it, with rules; write it as CSV (psql --csv, "
            "mysql --batch)"
        )
    if ipac.is_ipac(head):
        return "ipac"
    name = storage.without_packing(storage.name_of(url)).lower()
    kinds = [kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)]
    utf_16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if utf_16 and kinds != ["votable"]:  # which XML reads
        raise DetectionsError(f"{url}: is text in UTF-16; write it as UTF-8")
    other = kind_of_other(head)
    if other is not None:
        raise DetectionsError(
            f"{url}: is {other}; unpack or convert it: tables are Parquet, FITS, VOTable, ECSV or CSV"
        )
    if kinds and (kinds != ["csv"] or b"\0" not in head):
        return kinds[0]
    known = ", ".join(sorted(SUFFIXES))
    seen = f" (it begins with {shown(head[:12])})" if head else ""
    raise DetectionsError(
        f"{url}: unknown table format{seen}; give Parquet, FITS, VOTable, ECSV or CSV, and name it with one "
        f"of {known}"
    )


def _head(url: str, raw: BinaryIO) -> bytes:
    """Return the first bytes of a file, unzipped."""
    try:
        head = storage.unpacked(raw, url).read(_HEAD_BYTES)
        raw.seek(0)
    except UserError:
        raise
    except OSError as error:
        raise _meaning(url, "packed", error) from error
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


_OF_SEVERAL: Mapping[str, Callable[[BinaryIO, Choose, str | None], Iterator[pa.Table]]] = {
    "fits": fits.scan,
    "votable": votable.scan,
}
"""Readers of formats that hold several tables."""
_READERS: Mapping[str, Callable[[BinaryIO, Choose], Iterator[pa.Table]]] = {
    "parquet": parquet.scan_file,
    "ecsv": ecsv.scan,
    "sextractor": sextractor.scan,
    "ipac": ipac.scan,
    "csv": delimited.scan,
}
