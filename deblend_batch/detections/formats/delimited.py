"""CSV and its like, streamed: text in, typed parts out. How a text is written is told from its beginning."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from deblend_batch.detections.formats.bounds import (
    MAX_HEADER,
    PART_BYTES,
    Choose,
    IdName,
    choose_from,
    text_lines,
)
from deblend_batch.detections.texts import NOTHING
from deblend_batch.errors import DetectionsError, TooLargeError

_INTEGER = r"^(0|-?[1-9][0-9]*)$"
"""As a number is written that nothing is lost of."""
_DECIMAL = r"^[+-]?[0-9]+[.][0-9]*$"
_LOOK_BYTES = 1 << 16
_DELIMITERS = ",;\t|"
_BLANKS = " "
"""As a delimiter: any number of blanks."""
_MAX_COMMENTS = 10_000
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eEdD][+-]?\d+)?|nan|inf", re.IGNORECASE)
_COMMA = re.compile(rb"(?<![\d.,])[+-]?\d*,\d+(?![\d.,])")
_POINT = re.compile(rb"(?<![\d.,])[+-]?\d*\.\d+(?![\d.,])")
_DASHES = re.compile(r"-+")
_BETWEEN = re.compile(rb'"[^"\n]*"|[ \t]+')


def scan(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    """Read the wanted columns of a text with a row a line, a few megabytes at a time."""
    head = file.read(_LOOK_BYTES)
    returns = b"\r" in head and b"\n" not in head  # of old Macs
    lines = text_lines(cast("BinaryIO", _Text(head, file, returns=returns)))
    dialect, first = _dialect(lines, head)
    wanted = choose_from(dialect.names, choose)
    for name in wanted:
        if dialect.names.count(name) > 1:
            raise DetectionsError(f"there are several columns {name!r}; give each its own name")
    empty, texts = True, set[str]()
    for block in _blocks(lines, dialect.row_delimiter, first):
        rows = dialect.rows(block)
        if rows.strip():
            empty = False
            part = dialect.read(rows, wanted, texts)
            texts |= {name for name in part.column_names if pa.types.is_string(part[name].type)}
            yield part
    if empty:
        yield pa.table({name: pa.nulls(0) for name in wanted})


@dataclass(frozen=True)
class Dialect:
    """How a text is written.

    Parameters
    ----------
    names : list of str
        Of its columns.
    delimiter : str
        Between values; a blank stands for any number of them.
    decimal : str
        Between a number and its fraction.
    units : dict of str
        Those that a line of its own tells.
    """

    names: list[str]
    delimiter: str
    decimal: str = "."
    units: dict[str, str] = field(default_factory=dict)

    @property
    def row_delimiter(self) -> bytes:
        """What stands between values in the rows as they come."""
        return self.delimiter.encode()

    def rows(self, block: bytes) -> bytes:
        """Return the rows of a block without comments, and with one blank where any number may stand."""
        if block.startswith(b"#") or b"\n#" in block:
            block = b"".join(line for line in block.splitlines(keepends=True) if self._is_row(line))
        if self.delimiter == _BLANKS:
            block = b"\n".join(
                _BETWEEN.sub(lambda found: found[0] if found[0][:1] == b'"' else b" ", line.strip())
                for line in block.splitlines()
            )
        return block

    def _is_row(self, line: bytes) -> bool:
        if not line.startswith(b"#"):
            return True
        n_values = len(_split(line.decode(errors="replace"), self.delimiter))
        if n_values == len(self.names) > 1 and self.delimiter != _BLANKS:
            raise DetectionsError(
                "a row that begins with '#' has as many values as the others; remove it if it is a comment, "
                "else write the table in another format"
            )
        return False

    def read(self, rows: bytes, wanted: Sequence[str], texts: Collection[str] = ()) -> pa.Table:
        """Return some columns of rows; ids that were ``texts`` before are texts here, too."""
        ids = [name for name in wanted if isinstance(name, IdName)]
        # From memory, and as one block: Arrow would read ahead of us, and go on when we have stopped.
        read = pyarrow.csv.ReadOptions(
            column_names=self.names, use_threads=False, block_size=len(rows) + 1
        )
        parse = pyarrow.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        convert = pyarrow.csv.ConvertOptions(
            include_columns=list(wanted),
            null_values=list(NOTHING),
            decimal_point=self.decimal,
            column_types=dict.fromkeys(ids, pa.string()),
        )
        table = pyarrow.csv.read_csv(pa.BufferReader(rows), read, parse, convert)
        for name in ids:
            column = pc.utf8_trim_whitespace(table[name])
            column = column if name in texts else _as_integers(column)
            table = table.set_column(table.column_names.index(name), name, column)
        fields = [
            each.with_metadata({"unit": self.units[each.name]}) if each.name in self.units else each
            for each in table.schema
        ]
        return table.cast(pa.schema(fields))


def _as_integers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return integers, if all texts are those of integers, or decimals, which are no ids; else the texts."""
    known = pc.if_else(pc.is_in(texts, pa.array(NOTHING)), pa.scalar(None, pa.string()), texts)
    if pc.all(pc.match_substring_regex(known, _DECIMAL)).as_py() and known.null_count < len(known):
        return pc.cast(known, pa.float64())
    if pc.all(pc.match_substring_regex(known, _INTEGER)).as_py() is False:
        return texts
    try:
        return pc.cast(known, pa.int64())
    except pa.ArrowInvalid:  # of more digits than it has
        return texts


class _Text(io.RawIOBase):
    """A text of which the beginning was read before, with the line ends that are known here."""

    def __init__(self, head: bytes, file: BinaryIO, *, returns: bool) -> None:
        super().__init__()
        self._head = head
        self._file = file
        self._returns = returns

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        content, self._head = self._head[:size], self._head[size:]
        content = content or self._file.read(size)
        return content.replace(b"\r", b"\n") if self._returns else content


def _dialect(lines: io.BufferedReader, head: bytes) -> tuple[Dialect, bytes]:
    """Read up to the first row; return how the text is written, and that row."""
    comments, line = _up_to_text(lines)
    delimiter = _delimiter_of(line or (comments or [""])[-1])
    values = _split(line, delimiter)
    first = ""
    if comments and (not line or any(map(_NUMBER.fullmatch, values))):
        # The names stand in the last comment, as of NumPy and TOPCAT, with these delimiters or with blanks.
        first, line = line, comments[-1].lstrip("# \t")
        same = len(_split(line, delimiter)) >= max(len(values), 2)
        delimiter = delimiter if first and same else _delimiter_of(line)
    names = _split(line, delimiter)
    units: dict[str, str] = {}
    if not first:
        units, first = _units(lines, names, delimiter)
    body = head if delimiter != "," else b""
    commas = bool(_COMMA.search(body)) and not _POINT.search(body)
    return Dialect(names, delimiter, "," if commas else ".", units), first.encode()


def _up_to_text(lines: io.BufferedReader) -> tuple[list[str], str]:
    """Return the comments before the first line that is none, and that line."""
    comments: list[str] = []
    while content := lines.readline(MAX_HEADER):
        line = content.decode("utf-8-sig", errors="replace")
        if line.startswith("#"):
            comments.append(line)
        elif line.strip():
            return comments, line
        if len(comments) > _MAX_COMMENTS:
            raise TooLargeError(f"more than {_MAX_COMMENTS:,} lines of comments; remove them")
    return comments, ""


def _units(
    lines: io.BufferedReader, names: Sequence[str], delimiter: str
) -> tuple[dict[str, str], str]:
    """Pass the lines of units and dashes that VizieR puts below names; return units and the first row."""
    first = lines.readline().decode(errors="replace")
    if _is_ruled(first, delimiter):
        return {}, ""
    second = lines.readline().decode(errors="replace")
    if second and _is_ruled(second, delimiter):
        told = zip(names, _split(first, delimiter), strict=False)
        return {name: unit for name, unit in told if unit}, ""
    return {}, first + second


def _is_ruled(line: str, delimiter: str) -> bool:
    values = _split(line, delimiter)
    return len(values) > 1 and all(map(_DASHES.fullmatch, values))


def _delimiter_of(line: str) -> str:
    found = max(_DELIMITERS, key=line.count)
    if found in line:
        return found
    return _BLANKS if len(line.lstrip("# \t").split()) > 1 else ","


def _split(line: str, delimiter: str) -> list[str]:
    """Return the values of a line."""
    if delimiter == _BLANKS:
        return line.split()
    row = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    return [value.strip() for value in row]


def _blocks(lines: io.BufferedReader, delimiter: bytes, first: bytes) -> Iterator[bytes]:
    """Cut a text where a row ends."""
    quoted = re.compile(rb"(?:\A|[\n" + re.escape(delimiter) + rb'])"[^"]*(?:""[^"]*)*("?)')
    rest = first
    while text := lines.read(PART_BYTES):
        block = rest + text
        if len(text) < PART_BYTES:  # the end: the last row needs no line end
            rest = block
            break
        end = _last_row_end(block, quoted)
        if not end:
            raise TooLargeError(f"a row of more than {PART_BYTES:,} bytes; check its quotes")
        rest = block[end:]
        yield block[:end]
    yield rest


def _last_row_end(text: bytes, quoted: re.Pattern[bytes]) -> int:
    """Return where the last whole row ends; a line end within quotes ends none."""
    last = text.rfind(b"\n") + 1
    # An odd number of quotes: they go on in the next row, or are inches. Rare, and looked at closely.
    if text.count(b'"', 0, last) % 2 == 0:
        return last
    end = start = 0
    for match in quoted.finditer(text):
        end = max(end, text.rfind(b"\n", start, match.start() + 1) + 1)
        start = match.end()
        if not match[1]:
            return end
    return max(end, text.rfind(b"\n", start) + 1)
