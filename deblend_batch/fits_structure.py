"""The structure of a FITS file: its HDUs, found and checked by reading headers alone.

A header is a few kilobytes that anyone can write. How long it is, how many axes it has and how much data it
announces is known from here before a library sees it, and so is where the next one begins: a file of any
size costs one short read for each HDU.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from deblend_batch.errors import FieldError, TooLargeError
from deblend_batch.file_kinds import kind_of_other

BLOCK = 2880
"""Bytes of a block: headers and data are whole numbers of them."""
MAX_HEADER_BYTES = 1000 * BLOCK
"""36,000 cards; a mosaic that lists thousands of exposures in HISTORY has a third of them."""
MAX_HDUS = 1 << 16
MAX_AXES = 999
"""The standard's own bound."""

_CARD = 80
_INT64 = (1 << 63) - 1
_SIZES = {8: 1, 16: 2, 32: 4, 64: 8, -32: 4, -64: 8}
_LAYOUT = re.compile(
    rb"SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|GROUPS|EXTNAME|EXTVER|TFIELDS|THEAP|T(FORM|TYPE)\d+"
    rb"|Z(IMAGE|BITPIX|CMPTYPE|QUANTIZ|DITHER0|(NAXIS|TILE|NAME|VAL)\d*)"
)
_REPEATED = frozenset({"EXTNAME", "EXTVER"})
_DEFAULT_NAME = "COMPRESSED_IMAGE"
_INTEGER = re.compile(rb"\s*([+-]?\d+)\s*(/|$)")
_STRING = re.compile(rb"\s*'((?:[^']|'')*)'")
PLAIN = bytes(32 if code < 32 else code if code < 127 else 63 for code in range(256))
"""A header is plain ASCII: control characters become blanks, what is beyond it question marks."""


@dataclass(frozen=True)
class Cards:
    """The cards that say how an HDU is laid out.

    Parameters
    ----------
    values : mapping
        What stands behind the ``=``, by keyword; a keyword that stands twice with two values is refused.
    where : str
        The HDU, for messages.
    """

    values: dict[str, bytes]
    where: str

    @classmethod
    def of(cls, header: bytes, where: str) -> Cards:
        """Find them, also where a library would: in small letters, as HIERARCH, with ``=`` out of place."""
        values: dict[str, bytes] = {}
        for start in range(0, len(header), _CARD):
            keyword, value = _split(header[start : start + _CARD])
            if not _LAYOUT.fullmatch(keyword):
                continue
            name = keyword.decode("ascii")
            known = values.get(name)
            if name in _REPEATED:
                if known is None or known.strip().startswith(b"'" + _DEFAULT_NAME.encode()):
                    values[name] = value
            elif known is not None and known.strip() != value.strip():
                raise FieldError(f"{where}: {name} stands twice in its header; mend it")
            else:
                values[name] = value
        return cls(values, where)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.values

    def integer(self, keyword: str, least: int, most: int, default: int | None = None) -> int:
        """Return a card's value; refuse what is no integer, or out of range."""
        if keyword not in self.values:
            if default is None:
                raise FieldError(f"{self.where}: {keyword} is missing in its header; mend it")
            return default
        match = _INTEGER.match(self.values[keyword])
        value = int(match[1]) if match else None
        if value is None or not least <= value <= most:
            shown = (
                b" ".join(self.values[keyword].split(b"/")[0].split()).decode("ascii") or "blank"
            )
            raise FieldError(
                f"{self.where}: {keyword} is {shown}, not an integer from {least} to {most}; its header is "
                "damaged, or it is too large: mend it"
            )
        return value

    def text(self, keyword: str) -> str:
        """Return a card's value, empty where it has none."""
        match = _STRING.match(self.values.get(keyword, b""))
        return match[1].decode("ascii").replace("''", "'").rstrip() if match else ""

    def is_true(self, keyword: str) -> bool:
        """Tell whether a card says ``T``."""
        return self.values.get(keyword, b"").split(b"/")[0].strip() == b"T"

    def version(self) -> int:
        """Return ``EXTVER``, 1 where it is no integer."""
        match = _INTEGER.match(self.values.get("EXTVER", b""))
        return int(match[1]) if match else 1

    def item_bytes(self, keyword: str) -> int:
        """Return the bytes of a value that ``BITPIX`` or ``ZBITPIX`` names."""
        bits = self.integer(keyword, -64, 64)
        if bits not in _SIZES:
            raise FieldError(f"{self.where}: {keyword} is {bits}, none of 8, 16, 32, 64, -32, -64")
        return _SIZES[bits]

    def axes(self, keyword: str) -> tuple[int, ...]:
        """Return the lengths of the axes ``NAXISn`` or ``ZNAXISn``, in the order of NumPy."""
        count = self.integer(keyword, 0, MAX_AXES)
        return tuple(self.integer(f"{keyword}{n}", 0, _INT64) for n in range(count, 0, -1))


@dataclass(frozen=True)
class Unit:
    """An HDU, as its header announces it.

    Parameters
    ----------
    number : int
        0 is the primary.
    name : str
        ``EXTNAME``, or what stands for it.
    version : int
        ``EXTVER``.
    kind : str
        ``image``, ``compressed`` (an image in tiles), ``table``, or what else it calls itself.
    shape : tuple of int, or None
        Of an image, in the order of NumPy.
    start, data_start, data_bytes : int
        Where its header and its data begin in the file, and bytes of data without what fills the last block.
    """

    number: int
    name: str
    version: int
    kind: str
    shape: tuple[int, ...] | None
    start: int
    data_start: int
    data_bytes: int

    @property
    def data_stop(self) -> int:
        """Where its data end."""
        return self.data_start + self.data_bytes

    @property
    def stop(self) -> int:
        """Where the next one begins."""
        return -(-self.data_stop // BLOCK) * BLOCK

    @property
    def is_image_2d(self) -> bool:
        """Whether it is an image of two axes, but for leading ones of length 1."""
        shape = self.shape or ()
        return len(shape) >= 2 and all(edge == 1 for edge in shape[:-2]) and min(shape) > 0

    def is_called(self, name: str, version: int | None = None) -> bool:
        """Tell whether a name, in any case, and a version mean it."""
        wanted = name.strip().upper()
        same = self.name.strip().upper() == wanted or (wanted == "PRIMARY" and self.number == 0)
        return same and version in (None, self.version)

    def __str__(self) -> str:
        size = "no data" if self.shape == () else " x ".join(map(str, self.shape or (self.kind,)))
        return f"{self.number} {self.name} ({size})".replace("  ", " ")


def walk(file: BinaryIO, url: str, size: int = _INT64) -> Iterator[Unit]:
    """Yield a file's HDUs, one short read each."""
    start = 0
    for number in range(MAX_HDUS):
        header = read_header(file, url, number)
        if header is None:
            return
        unit = _unit(header, number, start, url)
        yield unit
        start = unit.stop
        if start >= size:
            return
        file.seek(start)
    if file.read(8) == b"XTENSION":
        raise TooLargeError(f"{url}: has more than {MAX_HDUS:,} HDUs; divide it")


def check_file(path: str, most_pixels: int) -> None:
    """Check all of a local file that a library will read whole."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        for unit in walk(file, path, size):
            if unit.kind == "compressed":
                raise FieldError(f"{path}[{unit.number}]: is compressed; uncompress it (funpack)")
            if math.prod(unit.shape or ()) > most_pixels:
                raise TooLargeError(
                    f"{path}[{unit.number}]: has more than {most_pixels:,} px; make it smaller"
                )
            if unit.data_stop > size:
                raise FieldError(f"{path}[{unit.number}]: truncated; fetch it again")


def read_header(file: BinaryIO, url: str, number: int) -> bytes | None:
    """Read the header that a file is at.

    Returns
    -------
    bytes or None
        The header in plain ASCII, up to ``END``, filled with blanks to as many blocks as it has in the file;
        None where no further HDU begins.
    """
    blocks: list[bytes] = []
    while len(blocks) * BLOCK < MAX_HEADER_BYTES:
        block = file.read(BLOCK)
        if not blocks and not block.startswith(b"XTENSION" if number else b"SIMPLE"):
            if number:
                return None
            if not block:
                raise FieldError(f"{url}: is empty; fetch it again")
            other = kind_of_other(block)
            if other is not None:
                raise FieldError(
                    f"{url}: is {other}, not FITS; unpack or convert it: images are FITS, ASDF or Zarr"
                )
            raise FieldError(_damaged(url, 0, "no SIMPLE card at its start"))
        if len(block) < BLOCK:
            raise FieldError(_damaged(url, number, "the file ends before its END card"))
        end = _end(block)
        blocks.append(block if end is None else block[:end])
        if end is not None:
            text = b"".join(blocks).translate(PLAIN) + b"END"
            return text.ljust(len(blocks) * BLOCK)
    raise TooLargeError(_damaged(url, number, f"no END card within {MAX_HEADER_BYTES:,} bytes"))


def _unit(header: bytes, number: int, start: int, url: str) -> Unit:
    cards = Cards.of(header, f"{url}[{number}]")
    kind = _kind(cards)
    return Unit(
        number=number,
        name=cards.text("EXTNAME") or _name(number, kind),
        version=cards.version(),
        kind=kind,
        shape=_shape(cards, kind),
        start=start,
        data_start=start + len(header),
        data_bytes=_data_bytes(cards, kind),
    )


def _kind(cards: Cards) -> str:
    if "SIMPLE" in cards:
        if not cards.is_true("SIMPLE"):
            return "not standard FITS"
        return "random groups" if cards.is_true("GROUPS") else "image"
    extension = cards.text("XTENSION").upper()
    if extension == "BINTABLE" and cards.is_true("ZIMAGE"):
        return "compressed"
    return {"BINTABLE": "table", "TABLE": "table", "A3DTABLE": "table"}.get(
        extension, extension.lower() or "unknown"
    )


def _name(number: int, kind: str) -> str:
    return "PRIMARY" if number == 0 else _DEFAULT_NAME if kind == "compressed" else ""


def _shape(cards: Cards, kind: str) -> tuple[int, ...] | None:
    if kind == "image":
        return cards.axes("NAXIS")
    return cards.axes("ZNAXIS") if kind == "compressed" else None


def _data_bytes(cards: Cards, kind: str) -> int:
    item, axes = cards.item_bytes("BITPIX"), cards.axes("NAXIS")
    if not axes:
        return 0
    groups = cards.integer("GCOUNT", 0, _INT64, default=1)
    parameters = cards.integer("PCOUNT", 0, _INT64, default=0)
    values = math.prod(axes[:-1] if kind == "random groups" and axes[-1] == 0 else axes)
    size = item * groups * (parameters + values)
    if size > _INT64:
        raise TooLargeError(
            f"{cards.where}: announces more bytes than any file can have; its header is damaged: mend it"
        )
    return size


def _split(card: bytes) -> tuple[bytes, bytes]:
    """Return keyword and value of a card; an empty keyword where it has no value."""
    at = card.find(b"=")
    if at > 8 and card[:9].upper() == b"HIERARCH ":
        return card[9:at].strip().upper(), card[at + 1 :]
    return (card[:at].strip().upper(), card[at + 1 :]) if 0 < at <= 8 else (b"", b"")


def _end(block: bytes) -> int | None:
    for start in range(0, BLOCK, _CARD):
        if block[start : start + 8].rstrip(b" \0") == b"END":
            return start
    return None


def _damaged(url: str, number: int, reason: str) -> str:
    if number == 0:
        return (
            f"{url}: not a FITS file, or its first header is damaged ({reason}); give a FITS image"
        )
    return (
        f"{url}[{number}]: its header is damaged ({reason}); fetch the file again, or write it anew"
    )
