"""Tile-compressed images: what a tile may decode to is known before it is decoded.

The decoders of libraries trust what a stream says of itself: gzip inflates to whatever it holds, HCOMPRESS
writes as many pixels as its own header names. So sizes, counts and places of the compressed bytes are checked
once for the whole image, and the streams themselves before their first use.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import FieldError, TooLargeError
from deblend_batch.fits_structure import Cards
from deblend_batch.ingest.files.view import HduView

MAX_TILE_PX = 1 << 27
"""Pixels of a tile; a whole image of 11,000 x 11,000 px may be one."""
MAX_TILE_BYTES = 1 << 29
"""Bytes of a tile's pixels; decoding one takes up to six times as much."""
MAX_TILE_EDGE = 1 << 18
"""A tile is decoded for each window that it reaches into, so its edge bounds the time."""
MAX_TILES = 1 << 22
BLOCK_PX = 1 << 26
"""Pixels decoded at a time, where a tile has less."""

_MAX_TABLE_BYTES = 1 << 28
_INT32 = (1 << 31) - 1
_ALGORITHMS = ("GZIP_1", "GZIP_2", "RICE_1", "RICE_ONE", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
_STREAMS = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA")
_POINTER = re.compile(r"1?[PQ]([BIJED])(\(\d*\))?")
_BYTES_OF = {"B": 1, "I": 2, "J": 4, "E": 4, "D": 8}
_MOST_ITEMS = 1 << 58
_EXPANSION = 4
_OVERHEAD = 1024
_DENSE = 2
_PIECE = 1 << 16
_HEAD_BYTES = 16
_HCOMPRESS_MAGIC = b"\xdd\x99"
_KEEPS_ZEROS = "SUBTRACTIVE_DITHER_2"
_DITHERS = ("SUBTRACTIVE_DITHER_1", _KEEPS_ZEROS)


@dataclass(frozen=True)
class TileLayout:
    """How an image is divided into tiles, from its header.

    Parameters
    ----------
    shape_yx, tile_yx : tuple of int
        Of the image and of a whole tile, px.
    planes : int
        Images that are stacked in leading axes; their tiles follow each other.
    algorithm : str
        ``ZCMPTYPE``.
    item_bytes : int
        Bytes a pixel of a tile decodes to, at most.
    least_bytes : int
        Bytes the shortest stream has.
    columns : mapping
        Bytes of an item, by name of the columns that point to streams.
    heap_start, heap_stop : int
        Where streams are among the HDU's data, bytes.
    moves_zeros : bool
        Whether floats were quantised in a way that keeps no zeros.
    where : str
        The image, for messages.
    """

    shape_yx: tuple[int, int]
    tile_yx: tuple[int, int]
    planes: int
    algorithm: str
    item_bytes: int
    least_bytes: int
    columns: dict[str, int]
    heap_start: int
    heap_stop: int
    moves_zeros: bool
    where: str

    @classmethod
    def of(cls, cards: Cards) -> TileLayout:
        """Read and check it."""
        shape = cards.axes("ZNAXIS")
        tile = tuple(
            min(edge, cards.integer(f"ZTILE{n}", 1, _INT32))
            for n, edge in zip(range(len(shape), 0, -1), shape, strict=True)
        )
        planes = math.prod(shape[:-2])
        if math.prod(tile[:-2]) != 1:
            raise FieldError(
                f"{cards.where}: its tiles reach over several planes; uncompress it first (funpack)"
            )
        algorithm = cards.text("ZCMPTYPE")
        if algorithm not in _ALGORITHMS:
            raise FieldError(
                f"{cards.where}: ZCMPTYPE {algorithm!r} is none of {', '.join(_ALGORITHMS)}; "
                "uncompress it first (funpack)"
            )
        _check_dither(cards)
        is_float = cards.integer("ZBITPIX", -64, 64) < 0
        row, rows = cards.integer("NAXIS1", 1, _INT32), cards.integer("NAXIS2", 1, _INT32)
        heap_start = cards.integer("THEAP", row * rows, 1 << 62, default=row * rows)
        layout = cls(
            shape_yx=(shape[-2], shape[-1]),
            tile_yx=(tile[-2], tile[-1]),
            planes=planes,
            algorithm=algorithm,
            item_bytes=max(cards.item_bytes("ZBITPIX"), 4),  # quantised floats are int32
            least_bytes=_least_bytes(cards, algorithm),
            columns=_columns(cards),
            heap_start=heap_start,
            heap_stop=row * rows + cards.integer("PCOUNT", 0, 1 << 62, default=0),
            moves_zeros=is_float and cards.text("ZQUANTIZ") not in ("NONE", _KEEPS_ZEROS),
            where=cards.where,
        )
        layout._check_sizes(rows, row * rows)
        return layout

    @property
    def tiles(self) -> int:
        """Number of tiles, of all planes."""
        return self.planes * math.prod(self.tiles_yx)

    @property
    def tiles_yx(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return (
            -(-self.shape_yx[0] // self.tile_yx[0]),
            -(-self.shape_yx[1] // self.tile_yx[1]),
        )

    def numbers(self, rows: slice, columns: slice) -> NDArray[np.int64]:
        """Return the numbers, in the table, of the tiles that a window touches."""
        (tile_y, tile_x), across = self.tile_yx, self.tiles_yx[1]
        down = np.arange(rows.start // tile_y, -(-rows.stop // tile_y))
        right = np.arange(columns.start // tile_x, -(-columns.stop // tile_x))
        return (down[:, None] * across + right).reshape(-1)

    def pixels(self, number: int) -> int:
        """Return the pixels of a tile; those at the edges have less."""
        down, right = divmod(number % math.prod(self.tiles_yx), self.tiles_yx[1])
        (height, width), (tile_y, tile_x) = self.shape_yx, self.tile_yx
        return min(tile_y, height - down * tile_y) * min(tile_x, width - right * tile_x)

    def blocks(self, rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
        """Divide a window at borders of tiles, so that what is decoded at a time is bounded."""
        tile_y, tile_x = self.tile_yx
        step_x = max(1, BLOCK_PX // (tile_y * tile_x)) * tile_x
        width = min(step_x, columns.stop - columns.start + 2 * tile_x)
        step_y = max(1, BLOCK_PX // (tile_y * width)) * tile_y
        for here_y in _cuts(rows, step_y):
            for here_x in _cuts(columns, step_x):
                yield here_y, here_x

    def _check_sizes(self, rows: int, table_bytes: int) -> None:
        tiles, (tile_y, tile_x) = self.tiles, self.tile_yx
        if rows != tiles:
            raise FieldError(
                f"{self.where}: its header announces {tiles:,} tiles and a table of {rows:,}; fetch it again"
            )
        pixels = tile_y * tile_x
        if pixels > MAX_TILE_PX or pixels * self.item_bytes > MAX_TILE_BYTES:
            raise TooLargeError(
                f"{self.where}: is compressed in tiles of {tile_y} x {tile_x} px, more than {MAX_TILE_PX:,} "
                f"px or {MAX_TILE_BYTES >> 20} MiB that one may have; compress it in smaller ones (fpack)"
            )
        if max(self.tile_yx) > MAX_TILE_EDGE or tiles > MAX_TILES or table_bytes > _MAX_TABLE_BYTES:
            raise TooLargeError(
                f"{self.where}: is compressed in {tiles:,} tiles of {tile_y} x {tile_x} px; at most "
                f"{MAX_TILES:,} are read, none longer than {MAX_TILE_EDGE:,} px: compress it anew (fpack)"
            )
        if self.heap_stop < self.heap_start:
            raise FieldError(f"{self.where}: THEAP is beyond the data; fetch it again")


class TileStreams:
    """The compressed bytes of an image, checked as they are needed.

    Parameters
    ----------
    layout : TileLayout
        Of the image.
    view : HduView
        Its header and data.
    pointers : mapping
        Length, in items, and place of the streams, int64 (tile, 2), by column.
    steps : ndarray of float64, shape (tile,), optional
        Quantisation steps, ``ZSCALE``; NaN or 0 of a tile that is not quantised.
    """

    def __init__(
        self,
        layout: TileLayout,
        view: HduView,
        pointers: dict[str, NDArray[np.int64]],
        steps: NDArray[np.float64] | None = None,
    ) -> None:
        self.layout = layout
        self._view = view
        self._steps = steps if layout.moves_zeros else None
        self._sizes = {  # clipped, so that none becomes a small one by wrapping around
            name: pointers[name][:, 0].clip(-1, _MOST_ITEMS) * layout.columns[name]
            for name in layout.columns
        }
        self._places = {name: pointers[name][:, 1] for name in layout.columns}
        self._checked = np.zeros(layout.tiles, bool)
        self._check_places()

    def check(self, rows: slice, columns: slice) -> None:
        """Check the streams of a window's tiles, each once.

        Parameters
        ----------
        rows, columns : slice
            The window, px.
        """
        self._check_numbers(self.layout.numbers(rows, columns))

    def check_all(self) -> None:
        """Check the streams of all planes."""
        self._check_numbers(np.arange(self.layout.tiles))

    def _check_numbers(self, numbers: NDArray[np.int64]) -> None:
        self._hold(numbers)
        for number in numbers[~self._checked[numbers]].tolist():
            self._check_stream(number)
            self._checked[number] = True

    def lost_step(self, rows: slice, columns: slice) -> NDArray[np.float64] | None:
        """Return the quantisation step of each pixel of a window where zeros are not kept, else None.

        Parameters
        ----------
        rows, columns : slice
            The window, px.
        """
        if self._steps is None:
            return None
        (tile_y, tile_x), (down, across) = self.layout.tile_yx, self.layout.tiles_yx
        y, x = (np.arange(part.start, part.stop) for part in (rows, columns))
        return np.asarray(self._steps.reshape(down, across)[np.ix_(y // tile_y, x // tile_x)])

    def _check_places(self) -> None:
        layout = self.layout
        heap = layout.heap_stop - layout.heap_start
        longest = _EXPANSION * layout.item_bytes * math.prod(layout.tile_yx) + _OVERHEAD
        total = 0.0
        for name in layout.columns:
            sizes, places = self._sizes[name], self._places[name]
            # As floats, which do not wrap around; the bounds are far below what they hold exactly.
            outside = (places < 0) | (sizes < 0) | (sizes.astype(float) + places > heap)
            if (outside & (sizes != 0)).any():
                raise FieldError(
                    f"{layout.where}: tile {int(np.argmax(outside & (sizes != 0)))} points outside its data; "
                    "the file is damaged: fetch it again"
                )
            if (sizes > longest).any():
                tile = int(np.argmax(sizes > longest))
                raise TooLargeError(
                    f"{layout.where}: tile {tile} has {int(sizes[tile]):,} compressed bytes, more than "
                    f"{longest:,} that it can need; compress it anew (fpack)"
                )
            total += float(sizes.astype(float).sum())
        if total > heap:
            raise FieldError(
                f"{layout.where}: its tiles share compressed bytes; compress it anew (fpack)"
            )
        if heap > longest * len(self._checked):
            raise TooLargeError(
                f"{layout.where}: has {heap:,} compressed bytes, more than its {len(self._checked):,} tiles "
                "can need; compress it anew (fpack)"
            )

    def _hold(self, numbers: NDArray[np.int64]) -> None:
        """Fetch the streams of many tiles at once where they lie side by side."""
        sizes, places = self._sizes["COMPRESSED_DATA"], self._places["COMPRESSED_DATA"]
        numbers = numbers[sizes[numbers] > 0]
        if not len(numbers):
            return
        start = int(places[numbers].min())
        stop = int((places[numbers] + sizes[numbers]).max())
        if stop - start <= _DENSE * int(sizes[numbers].sum()):
            origin = self._view.data_start + self.layout.heap_start
            self._view.hold(origin + start, origin + stop)

    def _check_stream(self, number: int) -> None:
        layout = self.layout
        pixels = layout.pixels(number)
        if self._sizes["COMPRESSED_DATA"][number]:
            name, algorithm, least = "COMPRESSED_DATA", layout.algorithm, layout.least_bytes
        elif "GZIP_COMPRESSED_DATA" in layout.columns:
            name, algorithm, least = "GZIP_COMPRESSED_DATA", "GZIP_1", 1
        else:
            return
        size = int(self._sizes[name][number])
        if size < least:
            raise ValueError(f"tile {number} has {size} bytes")
        if algorithm.startswith("GZIP"):
            self._check_gzip(number, self._stream(name, number, size), pixels)
        elif algorithm in _WITH_HEADS:
            item = layout.columns[name]
            head = np.frombuffer(self._stream(name, number, _HEAD_BYTES), f">i{item}")
            decoded = head.astype(head.dtype.newbyteorder("=")).tobytes()  # as decoders get it
            _WITH_HEADS[algorithm](number, decoded, size, pixels)

    def _stream(self, name: str, number: int, size: int) -> bytes:
        place = int(self._places[name][number])
        return self._view.read_at(self._view.data_start + self.layout.heap_start + place, size)

    def _check_gzip(self, number: int, stream: bytes, pixels: int) -> None:
        most = pixels * self.layout.item_bytes
        if _inflated(stream, most) > most:
            raise TooLargeError(
                f"{self.layout.where}: tile {number} inflates to more than its {pixels:,} px; the file is "
                "damaged, or made to fill memory: fetch it again from where you trust it"
            )


def _cuts(window: slice, step: int) -> Iterator[slice]:
    start = window.start
    while start < window.stop:
        stop = min(window.stop, (start // step + 1) * step)
        yield slice(start, stop)
        start = stop


def _columns(cards: Cards) -> dict[str, int]:
    """Return the bytes of an item of the streams, by column."""
    columns = {}
    names = [cards.text(f"TTYPE{n}") for n in range(1, cards.integer("TFIELDS", 1, 999) + 1)]
    for number, name in enumerate(names, start=1):
        if name not in _STREAMS:
            continue
        pointer = _POINTER.fullmatch(cards.text(f"TFORM{number}"))
        if pointer is None or name in columns:
            raise FieldError(
                f"{cards.where}: its column {name} is none of compressed bytes, or stands twice; fetch it "
                "again"
            )
        columns[name] = _BYTES_OF[pointer[1]]
    if "COMPRESSED_DATA" not in columns:
        raise FieldError(f"{cards.where}: has no column COMPRESSED_DATA; fetch it again")
    return columns


def _check_dither(cards: Cards) -> None:
    if cards.text("ZQUANTIZ") in _DITHERS:
        cards.integer("ZDITHER0", 1, 10000)


def _least_bytes(cards: Cards, algorithm: str) -> int:
    """Return the bytes of the shortest stream; of the Rice coder check the settings."""
    if algorithm.startswith("RICE"):
        _setting(cards, "BLOCKSIZE", 32, range(1, 4097))
        return 1 + _setting(cards, "BYTEPIX", 4, (1, 2, 4))
    return _HEAD_BYTES if algorithm in _WITH_HEADS else 1


def _setting(cards: Cards, name: str, default: int, allowed: range | tuple[int, ...]) -> int:
    for number in range(1, 1000):
        if f"ZNAME{number}" not in cards:
            break
        if cards.text(f"ZNAME{number}").upper() == name:
            default = cards.integer(f"ZVAL{number}", 0, _INT32)
            break
    if default not in allowed:
        raise FieldError(f"{cards.where}: {name} is {default}; uncompress it first (funpack)")
    return default


def _inflated(stream: bytes, most: int) -> int:
    """Return the bytes that a gzip stream holds, counted as far as ``most`` and one more."""
    inflater, given = zlib.decompressobj(wbits=31), 0
    for start in range(0, len(stream), _PIECE):
        piece = stream[start : start + _PIECE]
        given += len(inflater.decompress(piece, most + 1 - given))
        if given > most:
            return given
        if inflater.eof:
            if (inflater.unused_data + stream[start + _PIECE :]).strip(b"\0"):
                raise ValueError("more than one gzip stream in a tile")
            return given
    raise ValueError("a gzip stream that is cut")


def _check_hcompress(number: int, head: bytes, size: int, pixels: int) -> None:
    edges = np.frombuffer(head, ">i4", count=2, offset=2).tolist()
    if not head.startswith(_HCOMPRESS_MAGIC) or min(edges) < 1 or math.prod(edges) != pixels:
        raise ValueError(f"tile {number} is no HCOMPRESS stream of {pixels} px, but {size} bytes")


def _check_plio(number: int, head: bytes, size: int, pixels: int) -> None:
    words = np.frombuffer(head, "=i2", count=5).tolist()
    first, last = (4, words[2]) if words[2] > 0 else (words[1] + 1, (words[4] << 15) + words[3])
    if first < 1 or last > size // 2:
        raise ValueError(f"tile {number} is no PLIO stream of {pixels} px, but {size} bytes")


_WITH_HEADS: dict[str, Callable[[int, bytes, int, int], None]] = {
    "HCOMPRESS_1": _check_hcompress,
    "PLIO_1": _check_plio,
}
