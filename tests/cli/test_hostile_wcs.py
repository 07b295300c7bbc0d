"""A field or an image whose WCS asks for the impossible ends in one line, at once and in little memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits

from deblend_batch.cli.main import main
from deblend_batch.field.create import create_field, finish_field
from tests.field.test_wcs import TPV
from tests.ingest.fits_files import celestial_header
from tests.limited import run_limited
from tests.support import make_meta

SECONDS = 200.0  # to start; the WCS takes none of them

AXES = ({"WCSAXES": 2_000_000}, "WCSAXES is 2000000; it must be a whole number from 0 to 9")
ORDER = ({"A_ORDER": 25_000, "B_ORDER": 25_000}, "A_ORDER is 25000; it must be a whole number")
VALUES = (
    {**TPV, "CRVAL1": 1e308, "CD1_1": 1e-308, "PV1_7": 1e300, "PV2_39": -1e308},
    "CRVAL1 is 1e+308; it must be a number from -1e+10 to 1e+10",
)


def only_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


def told(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command line in this process, for what cannot ask for much; its exit code and all it said."""
    code, said = main(words), capfd.readouterr()
    return code, said.out + said.err


def limited(words: list[str]) -> tuple[int, str]:
    """Run it in a process of its own, in little memory and little time."""
    ended = run_limited(["deblend-batch", *words], seconds=SECONDS)
    return ended.code, ended.out + ended.err


def write_config(folder: Path, cards: dict[str, Any]) -> tuple[str, str]:
    """Write a field whose metadata has these cards, and the config of a run of it."""
    field = str(folder / "a.zarr")
    meta = make_meta()
    finish_field(create_field(field, meta, (64, 64), with_variance=False), meta)
    document = json.loads(Path(field, "zarr.json").read_text())
    document["attributes"]["wcs"].update(cards)
    Path(field, "zarr.json").write_text(json.dumps(document))
    (folder / "a.csv").write_text("id,x,y,mag\n1,10,10,20\n2,12,12,21\n")
    config = {"field": field, "detections": str(folder / "a.csv"), "output": str(folder / "out")}
    (folder / "a.yaml").write_text(yaml.safe_dump(config))
    return field, str(folder / "a.yaml")


@pytest.mark.parametrize(("cards", "reason"), [AXES, VALUES], ids=["axes", "values"])
def test_a_plan_refuses_a_field_with_wild_cards(
    cards: dict[str, Any], reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    field, config = write_config(tmp_path, cards)
    words = ["plan", config]
    code, said = limited(words) if "WCSAXES" in cards else told(words, capfd)
    assert code == 2
    assert only_line(said).startswith(f"error: {field}: 'wcs' holds no usable celestial WCS (")
    assert reason in said


@pytest.mark.parametrize(("cards", "reason"), [ORDER, VALUES], ids=["order", "values"])
def test_an_image_with_wild_cards_is_refused(
    cards: dict[str, Any], reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = str(tmp_path / "a.fits")
    # Slips that astropy tells of, were it asked: nothing may stand above the line.
    header = celestial_header(**cards, radecsys="FK5", **{"date-obs": "31/12/99", "mjd-obs": 1e300})
    fits.PrimaryHDU(np.ones((64, 64), np.float32), header).writeto(image)
    words = ["ingest", image, str(tmp_path / "a.zarr"), "--zero-point", "25"]
    code, said = limited(words) if "A_ORDER" in cards else told(words, capfd)
    assert code == 2
    assert only_line(said).startswith(f"error: {image}")
    assert f"no celestial WCS in its header ({reason}" in said
    assert not (tmp_path / "a.zarr").exists()


def test_sip_that_its_ctype_does_not_name_is_left_out_and_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = str(tmp_path / "a.fits")
    header = celestial_header(a_order=2, b_order=2, a_2_0=2e-5, b_0_2=3e-5, magzero=25.0)
    pixels = np.random.default_rng(1).normal(0, 1, (64, 64)).astype(np.float32)
    fits.PrimaryHDU(pixels, header).writeto(image)
    code, said = told(["ingest", image, str(tmp_path / "a.zarr"), "--psf-fwhm", "0.5"], capfd)
    assert code == 0
    assert "without -SIP" in said
    document = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    assert document["attributes"]["wcs"]["CTYPE1"] == "RA---TAN"
