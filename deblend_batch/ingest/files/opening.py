"""Images of every format that is read, each file opened once, told apart by content."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from astropy.io.fits import Header

from deblend_batch import storage
from deblend_batch.errors import ConfigError, DeblendError
from deblend_batch.ingest.contents import FileContents
from deblend_batch.ingest.files.asdf.file import AsdfFile, AsdfPlane
from deblend_batch.ingest.files.asdf.tree import MAGIC, is_asdf
from deblend_batch.ingest.files.asdf.wcs import check_installed
from deblend_batch.ingest.files.fits import FitsPlane
from deblend_batch.ingest.files.hdus import FitsFile
from deblend_batch.ingest.files.plane import Plane
from deblend_batch.ingest.files.rubin import read_rubin
from deblend_batch.ingest.files.unzipping import unzipped
from deblend_batch.ingest.files.zarr_file import ZarrFile, is_zarr
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.ingest.sources import BandSource
from deblend_batch.storage import Options


class ImageFiles:
    """Open FITS, ASDF and Zarr, each opened once; closed by :func:`open_files`."""

    def __init__(
        self,
        options: Options | None,
        scratch: str,
        stack: ExitStack,
        *,
        check_sums: bool,
        header: ImageRef | None,
    ) -> None:
        self._options = options
        self._scratch = scratch
        self._check_sums = check_sums
        self._header = header
        self._stack = stack
        self._opened: dict[str, FitsFile | AsdfFile | ZarrFile] = {}

    def by_bands(self, sources: Sequence[BandSource]) -> list[BandSource]:
        """Return a source a band: an array of Zarr may hold several."""
        found = []
        for source in sources:
            file = self.file(source.image.url)
            count = file.n_bands(source.image.hdu) if isinstance(file, ZarrFile) else 1
            found += [replace(source, number=number) for number in range(count)]
        return found

    def plane(self, ref: ImageRef, band: int = 0) -> Plane:
        """Open an image; of an array of several bands the one of a number.

        Raises
        ------
        NotFoundError
            If there is no such file.
        FieldError
            If it is neither FITS nor ASDF, is truncated, or has no such 2-d image; lists what it has.
        ConfigError
            If it is ASDF and the packages that read it are not installed.
        TooLargeError
            If what it announces, or unpacks to, is beyond the bounds.
        StorageError
            If it cannot be read.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._plane(ref, band)
        except DeblendError:
            raise
        except Exception as error:
            raise storage.translate(ref.url, error) from error

    def contents(self, plane: Plane) -> FileContents:
        """Return what a file says of its image by its format, as Rubin's and Roman's do."""
        file = self._opened[plane.url]
        if isinstance(plane, AsdfPlane) and isinstance(file, AsdfFile):
            return file.contents(plane)
        if not isinstance(file, FitsFile):
            return FileContents()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_rubin(file, plane.url, plane.shape_yx)

    def _plane(self, ref: ImageRef, band: int) -> Plane:
        file = self.file(ref.url)
        if isinstance(file, ZarrFile):
            return file.plane(ref, band)
        if isinstance(file, AsdfFile):
            return file.plane(ref)
        unit = file.select(ref)
        exact = ref if ref.hdu is not None else ImageRef(ref.url, unit.name or unit.number)
        hdu, streams = file.open(unit, str(exact))
        if self._sums_are_checked(ref.url):
            file.check_data(unit, str(exact))
        primary = file.primary_header() if unit.number else None
        return FitsPlane(exact, hdu, primary, file.header(unit), streams)

    def file(self, url: str) -> FitsFile | AsdfFile | ZarrFile:
        """Open a file, once."""
        if url not in self._opened:
            self._opened[url] = self._open(url)
        return self._opened[url]

    def fits(self, url: str, option: str) -> FitsFile:
        """Open a file that an option names and that only FITS can be."""
        file = self.file(url)
        if not isinstance(file, FitsFile):
            raise ConfigError(f"{option}: {url} is no FITS file")
        return file

    def _stated_header(self) -> Header | None:
        """Return the header that the user names for images whose format has none."""
        if self._header is None:
            return None
        header = self.fits(self._header.url, "--header").celestial_header(self._header.hdu)
        if header is not None:
            return header
        raise ConfigError(f"--header: {self._header} has no header with a celestial WCS (CTYPE1)")

    def _open(self, url: str) -> FitsFile | AsdfFile | ZarrFile:
        if is_zarr(url, self._options):
            return ZarrFile(url, self._options, self._stated_header())
        raw = self._stack.enter_context(storage.open_read(url, self._options))
        head = raw.read(len(MAGIC))
        raw.seek(0)
        if not is_asdf(head):
            return FitsFile(unzipped(raw, url, self._scratch, self._stack), url)
        check_installed(url)
        sums = self._sums_are_checked(url)
        return AsdfFile(raw, url, self._scratch, self._stack, check_sums=sums)

    def _sums_are_checked(self, url: str) -> bool:
        return self._check_sums and storage.is_local(url)  # elsewhere it would be fetched twice


@contextmanager
def open_files(
    options: Options | None = None,
    scratch: str | None = None,
    *,
    check_sums: bool = True,
    header: ImageRef | None = None,
) -> Iterator[ImageFiles]:
    """Open image files for the length of a ``with`` block.

    Parameters
    ----------
    options : mapping, optional
        fsspec storage options.
    scratch : str, optional
        Folder on the disk where packed files are unpacked; the system's for temporary files if absent.
    check_sums : bool
        Refuse data that do not fit their ``DATASUM``, or MD5; of remote files it is not looked at.
    header : ImageRef, optional
        FITS header of images in Zarr; what their attributes hold if absent.
    """
    with ExitStack() as stack:
        scratch = scratch or tempfile.gettempdir()
        yield ImageFiles(options, scratch, stack, check_sums=check_sums, header=header)
