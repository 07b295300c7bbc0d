"""Real survey images, ingested and searched; skipped where the validation data are absent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblend_batch.detect.correlation import measure_correlation
from deblend_batch.detect.extract import ExtractParams, SourceTable, extract_sources
from deblend_batch.detect.places import places_of
from deblend_batch.errors import FieldError
from deblend_batch.field.layout import Field
from deblend_batch.ingest.ingest import ingest
from deblend_batch.tiling.tile import Box

NISP = ("NIR_Y", "NIR_J", "NIR_H")


@dataclass(frozen=True)
class Survey:
    """An image, how it is ingested, and what is known of it."""

    id: str
    images: tuple[str, ...]
    sources: tuple[int, int]
    psf_arcsec: float
    zero_point: float
    options: dict[str, Any] = field(default_factory=dict)
    pixel_scale_arcsec: float = 0.1
    subtracted: bool = False
    """Makers of images take some light of galaxies with the sky: between the sources it is below zero."""
    spurious: float = 0.02


SURVEYS = [
    Survey(
        "vista",
        ("vista_video_h_stack.fits",),
        (1300, 2200),
        0.83,
        30.0,
        {"zero_points": [30.0], "bands": ["H"]},
        0.3,
        subtracted=True,
        spurious=0.2,  # a noisy rim where few exposures overlap, and no weight map
    ),
    Survey(
        "kids",
        ("kids_vst_r.fits",),
        (80, 150),
        0.573,
        0.0,
        {"zero_points": [0.0]},
        0.199,
        subtracted=True,
    ),
    Survey(
        "euclid vis",
        ("euclid_q1_vis_nisp.fits",),
        (20, 40),
        0.163,
        24.6,
        {"hdu": ["VIS_FLUX"], "rms_hdu": ["VIS_RMS"], "psf_fwhm_arcsec": [0.163]},
    ),
    Survey(
        "euclid nisp",
        ("euclid_q1_vis_nisp.fits",),
        (7, 20),
        0.425,
        29.8,
        {
            "hdu": [f"{band}_FLUX" for band in NISP],
            "rms_hdu": [f"{band}_RMS" for band in NISP],
            "psf_fwhm_arcsec": [0.425, 0.453, 0.455],
        },
        subtracted=True,
    ),
    Survey(
        "xdf",
        ("xdf_f160w_sci.fits",),
        (18, 35),
        0.18,
        25.9463,
        {
            "rms_hdu": ["{folder}/xdf_f160w_rms.fits"],
            "zero_points": [25.9463],
            "psf_fwhm_arcsec": [0.18],
        },
        0.06,
        subtracted=True,
    ),
    Survey(
        "decam",
        ("decam_g.fits", "decam_r.fits", "decam_z.fits"),
        (100, 160),
        0.484,
        30.0,
        {"bands": list("grz"), "zero_points": [30.0]},
        0.263,
        subtracted=True,
    ),
]


def make(survey: Survey, shared: Path, url: str) -> Any:
    folder = shared / "data" / "fields"
    options = dict(survey.options)
    options["rms_hdu"] = [plane.format(folder=folder) for plane in options.get("rms_hdu", [])]
    return ingest([str(folder / name) for name in survey.images], url, **options)


@pytest.fixture(scope="module")
def vista(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The largest one, ingested: its URL and the summary."""
    url = str(tmp_path_factory.mktemp("vista") / "a.zarr")
    return url, make(SURVEYS[0], shared, url)


def search(opened: Field, sign: float = 1.0) -> SourceTable:
    rows, columns = (slice(0, edge) for edge in opened.shape_yx)
    image = np.float32(sign) * opened.plane(0, rows, columns)
    sigma: Any = opened.measure_noise()[0] if opened.variance is None else None
    if sigma is None:
        sigma = np.sqrt(opened.plane(0, rows, columns, "variance"))
    bad = opened.plane(0, rows, columns, "mask") != 0 if opened.mask is not None else None
    correlation = measure_correlation(opened, 0, opened.psf_fwhm_px[0])
    params = ExtractParams(noise_correlation=correlation)
    places = places_of(opened, 0, Box(0, 0, *opened.shape_yx))
    return extract_sources(image, sigma, bad, places, params)


@pytest.mark.parametrize("survey", SURVEYS, ids=lambda survey: survey.id)
def test_an_image_is_ingested_and_searched(
    survey: Survey, shared: Path, tmp_path: Path, vista: tuple[str, Any]
) -> None:
    url, summary = vista
    if survey.id != "vista":
        url = f"{tmp_path}/a.zarr"
        summary = make(survey, shared, url)
    band = summary.bands[0]
    assert band.zero_point.value == survey.zero_point
    assert band.psf_fwhm_arcsec.value == pytest.approx(survey.psf_arcsec, rel=0.05)
    assert band.background_subtracted is survey.subtracted
    opened = Field.open(url)
    assert opened.pixel_scale_arcsec == pytest.approx(survey.pixel_scale_arcsec, rel=0.01)
    found, upside_down = search(opened), search(opened, -1.0)
    assert survey.sources[0] <= len(found) <= survey.sources[1]
    # Noise is as often negative as positive: sources of the negative image are what noise makes.
    assert len(upside_down) <= survey.spurious * len(found)


def test_the_rim_of_a_stack_without_weights_is_masked(vista: tuple[str, Any]) -> None:
    # Zeros, and zeros that a lossy compression has moved by a tenth of the noise.
    assert vista[1].bad_fraction == pytest.approx(0.088, abs=0.005)


@pytest.mark.parametrize(
    ("survey", "option", "message"),
    [
        (SURVEYS[0], "zero_points", "no zero point of -60 to 60 in its header"),
        (SURVEYS[2], "psf_fwhm_arcsec", "fewer than 5 stars"),
        (SURVEYS[5], "bands", "'H, H, H'; name each with --band"),
    ],
    ids=["vista", "euclid vis", "decam"],
)
def test_what_a_header_does_not_say_is_asked_for(
    survey: Survey, option: str, message: str, shared: Path, tmp_path: Path
) -> None:
    options = {key: value for key, value in survey.options.items() if key != option}
    spoiled = Survey(survey.id, survey.images, (0, 0), 0.0, 0.0, options)
    with pytest.raises((FieldError, ValueError), match=message):
        make(spoiled, shared, f"{tmp_path}/a.zarr")
