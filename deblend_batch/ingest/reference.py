"""Which image is meant: ``FILE``, ``FILE[HDU]``, or an HDU of a file known from elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

SUFFIXES = (".fits", ".fit", ".fts", ".fz", ".asdf", ".gz", ".bz2", ".xz", ".psf")
"""How names of files end, which names of HDUs do not."""
_WITH_HDU = re.compile(r"^(?P<url>.+)\[(?P<hdu>[^\[\]]+)\]$")


@dataclass(frozen=True)
class ImageRef:
    """An image in a file.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    hdu : str or int, optional
        Number (0 the primary), ``NAME`` or ``NAME,VERSION``; of ASDF an array's path; chosen by content if
        absent.
    """

    url: str
    hdu: str | int | None = None

    def __str__(self) -> str:
        return self.url if self.hdu is None else f"{self.url}[{self.hdu}]"


def parse_image(text: str) -> ImageRef:
    """Read ``FILE`` or ``FILE[HDU]``.

    Examples
    --------
    >>> parse_image("tile.fits[SCI]")
    ImageRef(url='tile.fits', hdu='SCI')
    """
    match = _WITH_HDU.match(text)
    return ImageRef(match["url"], parse_hdu(match["hdu"])) if match else ImageRef(text)


def parse_plane(text: str | int, image: ImageRef) -> ImageRef:
    """Read where a companion plane (rms, weight, variance, mask) of an image is.

    Examples
    --------
    >>> parse_plane("RMS", ImageRef("tile.fits", "SCI"))
    ImageRef(url='tile.fits', hdu='RMS')
    >>> parse_plane("tile_rms.fits[1]", ImageRef("tile.fits"))
    ImageRef(url='tile_rms.fits', hdu=1)
    """
    if isinstance(text, int):
        return ImageRef(image.url, text)
    other = parse_image(text)
    is_file = "/" in other.url or other.url.lower().endswith(SUFFIXES)
    return other if is_file else ImageRef(image.url, parse_hdu(text))


def parse_hdu(text: str | int) -> str | int:
    """Read an HDU's name or number."""
    return int(text) if isinstance(text, str) and text.strip().isdecimal() else text
