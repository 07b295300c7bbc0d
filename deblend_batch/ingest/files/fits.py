"""FITS images read by windows: plain, tile-compressed or gzipped, local or remote.

Each HDU is opened as a file of its own whose header has been checked, so that what a stranger's file
announces elsewhere costs nothing.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from deblend_batch.errors import DeblendError
from deblend_batch.ingest.files.encoding import Encoding
from deblend_batch.ingest.files.hdus import first_line, meaning, settled
from deblend_batch.ingest.files.tiles import TileStreams
from deblend_batch.ingest.reference import ImageRef


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
