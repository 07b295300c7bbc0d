"""What a file is that nothing here reads, by its first bytes: for refusals by their true cause (pure)."""

from __future__ import annotations

from collections.abc import Mapping

_KINDS: Mapping[bytes, str] = {
    b"#ASDF": "ASDF",
    b"\x89HDF": "HDF5",
    b"PK\x03\x04": "a zip archive, or a workbook",
    b"Rar!": "a rar archive",
    b"Obj\x01": "a file of Avro",
    b"ORC": "a file of ORC",
    b"FEA1": "a file of Feather",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel",
    b"RDX": "data of R",
    b"MATLAB": "data of MATLAB",
    b"SR\0\x04": "data of IDL",
    b"\x04\x22\x4d\x18": "packed with lz4",
    b"{": "JSON",
    b"[{": "JSON",
    b"SQLite format 3": "a database of SQLite",
    b"\x93NUMPY": "an array of NumPy",
    b"\x80": "a pickle of Python, which is never opened",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"\x1f\x9d": "packed with compress (.Z)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"ARROW1": "a file of Arrow's",
    b"PAR1": "Parquet",
    b"CDF\x01": "netCDF",
    b"CDF\x02": "netCDF",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"II*\0": "a picture (TIFF)",
    b"MM\0*": "a picture (TIFF)",
    b"%PDF": "a PDF",
    b"<!doctype html": "a web page: the server sent no file",
    b"<html": "a web page: the server sent no file",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself",
}
_TAR, _TAR_AT = b"ustar", 257


def kind_of_other(head: bytes) -> str | None:
    """Say what a file is by its first bytes; None where nothing tells.

    Examples
    --------
    >>> kind_of_other(b"#ASDF 1.0.0")
    'ASDF'
    """
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return "a tar archive"
    start = head[:64].lstrip()
    for magic, kind in _KINDS.items():
        if start.startswith(magic) or (magic[:1] == b"<" and start.lower().startswith(magic)):
            return kind
    return None
