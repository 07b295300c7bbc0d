"""FITS images read by windows: plain, tile-compressed or gzipped, local or remote."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.errors import FieldError, NotFoundError, StorageError
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.storage import Options

PREFERRED_NAMES = ("SCI", "SCIENCE", "IMAGE", "DATA", "FLUX")
"""Extension names that mean the image, where no HDU is asked for; else the first 2-d image is it."""

_BLOCK = 2880


class FitsPlane:
    """A 2-d image of an open FITS file.

    Parameters
    ----------
    ref : ImageRef
        File and HDU.
    hdu : astropy HDU
        Image or tile-compressed image, whose leading axes, if any, have length 1.
    primary : astropy.io.fits.Header
        Header of the file's primary HDU.
    """

    def __init__(self, ref: ImageRef, hdu: Any, primary: fits.Header) -> None:
        self.url = ref.url
        self.label = str(ref)
        self._hdu = hdu
        self.header: fits.Header = hdu.header
        self.headers: tuple[fits.Header, ...] = (
            (hdu.header,) if primary is hdu.header else (hdu.header, primary)
        )
        self.shape_yx = (int(hdu.shape[-2]), int(hdu.shape[-1]))

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

        Raises
        ------
        FieldError
            If the bytes cannot be decoded.
        StorageError
            If they cannot be read.
        """
        leading = (0,) * (len(self._hdu.shape) - 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyWarning)
                window = self._hdu.section[(*leading, rows, columns)]
        except Exception as error:
            meaning = storage.translate(self.label, error)
            if isinstance(meaning, StorageError | NotFoundError) and getattr(error, "errno", None):
                raise meaning from error
            raise FieldError(
                f"{self.label}: cannot decode rows {rows.start}:{rows.stop} ({_line(error)}); "
                "the file is damaged or truncated: fetch it again"
            ) from error
        return np.ascontiguousarray(window, np.float32)


class FitsFiles:
    """Open FITS files, each opened once; closed by :func:`open_files`."""

    def __init__(self, options: Options | None, stack: ExitStack) -> None:
        self._options = options
        self._stack = stack
        self._opened: dict[str, tuple[fits.HDUList, int]] = {}

    def plane(self, ref: ImageRef) -> FitsPlane:
        """Open an image.

        Parameters
        ----------
        ref : ImageRef
            File and HDU; without an HDU the first one named as in ``PREFERRED_NAMES``, else the first
            2-d image.

        Returns
        -------
        FitsPlane
            Ready to read.

        Raises
        ------
        NotFoundError
            If there is no such file.
        FieldError
            If it is no FITS file, is truncated, or has no such 2-d image; lists what it has.
        StorageError
            If it cannot be read.
        """
        if ref.url not in self._opened:
            self._opened[ref.url] = self._open(ref.url)
        hdus, size = self._opened[ref.url]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            hdu = _select(hdus, ref)
        info = hdu.fileinfo()
        if size < info["datLoc"] + info["datSpan"] - _BLOCK + 1:
            raise FieldError(
                f"{ref}: truncated: its data end at byte {info['datLoc'] + info['datSpan']}, the file "
                f"has {size}; fetch it again"
            )
        exact = ref if ref.hdu is not None else ImageRef(ref.url, hdu.name or hdus.index(hdu))
        return FitsPlane(exact, hdu, hdus[0].header)

    def _open(self, url: str) -> tuple[fits.HDUList, int]:
        raw = self._stack.enter_context(storage.open_read(url, self._options))
        try:
            file = self._unzipped(url, raw)
            size = file.seek(0, 2)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyWarning)
                hdus = fits.open(file, memmap=False, lazy_load_hdus=True)
        except (FieldError, StorageError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise storage.translate(url, error) from error
            raise FieldError(
                f"{url}: not a FITS file, or its first header is damaged ({_line(error)}); "
                "give a FITS image"
            ) from error
        return self._stack.enter_context(hdus), size

    def _unzipped(self, url: str, raw: BinaryIO) -> BinaryIO:
        """Return the file; a gzipped one as a temporary copy, since gzip cannot be read by ranges."""
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            return raw
        copy = self._stack.enter_context(tempfile.NamedTemporaryFile(suffix=".fits"))  # noqa: SIM115
        try:
            with gzip.GzipFile(fileobj=raw) as source:
                shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
        except EOFError as error:
            raise FieldError(f"{url}: the gzip stream is truncated; fetch it again") from error
        except OSError as error:
            if error.errno is None:
                raise FieldError(f"{url}: the gzip stream is damaged; fetch it again") from error
            where = f"{tempfile.gettempdir()} (unpacking {url})"
            raise storage.translate(where, error) from error
        return self._stack.enter_context(storage.open_read(copy.name))


@contextmanager
def open_files(options: Options | None = None) -> Iterator[FitsFiles]:
    """Open FITS files for the length of a ``with`` block.

    Parameters
    ----------
    options : mapping, optional
        fsspec storage options.

    Yields
    ------
    FitsFiles
        Opens files on demand.
    """
    with ExitStack() as stack:
        yield FitsFiles(options, stack)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _select(hdus: fits.HDUList, ref: ImageRef) -> Any:
    if ref.hdu is None:
        images = [hdu for hdu in hdus if _is_image_2d(hdu)]
        named = [hdu for hdu in images if hdu.name.upper() in PREFERRED_NAMES]
        if not images:
            raise FieldError(f"{ref.url}: holds no 2-d image; it has {_listing(hdus)}")
        return (named or images)[0]
    try:
        hdu = hdus[_key(ref.hdu)]
    except (KeyError, IndexError) as error:
        raise FieldError(f"{ref.url}: has no HDU {ref.hdu!r}; it has {_listing(hdus)}") from error
    if not _is_image_2d(hdu):
        raise FieldError(f"{ref}: is not a 2-d image; the file has {_listing(hdus)}")
    return hdu


def _key(hdu: str | int) -> str | int | tuple[str, int]:
    """Astropy's key for ``NAME``, ``N`` or ``NAME,VERSION``."""
    if isinstance(hdu, str) and "," in hdu:
        name, _, version = hdu.rpartition(",")
        if version.strip().isdecimal():
            return name.strip(), int(version)
    return hdu


def _is_image_2d(hdu: Any) -> bool:
    shape = hdu.shape if hdu.is_image else ()
    return len(shape) >= 2 and all(edge == 1 for edge in shape[:-2]) and min(shape) > 0


def _listing(hdus: fits.HDUList, most: int = 20) -> str:
    """Name what a file has, for messages."""
    texts = []
    for number, hdu in enumerate(hdus):
        shape = hdu.shape if hdu.is_image else None
        size = "table" if shape is None else " x ".join(map(str, shape)) or "no data"
        texts.append(f"{number} {hdu.name} ({size})".replace("  ", " "))
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
