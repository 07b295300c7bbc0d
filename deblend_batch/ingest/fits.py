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
from deblend_batch.ingest.hdus import FitsFile, first_line, meaning, settled
from deblend_batch.ingest.reference import ImageRef
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
    streams : TileStreams, optional
        What checks the tiles of a compressed image.
    """

    def __init__(
        self, ref: ImageRef, hdu: Any, primary: fits.Header | None, streams: TileStreams | None
    ) -> None:
        self.url = ref.url
        self.label = str(ref)
        self._hdu = hdu
        self._streams = streams
        self.header = settled(hdu.header)
        self.headers: tuple[fits.Header, ...] = (
            (self.header,) if primary is None else (self.header, settled(primary))
        )
        self.shape_yx = (int(hdu.shape[-2]), int(hdu.shape[-1]))

    @property
    def tile_rows(self) -> int:
        """Rows that are decoded together."""
        return 1 if self._streams is None else self._streams.layout.tile_yx[0]

    def read(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Read a window; only its bytes, or the compressed tiles it touches, are fetched.

        Parameters
        ----------
        rows, columns : slice
            The window, px.

        Returns
        -------
        ndarray of float32, shape (y, x)
            Scaled by BSCALE and BZERO; NaN where the file has NaN or BLANK.
        """
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

    def _section(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        leading = (0,) * (len(self._hdu.shape) - 2)
        return np.ascontiguousarray(self._hdu.section[(*leading, rows, columns)], np.float32)

    def _decoded(self, streams: TileStreams, rows: slice, columns: slice) -> NDArray[np.float32]:
        window = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for y, x in streams.layout.blocks(rows, columns):
            streams.check(y, x)
            into = window[y.start - rows.start : y.stop - rows.start]
            into[:, x.start - columns.start : x.stop - columns.start] = self._section(y, x)
        return window


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

    def _plane(self, ref: ImageRef) -> FitsPlane:
        if ref.url not in self._opened:
            self._opened[ref.url] = self._open(ref.url)
        file = self._opened[ref.url]
        unit = file.select(ref)
        exact = ref if ref.hdu is not None else ImageRef(ref.url, unit.name or unit.number)
        hdu, streams = file.open(unit, str(exact))
        if self._check_sums and storage.is_local(ref.url):  # elsewhere it would be fetched twice
            file.check_data(unit, str(exact))
        return FitsPlane(exact, hdu, file.primary_header() if unit.number else None, streams)

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
