"""PSFEx models: images of the PSF that are polynomials of the position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.io.fits import Header
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.ingest.header.headers import number, text

MODEL_HDU = "PSF_DATA"
"""Name of the table that holds a model."""

_MOST_DEGREE = 12
_MOST_EDGE = 257
_POSITIONS = (("X_IMAGE", "XWIN_IMAGE"), ("Y_IMAGE", "YWIN_IMAGE"))


@dataclass(frozen=True)
class PsfexModel:
    """A model of one image.

    Parameters
    ----------
    terms : ndarray of float64, shape (term, y, x)
        Images, of which the powers of the position are the weights: x first.
    degree : int
        Of the polynomial; 0 where the PSF does not vary.
    zero_xy, scale_xy : tuple of float
        What is subtracted from a FITS position, and what it is then divided by.
    sample_px : float
        Step of the images, px of the image.
    """

    terms: NDArray[np.float64]
    degree: int
    zero_xy: tuple[float, float]
    scale_xy: tuple[float, float]
    sample_px: float

    @classmethod
    def of(cls, header: Header, data: bytes, where: str) -> PsfexModel:
        """Read a model from the header and the bytes of its table.

        Parameters
        ----------
        header : astropy.io.fits.Header
            Of the table.
        data : bytes
            Its only row.
        where : str
            The file, for messages.
        """
        axes = [int(_card(header, f"PSFAXIS{n}", where)) for n in (3, 2, 1)]
        n_polynomial = int(number([header], "POLNAXIS") or 0)
        degree = int(_card(header, "POLDEG1", where)) if n_polynomial else 0
        n_terms = (degree + 1) * (degree + 2) // 2
        count = int(np.prod(axes, dtype=np.float64))
        if (
            number([header], "TFIELDS") != 1
            or not 0 <= degree <= _MOST_DEGREE
            or axes[0] != n_terms
            or not all(0 < edge <= _MOST_EDGE for edge in axes[1:])
            or len(data) < 4 * count
        ):
            raise FieldError(
                f"{where}: is no PSFEx model of one polynomial of x and y; give --psf-fwhm"
            )
        if n_polynomial:
            _check_positions(header, n_polynomial, where)
        terms = np.frombuffer(data, ">f4", count).reshape(axes).astype(np.float64)
        zero, scale = (0.0, 0.0), (1.0, 1.0)
        if n_polynomial:
            zero, scale = (
                (_card(header, f"{key}1", where), _card(header, f"{key}2", where))
                for key in ("POLZERO", "POLSCAL")
            )
        sample = _card(header, "PSF_SAMP", where)
        if not 0.05 < sample < 20 or not all(scale) or not np.isfinite(terms).all():
            raise FieldError(f"{where}: its PSF_SAMP, POLSCAL or pixels are no numbers; mend it")
        return cls(terms, degree, zero, scale, sample)

    def kernel(self, yx: tuple[float, float]) -> NDArray[np.float64]:
        """Return the PSF at a position, sampled at the image's pixels.

        Its images hold the pixel's own width already: they are interpolated, and not integrated again.

        Parameters
        ----------
        yx : tuple of float
            Pixel position (y, x), 0-based.

        Returns
        -------
        ndarray of float64, shape (edge, edge)
            Unit sum, odd edge, the centre on the middle pixel.
        """
        import galsim  # it takes long, and few images have such a model

        x, y = (
            (at + 1 - zero) / scale
            for at, zero, scale in zip(yx[::-1], self.zero_xy, self.scale_xy, strict=True)
        )
        powers = [x**i * y**j for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        image = np.tensordot(powers, self.terms, axes=1)
        drawn = galsim.InterpolatedImage(
            galsim.Image(image), scale=self.sample_px, x_interpolant=galsim.Lanczos(3), flux=1.0
        )
        edge = int(min(image.shape) * self.sample_px) // 2 * 2 - 1
        pixels = drawn.drawImage(nx=max(edge, 3), ny=max(edge, 3), scale=1.0, method="no_pixel")
        return np.asarray(pixels.array / pixels.array.sum(), np.float64)


def _card(header: Header, key: str, where: str) -> float:
    value = number([header], key)
    if value is None:
        raise FieldError(f"{where}: is no PSFEx model: {key} is missing, or no number; mend it")
    return value


def _check_positions(header: Header, count: int, where: str) -> None:
    """Refuse a model that varies with something else than the position in the image."""
    names = [text([header], f"POLNAME{n + 1}") for n in range(count)]
    if count != 2 or not all(name in known for name, known in zip(names, _POSITIONS, strict=True)):
        raise FieldError(
            f"{where}: its PSF varies with {', '.join(names) or 'nothing'}, not X_IMAGE and Y_IMAGE alone; "
            "make the model with PSFVAR_KEYS X_IMAGE,Y_IMAGE"
        )
