"""Files of one field, found by a survey's patterns; what a record fills, and what options keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import DeblendError, FieldError, NotFoundError
from deblend_batch.ingest.given import Given, by_band
from deblend_batch.ingest.header.mask_names import BitChoice
from deblend_batch.ingest.survey.files import find_files
from deblend_batch.ingest.survey.given import FoundFiles, completed
from deblend_batch.surveys.record import SurveyRecord
from deblend_batch.surveys.shipped import load_survey, shipped_surveys

BRICK = "legacysurvey-0001m002"
TILE = "TILE102070858-5ED2D5_20241105T125727.727353Z_00.00.fits"
SETS: dict[str, list[str]] = {
    "rubin-dp1": ["deep_coadd_9813_r.fits"],
    "rubin-dp2": ["coadd_i.fits"],
    "hsc-pdr3": ["calexp-HSC-I-9813-4,5.fits"],
    "euclid-mer": [
        f"EUC_MER_BGSUB-MOSAIC-VIS_{TILE}",
        f"EUC_MER_MOSAIC-VIS-RMS_{TILE.replace('5ED2D5', 'AAAAAA')}",
        f"EUC_MER_MOSAIC-VIS-FLAG_{TILE}",
        f"EUC_MER_GRID-PSF-VIS_{TILE}",
        f"EUC_MER_MOSAIC-NIR-H-RMS_{TILE}",
        f"EUC_MER_MOSAIC-VIS-RMS_{TILE.replace('102070858', '102070859')}",
    ],
    "legacy-dr10": [
        f"{BRICK}-{kind}.fits.fz"
        for kind in ("image-r", "invvar-r", "maskbits", "psfsize-r", "image-g")
    ],
    "des-y6": ["DES0131-3206_r4920p01_r.fits.fz", "DES0131-3206_r4920p01_r_psfcat.psf"],
    "kids-dr5": [f"KiDS_DR5.0_140.0_-0.5_r_{kind}.fits" for kind in ("sci", "wei", "msk")],
    "jwst-i2d": ["jw01345-o001_t021_nircam_clear-f444w_i2d.fits"],
    "hst-drz": ["j8pu01010_drc.fits"],
    "roman-l3": ["r00001_p_visit_f158_coadd.asdf"],
    "panstarrs": [
        f"rings.v3.skycell.1335.014.stk.i.unconv.{kind}"
        for kind in ("fits", "wt.fits", "mask.fits")
    ],
}
"""The first is the image."""


def lister(names: Sequence[str]) -> Any:
    return lambda folder: [each for each in names if folder.rstrip("/") == "/data"]


def found(survey: str, names: Sequence[str], images: Sequence[str] = (), **options: Any) -> Given:
    given_ = Given(images=tuple(images) or (f"/data/{names[0]}",), **options)
    return completed(given_, load_survey(survey), lister(names))


def test_each_survey_has_a_set() -> None:
    assert SETS.keys() == shipped_surveys().keys()


@pytest.mark.parametrize("survey", SETS)
def test_a_set_is_found_whole(survey: str) -> None:
    record = load_survey(survey)
    filled = found(survey, SETS[survey])
    (band,) = by_band(filled, filled.sources())
    planes = {"noise": band.source.noise, "mask": band.source.mask, "psf": band.source.psf}
    for key, plane in planes.items():
        wanted = getattr(record, key)
        assert (plane is None) == (wanted is None or not wanted.is_placed)
        if plane is not None:
            assert plane.url.startswith("/data/")
            assert (plane.url == band.source.image.url) == (wanted.file is None)
            assert plane.hdu == wanted.hdu
    assert band.source.noise_kind == (record.noise and record.noise.kind)
    assert (band.usual_zero_point is None) == (record.zero_point is None)
    assert (band.name is None) == (record.band == "header")


@given(
    st.sampled_from(list(SETS)),
    st.fixed_dictionaries(
        {},
        optional={
            "noise": st.just({"rms": ("MINE",)}),
            "mask": st.sampled_from([("MINE",), ("none",)]),
            "psf": st.just(("mine.psf",)),
            "bands": st.just(("mine",)),
            "zero_points": st.just((12.0,)),
            "bits": st.just(BitChoice(("3",))),
            "hdu": st.just((7,)),
        },
    ),
)
def test_options_count_for_more(survey: str, options: dict[str, Any]) -> None:
    usual, filled = found(survey, SETS[survey]), found(survey, SETS[survey], **options)
    for key in ("noise", "mask", "psf", "bands", "zero_points", "bits", "hdu"):
        assert getattr(filled, key) == options.get(key, getattr(usual, key))
    (band,) = by_band(filled, filled.sources())
    assert band.source.image.hdu == (7 if "hdu" in options else load_survey(survey).image.hdu)


def test_a_width_needs_no_file_of_the_psf() -> None:
    assert found("legacy-dr10", SETS["legacy-dr10"], psf_fwhm_arcsec=(1.0,)).psf == ()


def test_a_folder_is_all_bands_of_its_field() -> None:
    names = [f"{BRICK}-{kind}-{band}.fits.fz" for band in "grz" for kind in ("image", "invvar")]
    filled = found("legacy-dr10", names, ["/data"])
    bands = by_band(filled, filled.sources())
    assert [each.name for each in bands] == ["g", "r", "z"]
    assert [each.source.noise.url[-16:] for each in bands if each.source.noise] == [
        f"invvar-{band}.fits.fz" for band in "grz"
    ]
    given_all = found("legacy-dr10", names, [f"/data/{each}" for each in names])
    assert given_all.images == filled.images


def test_bands_without_a_mask_have_none() -> None:
    names = [
        f"EUC_MER_{kind}_{TILE}"
        for band in ("VIS", "NIR-H")
        for kind in (f"BGSUB-MOSAIC-{band}", f"MOSAIC-{band}-RMS", f"MOSAIC-{band}-FLAG")
    ]
    filled = found("euclid-mer", names, ["/data"])
    bands = by_band(filled, filled.sources())
    assert {each.name: each.source.mask is not None for each in bands} == {
        "VIS": True,
        "NIR-H": False,
    }


def test_what_is_found_is_shown() -> None:
    shown: list[FoundFiles] = []
    names = SETS["legacy-dr10"][:3]
    given_ = Given(images=(f"/data/{names[0]}",), mask=("mine.fits",))
    completed(given_, load_survey("legacy-dr10"), lister(names), shown.append)
    head, row = shown[0].to_rows()
    assert head == ("band", "image", "noise", "mask", "psf")
    assert row == ("r", f"/data/{names[0]}", f"/data/{names[1]}", "as given", "-")


@pytest.mark.parametrize(
    ("survey", "names", "images", "kind", "message"),
    [
        (
            "legacy-dr10",
            [f"{BRICK}-image-r.fits"],
            (),
            NotFoundError,
            rf"no noise plane {BRICK}-invvar-r\.fits\* beside it.*--weight-hdu FILE, or --weight-hdu none",
        ),
        (
            "legacy-dr10",
            [f"{BRICK}-{each}" for each in ("image-r.fits", "invvar-r.fits", "invvar-r.fits.fz")],
            (),
            FieldError,
            "2 files may be its noise plane",
        ),
        (
            "legacy-dr10",
            ["mosaic.fits"],
            (),
            FieldError,
            "is not called as legacy-dr10's images are",
        ),
        (
            "legacy-dr10",
            ["a-image-r.fits", "b-image-r.fits"],
            ["/data"],
            FieldError,
            r"holds images of 2 fields of legacy-dr10 \(a-image-r\.fits, b-image-r\.fits",
        ),
        ("legacy-dr10", ["a.txt"], ["/data/"], NotFoundError, "holds no image of legacy-dr10"),
    ],
    ids=["missing", "ambiguous", "called otherwise", "two fields", "none"],
)
def test_what_is_missing_or_ambiguous_ends_in_one_line(
    survey: str, names: list[str], images: list[str], kind: type[DeblendError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        found(survey, names, images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("survey", ["rubin-dp2", "jwst-i2d", "hst-drz", "roman-l3"])
def test_where_all_is_in_one_file_no_folder_is_listed(survey: str) -> None:
    def refuse(_: str) -> list[str]:
        raise AssertionError

    given_ = Given(images=("https://archive.org/called/otherwise.fits",))
    assert completed(given_, load_survey(survey), refuse).images[0].startswith("https://archive")


def test_planes_may_lie_elsewhere() -> None:
    record = SurveyRecord.model_validate(
        {
            "name": "mine",
            "title": "t",
            "source": ["s"],
            "known_from": "k",
            "image": {"file": "{a}_sci.fits"},
            "noise": {"kind": "rms", "file": "{a}_rms.fits"},
        }
    )
    (files,) = find_files(["/x/q_sci.fits", "/y/q_rms.fits"], record, ["noise"], lambda _: [])
    assert files.planes == {"noise": "/y/q_rms.fits"}
