"""Progress in a log: a line now and then, none twice."""

from __future__ import annotations

import io
import time

import pytest

from deblend_batch import progress
from deblend_batch.progress import ProgressMeter


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every line be due."""
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)


def test_a_tick_repeats_no_line() -> None:
    log = io.StringIO()
    meter = ProgressMeter("pairs", log)
    meter.expect(186, 0)
    meter.tick()
    meter.tick()
    assert log.getvalue() == "pairs 0/186\n"
    meter.advance(3, "tiles 1/9")
    meter.tick()
    assert [line.split("  ")[:2] for line in log.getvalue().splitlines()[1:]] == [
        ["tiles 1/9", "pairs 3/186"]
    ]


def test_what_an_earlier_start_did_counts_but_not_for_the_rate() -> None:
    log = io.StringIO()
    meter = ProgressMeter("pairs", log)
    meter.expect(186, 100)
    assert meter.eta_seconds is None
    meter.start()
    meter.advance(43, "tiles 7/9")
    assert "tiles 7/9  pairs 143/186  " in log.getvalue()
    assert meter.eta_seconds == pytest.approx(43 / meter.rate, rel=0.1)
    assert meter.rate * (time.monotonic() - meter._started) == pytest.approx(43, rel=0.1)


def test_the_last_line_is_said_once() -> None:
    log = io.StringIO()
    meter = ProgressMeter("tiles", log)
    meter.reach("detecting", 1, 1)
    meter.close()
    assert log.getvalue().count("tiles 1/1") == 1


def test_close_says_what_no_tick_has_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 1e9)
    log = io.StringIO()
    meter = ProgressMeter("tiles", log)
    meter.reach("detecting", 1, 1)
    assert log.getvalue() == ""
    meter.close()
    assert log.getvalue().count("tiles 1/1") == 1
