"""What ingestion found and made, for people and for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.ingest.header.headers import Found
from deblend_batch.ingest.measure import MeasuredBand
from deblend_batch.ingest.psf.cells import MeasuredPsf
from deblend_batch.text import redacted


@dataclass(frozen=True)
class PsfSummary:
    """What stars said of a band's PSF.

    Parameters
    ----------
    stars : int
        How many.
    kernel_cells_yx : tuple of int, optional
        Number of cells along y and x with a kernel each; None where stars are too faint.
    width_cells_yx : tuple of int
        Number of cells with a width each.
    fwhm_arcsec : tuple of float
        Least and largest width.
    """

    stars: int
    kernel_cells_yx: tuple[int, int] | None
    width_cells_yx: tuple[int, int]
    fwhm_arcsec: tuple[float, float]

    def describe(self) -> str:
        """Return it as text."""
        low, high = self.fwhm_arcsec
        height, width = self.kernel_cells_yx or self.width_cells_yx
        what = "widths" if self.kernel_cells_yx is None else "kernels"
        return (
            f"{what} in {height} x {width} cells from {self.stars} stars ({low:.3f} to {high:.3f})"
        )


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
    background_scatter : float
        Robust scatter of that level over the image, image units.
    background_subtracted : bool
        Whether the smooth background was subtracted.
    noise_sigma : float
        Measured background rms per pixel, image units.
    plane_sigma : float or None
        Median of the noise plane as an rms; where it differs much from ``noise_sigma`` the pixels'
        noise is correlated, or the plane is on another scale.
    noise_correlation : float or None
        Noise of sums over many pixels, over that of independent ones; None where there is too little sky.
    saturate : Found or None
        Pixel value from which the field's pixels are saturated, and the keyword that gave it.
    psf : PsfSummary or None
        What stars said of the PSF; None where they were not asked, or there are too few.
    halos : int
        Saturated stars whose halos the mask marks.
    mask_bits : MaskBits or None
        Bits of the mask that have names, and which are bad; None where any bit is bad.
    checks : tuple of str
        What the file says against what the image shows.
    notes : tuple of str
        What was decided between cards that contradict each other, and what was assumed.
    """

    name: str
    image: str
    zero_point: Found
    psf_fwhm_arcsec: Found
    background: float
    background_scatter: float
    background_subtracted: bool
    noise_sigma: float
    plane_sigma: float | None
    noise_correlation: float | None
    saturate: Found | None
    psf: PsfSummary | None
    halos: int = 0
    mask_bits: MaskBits | None = None
    checks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the band in one line of text."""
        unit, of_unit = (
            (self.noise_sigma, "of the noise") if self.noise_sigma > 0 else (1.0, "in its unit")
        )
        parts = [
            f"zero point {self.zero_point.value:.3f} ({self.zero_point.source})",
            f"PSF {self.psf_fwhm_arcsec.value:.3f} arcsec ({self.psf_fwhm_arcsec.source})",
            *([self.psf.describe()] if self.psf else []),
            f"noise {self.noise_sigma:.3g}"
            + (f" (sums {self.noise_correlation:.2f})" if self.noise_correlation else ""),
            f"sky {self.background / unit:+.2f} +- {self.background_scatter / unit:.2f} {of_unit}, "
            + ("subtracted" if self.background_subtracted else "kept"),
        ]
        if self.saturate is not None:
            parts.append(f"saturated from {self.saturate.value:.5g} ({self.saturate.source})")
        elif not self.halos:
            parts.append("saturation not stated: halos of bright stars are not masked")
        if self.halos:
            parts.append(f"halos of {self.halos:,} saturated stars")
        if self.mask_bits is not None:
            parts.append(f"bad bits {' '.join(self.mask_bits.bad)}")
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
    suggestion : str
        The survey's preset that knows such files, where none was asked for.
    """

    url: str
    name: str
    shape_yx: tuple[int, int]
    pixel_scale_arcsec: float
    bands: tuple[BandSummary, ...]
    bad_fraction: float
    seconds: float
    suggestion: str = ""

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
            *((f"check {band.name}", text) for band in self.bands for text in band.checks),
            *((f"note {band.name}", note) for band in self.bands for note in band.notes),
            *([("suggestion", self.suggestion)] if self.suggestion else []),
            ("bad pixels", f"{self.bad_fraction:.2%}"),
            ("seconds", f"{self.seconds:.1f}"),
        ]


def summarise(item: MeasuredBand, number: int, psf: MeasuredPsf | None) -> BandSummary:
    """Summarise a measured band, the ``number``-th of a field."""
    return BandSummary(
        name=item.band.name,
        image=redacted(item.band.image.label),
        zero_point=item.band.zero_point,
        psf_fwhm_arcsec=item.psf_fwhm_arcsec,
        background=item.level,
        background_scatter=item.level_scatter,
        background_subtracted=item.surface is not None,
        noise_sigma=item.noise_sigma,
        plane_sigma=item.plane_sigma,
        noise_correlation=item.noise_correlation,
        saturate=item.saturate,
        psf=_psf_summary(psf, number),
        halos=len(item.halos),
        mask_bits=item.band.mask_bits,
        checks=tuple(check.text for check in item.checks),
        notes=item.band.notes,
    )


def _psf_summary(measured: MeasuredPsf | None, number: int) -> PsfSummary | None:
    if measured is None or measured.n_stars[number] == 0:
        return None
    kernels = measured.psf.kernels
    return PsfSummary(
        stars=measured.n_stars[number],
        kernel_cells_yx=None if kernels is None else kernels.grid.counts_yx,
        width_cells_yx=measured.psf.grid.counts_yx,
        fwhm_arcsec=measured.width_range_arcsec(number),
    )
