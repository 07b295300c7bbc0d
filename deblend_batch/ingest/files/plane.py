"""What a band needs of an image, whatever the format of its file."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from deblend_batch.ingest.files.encoding import Encoding


class Plane(Protocol):
    """A 2-d image of an open file, read by windows.

    A format that has no cards says what it knows in those of FITS.
    """

    url: str
    label: str
    encoding: Encoding
    shape_yx: tuple[int, int]

    @property
    def unsettled(self) -> fits.Header:
        """The image's header, with the cards that cannot be parsed."""
        ...

    @property
    def headers(self) -> tuple[fits.Header, ...]:
        """Where to look for a card: the image's header, then the file's."""
        ...

    @property
    def tile_rows(self) -> int:
        """Rows that are decoded together."""
        ...

    def read(self, rows: slice, columns: slice, factor: float = 1.0) -> NDArray[np.float32]:
        """Read a window, times a factor; NaN where there is no value."""
        ...

    def values(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Read a window in double precision."""
        ...

    def read_bits(
        self, rows: slice, columns: slice
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Read a window of a mask: its bits, and where it has none."""
        ...

    def lost_step(self, rows: slice, columns: slice) -> NDArray[Any] | None:
        """Return the quantisation step of each pixel of a window; None where zeros are kept."""
        ...
