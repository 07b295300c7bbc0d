"""The lock names the versions that constraints.txt pins, each with the digest of one file."""

from __future__ import annotations

import re
import tomllib

from deploy.lock import EXTRAS, LEFT_OUT, normalised, pins
from tests.deploy.reading import ROOT

CONSTRAINTS, LOCK = ROOT / "constraints.txt", ROOT / "requirements.lock"


def test_the_lock_and_the_constraints_agree_on_every_version() -> None:
    wanted = {name: pin for name, pin in pins(CONSTRAINTS).items() if name not in LEFT_OUT}
    assert pins(LOCK) == wanted


def test_every_version_has_a_digest() -> None:
    lines = [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    assert [
        line for line in lines if not re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line)
    ] == []
    assert len(lines) > 150


def test_everything_that_pyproject_asks_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert sorted(extras) == EXTRAS.split(",")
    asked = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    names = {normalised(re.split(r"[\[<>=; ]", each)[0]) for each in asked} - {"deblend-batch"}
    assert names <= pins(CONSTRAINTS).keys()
