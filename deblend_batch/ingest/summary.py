"""What ingestion found and made, for people and for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deblend_batch.ingest.headers import Found
from deblend_batch.ingest.measure import MeasuredBand
from deblend_batch.text import redacted


@dataclass(frozen=True)
class BandSummary:
    """What ingestion found for one band.

    Parameters
    ----------
    name : str
        Name of the band.
    image : str
        File and HDU.
    zero_point : Found
        AB magnitude of one image unit, and the keyword (or ``option``) that gave it.
    psf_fwhm_arcsec : Found
        And the keyword, ``option``, or ``measured from N stars``.
    background : float
        Median sky level, image units, before subtraction.
    background_subtracted : bool
        Whether the smooth background was subtracted.
    noise_sigma : float
        Measured background rms per pixel, image units.
    plane_sigma : float or None
        Median of the noise plane as an rms; where it differs much from ``noise_sigma`` the pixels'
        noise is correlated, or the plane is on another scale.
    """

    name: str
    image: str
    zero_point: Found
    psf_fwhm_arcsec: Found
    background: float
    background_subtracted: bool
    noise_sigma: float
    plane_sigma: float | None

    def describe(self) -> str:
        """Return the band in one line of text."""
        sky = self.background / self.noise_sigma if self.noise_sigma > 0 else self.background
        parts = [
            f"zero point {self.zero_point.value:.3f} ({self.zero_point.source})",
            f"PSF {self.psf_fwhm_arcsec.value:.3f} arcsec ({self.psf_fwhm_arcsec.source})",
            f"noise {self.noise_sigma:.3g}",
            f"sky {sky:+.2f} of the noise, {'subtracted' if self.background_subtracted else 'kept'}",
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class IngestSummary:
    """What ingestion made.

    Parameters
    ----------
    url : str
        The field.
    name : str
        Its name.
    shape_yx : tuple of int
        Rows and columns.
    pixel_scale_arcsec : float
        Edge of a pixel.
    bands : tuple of BandSummary
        In the order of the planes.
    bad_fraction : float
        Fraction of pixels, over all bands, that are NaN or masked.
    seconds : float
        Wall time.
    """

    url: str
    name: str
    shape_yx: tuple[int, int]
    pixel_scale_arcsec: float
    bands: tuple[BandSummary, ...]
    bad_fraction: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the summary as names and texts."""
        height, width = self.shape_yx
        return [
            ("field", self.url),
            ("pixels", f"{height:,} x {width:,} of {self.pixel_scale_arcsec:.4g} arcsec"),
            *((f"band {band.name}", band.describe()) for band in self.bands),
            ("bad pixels", f"{self.bad_fraction:.2%}"),
            ("seconds", f"{self.seconds:.1f}"),
        ]


def summarise(item: MeasuredBand) -> BandSummary:
    """Summarise a measured band."""
    return BandSummary(
        name=item.band.name,
        image=redacted(item.band.image.label),
        zero_point=item.band.zero_point,
        psf_fwhm_arcsec=item.psf_fwhm_arcsec,
        background=item.level,
        background_subtracted=item.surface is not None,
        noise_sigma=item.noise_sigma,
        plane_sigma=item.plane_sigma,
    )
