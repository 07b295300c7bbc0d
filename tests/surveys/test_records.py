"""Records of surveys: those that ship, those that users write, and what they make of a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.config import make_config
from deblend_batch.detections.columns import DETECTION_COLUMNS, check_mapping
from deblend_batch.detections.where import Condition
from deblend_batch.engine.inputs.survey import list_fields
from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.field.mask_bits import marks_sources
from deblend_batch.settings import checked
from deblend_batch.surveys.record import SurveyRecord
from deblend_batch.surveys.shipped import load_survey, shipped_surveys
from deblend_batch.surveys.tables import table_of

NAMES = list(shipped_surveys())
MINE: dict[str, Any] = {
    "name": "mine",
    "title": "a survey of ours",
    "source": ["a wiki"],
    "known_from": "ourselves",
    "image": {"file": "t{tile:\\d+}_{band}.fits", "hdu": "SCI"},
    "band": "name",
    "noise": {"kind": "rms", "file": "t{tile}_{band}_rms.fits"},
}


def test_those_that_are_promised_ship() -> None:
    promised = "rubin-dp1 rubin-dp2 hsc-pdr3 euclid-mer legacy-dr10 des-y6 kids-dr5 jwst-i2d hst-drz roman-l3"
    assert set(NAMES) == {*promised.split(), "panstarrs"}


@pytest.mark.parametrize("name", NAMES)
def test_a_record_that_ships_holds_together(name: str) -> None:
    record = load_survey(name)
    assert record.name == name
    assert record.source
    assert SurveyRecord.model_validate(record.model_dump(mode="json")) == record
    if record.mask is not None:
        assert not any(marks_sources(bit) for bit in record.mask.bad or ())
    if record.detections is not None:
        table = table_of(record, "g")
        check_mapping(table.columns, DETECTION_COLUMNS, name)
        assert {"id", "ra", "dec"} <= table.columns.keys()
        assert "{b" not in str(table.columns).lower()
        if table.where is not None:
            assert Condition(table.where).columns


@given(st.sampled_from(NAMES))
def test_a_user_can_write_what_ships(name: str) -> None:
    record = load_survey(name)
    written = yaml.safe_load(yaml.safe_dump(record.model_dump(mode="json", exclude_defaults=True)))
    assert checked(SurveyRecord, written, None, "mine.yaml") == record


def test_a_record_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINE))
    assert load_survey(str(path)).noise == SurveyRecord.model_validate(MINE).noise
    with pytest.raises(NotFoundError, match=r"other\.yaml"):
        load_survey(f"{tmp_path}/other.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titles": "x"}, "unknown key 'titles'; did you mean 'title'"),
        (
            {"noise": {"kindd": "rms", "hdu": 1}},
            r"unknown key 'noise\.kindd'; did you mean 'noise\.kind'",
        ),
        (
            {"noise": {"kind": "sigma", "hdu": 1}},
            "noise.kind must be 'rms', 'weight' or 'variance'",
        ),
        ({"noise": {"kind": "rms"}}, "give 'file', 'hdu' or both"),
        (
            {"noise": {"kind": "rms", "file": "{cell}.fits"}},
            r"part \{cell\} that 'image.file' does not",
        ),
        ({"image": {"hdu": 1}, "noise": None}, "'band: name' needs a part"),
        ({"image": {"file": "{band"}}, "not closed"),
        ({"mask": {"hdu": 2, "bits": {"A": 1, "B": 1}}}, "two names to one bit"),
        ({"mask": {"hdu": 2, "bits": {"A": 1}, "bad": ["B"]}}, "'bad' names 'B'"),
        ({"mask": {"hdu": 2, "bits": {"A": 64}}}, "less than or equal to 63"),
        ({"name": "My Survey"}, "'name' must be of small letters"),
        ({"zero_point": "bright"}, "zero_point must be a valid number"),
        ({"zero_point": True}, "zero_point is true: yes or no, where a number"),
        ({"mask": {"hdu": 2, "bits": {"A": True}}}, r"mask\.bits is .*: yes or no"),
        ({"image": {"file": "{tile:[}_{band}"}}, r"has a part '\[' that is no regular expression"),
    ],
)
def test_what_a_record_cannot_say_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINE | change))
    with pytest.raises(ConfigError, match=message):
        load_survey(str(path))


def test_the_nearest_survey_is_named() -> None:
    with pytest.raises(ConfigError, match="no survey 'legacy-dr9'; did you mean legacy-dr10"):
        load_survey("legacy-dr9")


def config(detections: dict[str, Any], **top: Any) -> Any:
    values = {"field": "/f.zarr", "output": "/o", "detections": detections}
    return make_config(values | top)


def test_a_survey_tells_how_its_table_is_read() -> None:
    made = config({"survey": "rubin-dp1", "table": "/t.parquet", "band": "r"})
    reading = made.reading(None)
    assert reading.columns["mag"].flux == "r_cModelFlux"
    assert (reading.columns["ra"], reading.where) == ("coord_ra", "detect_isPrimary")
    # What is kept is spelt out, and means the same when it is read again.
    assert make_config(made.public()) == made
    assert reading.survey is None


@given(
    st.sampled_from([name for name in NAMES if load_survey(name).detections]),
    st.dictionaries(st.sampled_from(["id", "mag", "radius", "ra"]), st.just("MINE")),
    st.booleans(),
    st.booleans(),
)
def test_what_the_config_says_counts_for_more(
    name: str, own: dict[str, str], at_top: bool, with_where: bool
) -> None:
    section: dict[str, Any] = {"survey": name, "table": "/t.fits", "band": "g"}
    said = {"columns": own, **({"where": "mine > 1"} if with_where else {})}
    made = config(section, **said) if at_top else config(section | said)
    usual = table_of(load_survey(name), "g")
    reading = made.reading(None)
    assert reading.columns == {**usual.columns, **own}
    assert reading.where == ("mine > 1" if with_where else usual.where)


def test_a_condition_can_be_left_out_and_pixels_can_count() -> None:
    section = {"survey": "legacy-dr10", "table": "/t.fits", "where": None}
    assert config(section).reading(None).where is None
    pixels = config(section | {"columns": {"x": "bx", "y": "by"}}).reading(None)
    assert "ra" not in pixels.columns
    assert pixels.columns["x"] == "bx"


def test_each_field_of_a_survey_may_have_its_own() -> None:
    entries = [{"field": "/a.zarr", "detections": {"survey": "kids-dr5", "table": "/a.fits"}}]
    ((_, reading),) = list_fields(make_config({"survey": entries, "output": "/o"}))
    assert reading.columns is not None
    assert reading.columns["id"] == "ID"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"survey": "hst-drz"}, "the record of hst-drz tells nothing of a catalogue"),
        (
            {"survey": "rubin-dp3"},
            r"detections\.survey: no survey 'rubin-dp3'; did you mean rubin-dp2",
        ),
        ({"band": "r"}, r"give detections\.survey too"),
        ({"surve": "x"}, "did you mean 'detections.survey'"),
    ],
)
def test_what_no_survey_says_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config({"table": "/t.fits", **section})
