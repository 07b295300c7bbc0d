"""surveys, the verb."""

from __future__ import annotations

import json

import pytest

from deblend_batch.cli.main import main
from deblend_batch.surveys.record import SurveyRecord
from deblend_batch.surveys.shipped import shipped_surveys


def test_it_lists_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surveys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_surveys())
    assert all(len(line) < 100 for line in lines)


def test_it_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surveys", "euclid-mer"]) == 0
    text = capsys.readouterr().out
    assert "noise.kind" in text
    assert "mask.bits.STARSIGNAL" in text
    assert "euclid.esac.esa.int" in text


def test_scripts_read_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surveys", "--json"]) == 0
    every = json.loads(capsys.readouterr().out)
    assert [SurveyRecord.model_validate(each) for each in every] == list(shipped_surveys().values())
    assert main(["surveys", "des-y6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["zero_point"] == 30


def test_a_name_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surveys", "des-y5"]) == 2
    assert "did you mean des-y6?" in capsys.readouterr().err
