"""Patterns of names: what they match, and which files they join."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.surveys.names import NamePattern

WORDS = st.text("abcXYZ019_+,.-", min_size=1, max_size=12)


@given(WORDS, WORDS, st.sampled_from(["g", "r", "NIR-H"]))
def test_a_name_gives_its_parts_back(prefix: str, tile: str, band: str) -> None:
    pattern = NamePattern(prefix + "{tile:.+}/".strip("/") + "@{band:[^@]+}@*.fits")
    found = pattern.match(f"{prefix}{tile}@{band}@2026.fits")
    assert found == {"tile": tile, "band": band}


@given(WORDS, WORDS)
def test_parts_that_are_known_must_be_the_same(tile: str, other: str) -> None:
    image, rms = NamePattern("sci@{tile}.fits*"), NamePattern("rms@{tile}.fits*")
    parts = image.match(f"sci@{tile}.fits.gz")
    assert parts == {"tile": tile}
    assert rms.matches(f"rms@{tile}.fits", parts)
    assert rms.matches(f"rms@{other}.fits", parts) == (other == tile)
    assert rms.filled(parts) == f"rms@{tile}.fits*"


def test_a_part_that_stands_twice_is_one() -> None:
    pattern = NamePattern("{a}-x-{a}.fits")
    assert pattern.match("q-x-q.fits") == {"a": "q"}
    assert pattern.match("q-x-r.fits") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be the pattern"),
        ("a/b.fits", "without '/'"),
        ("a{b.fits", "not closed"),
        ("{Band}.fits", "has a part 'Band'"),
        ("{a:[}.fits", "no regular expression"),
    ],
)
def test_what_is_no_pattern_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NamePattern(text)
