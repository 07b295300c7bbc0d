"""What is given of an ingestion's bands, by options and by a survey's record (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deblend_batch.errors import ConfigError
from deblend_batch.ingest.header.mask_names import NO_CHOICE, BitChoice
from deblend_batch.ingest.sources import BandSource, NoiseKind, list_sources, per_band


@dataclass(frozen=True)
class UsualZeroPoint:
    """The zero point of a survey's images, which counts where their header tells none.

    Parameters
    ----------
    value : float
        AB magnitude of one image unit.
    survey : str
        Name of the survey.
    """

    value: float
    survey: str


@dataclass(frozen=True)
class Given:
    """What is given; where nothing is, the files are to say.

    Parameters
    ----------
    images : tuple of str
        ``FILE`` or ``FILE[HDU]``.
    hdu : tuple of str or int
        HDUs of the images.
    noise : mapping
        Noise planes, by their kind.
    mask, psf : tuple of str or int
        Planes, as ``--mask-hdu`` and ``--psf`` name them.
    bits : BitChoice
        What the mask's bits mean.
    bands : tuple of str
        Names of the bands.
    zero_points, psf_fwhm_arcsec : tuple of float
        AB magnitudes of one image unit, and arcsec.
    usual_zero_point : UsualZeroPoint, optional
        Where neither an option nor the header tells it.
    """

    images: tuple[str, ...]
    hdu: tuple[str | int, ...] = ()
    noise: Mapping[NoiseKind, Sequence[str | int]] = field(default_factory=dict)
    mask: tuple[str | int, ...] = ()
    psf: tuple[str | int, ...] = ()
    bits: BitChoice = NO_CHOICE
    bands: tuple[str, ...] = ()
    zero_points: tuple[float, ...] = ()
    psf_fwhm_arcsec: tuple[float, ...] = ()
    usual_zero_point: UsualZeroPoint | None = None

    def sources(self) -> list[BandSource]:
        """Match images with their planes.

        Raises
        ------
        ConfigError
            If options contradict each other.
        """
        if self.psf and self.psf_fwhm_arcsec:
            raise ConfigError("--psf and --psf-fwhm exclude each other; give the one that is right")
        return list_sources(self.images, self.hdu, dict(self.noise), self.mask, self.psf)


@dataclass(frozen=True)
class GivenBand:
    """What is given of one band; None where its files are to say.

    Parameters
    ----------
    source : BandSource
        Its planes.
    name : str, optional
        Name of the band.
    zero_point : float, optional
        AB magnitude of one image unit.
    psf_fwhm_arcsec : float, optional
        Width of the PSF.
    bits : BitChoice
        What its mask's bits mean.
    usual_zero_point : UsualZeroPoint, optional
        Where neither an option nor the header tells it.
    """

    source: BandSource
    name: str | None = None
    zero_point: float | None = None
    psf_fwhm_arcsec: float | None = None
    bits: BitChoice = NO_CHOICE
    usual_zero_point: UsualZeroPoint | None = None


def by_band(given: Given, sources: Sequence[BandSource]) -> list[GivenBand]:
    """Spread what is given over the bands.

    Parameters
    ----------
    given : Given
        By options and a record.
    sources : sequence of BandSource
        One a band.

    Raises
    ------
    ConfigError
        If an option contradicts the number of bands.
    """
    count = len(sources)
    names = per_band(given.bands, count, "--band")
    zero_points = per_band(_finite(given.zero_points, "--zero-point"), count, "--zero-point")
    widths = per_band(_positive(given.psf_fwhm_arcsec, "--psf-fwhm"), count, "--psf-fwhm")
    return [
        GivenBand(source, name, zero_point, width, given.bits, given.usual_zero_point)
        for source, name, zero_point, width in zip(sources, names, zero_points, widths, strict=True)
    ]


def _finite(values: Sequence[float], option: str) -> Sequence[float]:
    for value in values:
        if not math.isfinite(value):
            raise ConfigError(f"{option} must be a finite number, not {value:g}")
    return values


def _positive(values: Sequence[float], option: str) -> Sequence[float]:
    for value in _finite(values, option):
        if value <= 0:
            raise ConfigError(f"{option} must be positive, not {value:g}")
    return values
