"""FITS images read by windows: plain, tile-compressed or gzipped, local or remote.

Each HDU is opened as a file of its own whose header has been checked, so that what a stranger's file
announces elsewhere costs nothing.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.errors import DeblendError
from deblend_batch.ingest.encoding import Encoding
from deblend_batch.ingest.hdus import FitsFile, first_line, meaning, settled
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.ingest.rubin import RubinImage, read_rubin
from deblend_batch.ingest.tiles import TileStreams
from deblend_batch.ingest.unzipping import unzipped
from deblend_batch.storage import Options


class FitsPlane:
    """A 2-d image of an open FITS file.

    Parameters
    ----------
    ref : ImageRef
        File and HDU.
    hdu : astropy HDU
        Image or tile-compressed image, whose leading axes, if any, have length 1.
    primary : astropy.io.fits.Header, optional
        Header of the file's primary HDU, where the image is in another.
    raw_header : astropy.io.fits.Header
        As the file has it: of a compressed image that of its table.
    streams : TileStreams, optional
        What checks the tiles of a compressed image.
    """

    def __init__(
        self,
        ref: ImageRef,
        hdu: Any,
        primary: fits.Header | None,
        raw_header: fits.Header,
        streams: TileStreams | None,
    ) -> None:
        self.url = ref.url
        self.label = str(ref)
        self._hdu = hdu
        self._streams = streams
        self.unsettled = hdu.header
        """Of the image, with the cards that cannot be parsed."""
        self.header = settled(hdu.header)
        self.encoding = Encoding.of(self.header, settled(raw_header), self.label)
        self.headers: tuple[fits.Header, ...] = (
            (self.header,) if primary is None else (self.header, settled(primary))
        )
        self.shape_yx = (int(hdu.shape[-2]), int(hdu.shape[-1]))

    @property
    def tile_rows(self) -> int:
        """Rows that are decoded together."""
        return 1 if self._streams is None else self._streams.layout.tile_yx[0]

    def read(self, rows: slice, columns: slice, factor: float = 1.0) -> NDArray[np.float32]:
        """Read a window; only its bytes, or the compressed tiles it touches, are fetched.

        Parameters
        ----------
        rows, columns : slice
            The window, px.
        factor : float
            What to multiply values by, before they become float32.

        Returns
        -------
        ndarray of float32, shape (y, x)
            Scaled by BSCALE and BZERO; NaN where the file has NaN or BLANK.
        """
        raw = self._raw(rows, columns)
        if factor == 1 and raw.dtype.kind == "f" and self.encoding.is_plain:
            with np.errstate(over="ignore", invalid="ignore"):
                return np.ascontiguousarray(raw, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.encoding.values(raw) * factor, np.float32)

    def values(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Read a window in double precision: units may be such that a float32 has no room for them."""
        return self.encoding.values(self._raw(rows, columns))

    def read_bits(
        self, rows: slice, columns: slice
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Read a window of a mask.

        Parameters
        ----------
        rows, columns : slice
            The window, px.

        Returns
        -------
        bits : ndarray of uint64, shape (y, x)
            The mask.
        unknown : ndarray of bool, shape (y, x)
            Where it has no value, or none that bits could be.
        """
        raw = self._raw(rows, columns)
        unknown = self.encoding.missing(raw)
        if raw.dtype.kind == "f":
            values = self.encoding.values(raw)
            with np.errstate(invalid="ignore"):
                unknown |= ~((values >= 0) & (values < 2.0**63) & (values == np.floor(values)))
        bits = self.encoding.bits(np.where(unknown, raw.dtype.type(0), raw))
        return np.where(unknown, np.uint64(0), bits), unknown

    def lost_step(self, rows: slice, columns: slice) -> NDArray[np.float64] | None:
        """Return the quantisation step of each pixel of a window, pixel values; None where zeros are kept.

        A zero that was quantised, with a dither most of all, is anything within half a step of it.
        """
        if self._streams is None:
            return None
        step = self._streams.lost_step(rows, columns)
        return None if step is None else np.nan_to_num(step)

    def _raw(self, rows: slice, columns: slice) -> NDArray[Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self._streams is None:
                    return self._section(rows, columns)
                return self._decoded(self._streams, rows, columns)
        except DeblendError:
            raise
        except Exception as error:
            reason = (
                f"{self.label}: cannot decode rows {rows.start}:{rows.stop} ({first_line(error)}); "
                "the file is damaged or truncated: fetch it again"
            )
            raise meaning(self.label, error, reason) from error

    def _section(self, rows: slice, columns: slice) -> NDArray[Any]:
        leading = (0,) * (len(self._hdu.shape) - 2)
        return np.asarray(self._hdu.section[(*leading, rows, columns)])

    def _decoded(self, streams: TileStreams, rows: slice, columns: slice) -> NDArray[Any]:
        window: NDArray[Any] | None = None
        for y, x in streams.layout.blocks(rows, columns):
            streams.check(y, x)
            block = self._section(y, x)
            if window is None:
                shape = rows.stop - rows.start, columns.stop - columns.start
                window = np.empty(shape, block.dtype)
            into = window[y.start - rows.start : y.stop - rows.start]
            into[:, x.start - columns.start : x.stop - columns.start] = block
        return np.empty((0, 0), np.float32) if window is None else window


class FitsFiles:
    """Open FITS files, each opened once; closed by :func:`open_files`."""

    def __init__(
        self, options: Options | None, scratch: str, stack: ExitStack, *, check_sums: bool
    ) -> None:
        self._options = options
        self._scratch = scratch
        self._check_sums = check_sums
        self._stack = stack
        self._opened: dict[str, FitsFile] = {}

    def plane(self, ref: ImageRef) -> FitsPlane:
        """Open an image.

        Raises
        ------
        NotFoundError
            If there is no such file.
        FieldError
            If it is no FITS file, is truncated, or has no such 2-d image; lists what it has.
        TooLargeError
            If what it announces, or unpacks to, is beyond the bounds.
        StorageError
            If it cannot be read.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._plane(ref)
        except DeblendError:
            raise
        except Exception as error:
            raise storage.translate(ref.url, error) from error

    def rubin(self, plane: FitsPlane) -> RubinImage | None:
        """Return what a file of Rubin's says of its image; None where it is no such file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_rubin(self._opened[plane.url], plane.url, plane.shape_yx)

    def file(self, url: str) -> FitsFile:
        """Open a file, once."""
        if url not in self._opened:
            self._opened[url] = self._open(url)
        return self._opened[url]

    def _plane(self, ref: ImageRef) -> FitsPlane:
        file = self.file(ref.url)
        unit = file.select(ref)
        exact = ref if ref.hdu is not None else ImageRef(ref.url, unit.name or unit.number)
        hdu, streams = file.open(unit, str(exact))
        if self._check_sums and storage.is_local(ref.url):  # elsewhere it would be fetched twice
            file.check_data(unit, str(exact))
        primary = file.primary_header() if unit.number else None
        return FitsPlane(exact, hdu, primary, file.header(unit), streams)

    def _open(self, url: str) -> FitsFile:
        raw = self._stack.enter_context(storage.open_read(url, self._options))
        return FitsFile(unzipped(raw, url, self._scratch, self._stack), url)


@contextmanager
def open_files(
    options: Options | None = None, scratch: str | None = None, *, check_sums: bool = True
) -> Iterator[FitsFiles]:
    """Open FITS files for the length of a ``with`` block.

    Parameters
    ----------
    options : mapping, optional
        fsspec storage options.
    scratch : str, optional
        Folder on the disk where packed files are unpacked; the system's for temporary files if absent.
    check_sums : bool
        Refuse data that do not fit their ``DATASUM``; of remote files it is not looked at.
    """
    with ExitStack() as stack:
        scratch = scratch or tempfile.gettempdir()
        yield FitsFiles(options, scratch, stack, check_sums=check_sums)
