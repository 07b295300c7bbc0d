"""The footprint of a field: polygons anywhere on the sphere, or one line why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import FieldError
from deblend_batch.field.footprint import Footprint
from deblend_batch.field.meta import FieldMeta
from tests.support import make_meta


def footprint_of(*polygons: list[list[float]]) -> Footprint:
    """Read a footprint as a field has it."""
    found = Footprint.from_attributes({"footprint": list(polygons)}, "f.zarr")
    assert found is not None
    return found


@settings(max_examples=40)
@given(
    ra=st.sampled_from([0.0, 359.9, 150.0]),
    dec=st.sampled_from([-90.0, 0.0, 45.0, 90.0]),
    radius=st.floats(0.01, 60),
    n=st.integers(3, 12),
    way=st.sampled_from([1, -1]),
)
def test_a_polygon_holds_its_middle_and_not_what_is_beyond(
    ra: float, dec: float, radius: float, n: int, way: int
) -> None:
    from astropy.coordinates import SkyCoord

    middle = SkyCoord(ra, dec, unit="deg")
    angles = way * np.arange(n) * 360 / n
    corners = middle.directional_offset_by(angles * _deg(), radius * _deg())
    polygon = np.column_stack([corners.ra.deg, corners.dec.deg])
    found = footprint_of(polygon.tolist())
    inside = middle.directional_offset_by(angles * _deg(), 0.49 * radius * _deg())
    outside = middle.directional_offset_by(angles * _deg(), 1.01 * radius * _deg())
    for place, holds in ((inside, True), (outside, False), (corners, True)):
        radec = np.column_stack([place.ra.deg, place.dec.deg])
        assert (found.holds(radec) == holds).all()
    assert not found.holds(np.array([(np.nan, np.nan), ((ra + 180) % 360, -dec)])).any()
    assert footprint_of(*found.to_attributes()["footprint"]) == found


def _deg() -> Any:
    from astropy import units

    return units.deg


def test_a_field_keeps_its_footprint() -> None:
    meta = make_meta(footprint=footprint_of([[0, 0], [1, 0], [0, 1]], [[5, 0], [6, 0], [5, 1]]))
    assert FieldMeta.from_attributes(meta.to_attributes(), "f.zarr") == meta
    assert meta.footprint is not None
    assert meta.footprint.holds(np.array([(0.2, 0.2), (5.2, 0.2), (3.0, 0.2)])).tolist() == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "must be a list of 1 to 1000 polygons"),
        ([], "must be a list of 1 to 1000 polygons"),
        ([[0, 1]], r"must list 3 to 1000 corners \[ra, dec\] in degrees"),
        ([[[0, 0], [1, 0], [0, 91]]], "-90 <= dec <= 90"),
        ([[[0, 0], [1, 0], ["0", 1]]], "must list 3 to 1000 corners"),
        ([[[0, 0], [1, 0], [np.nan, 1]]], "must list 3 to 1000 corners"),
        ([[[0, 0], [1, 1], [1, 0], [0, 1]]], "not convex"),
        ([[[0, 0], [2, 0], [1, 1], [1, 0.2]]], "not convex"),
        ([[[0, 0], [1, 0], [2, 0]]], "no area"),
        ([[[0, 0], [0, 0], [1, 1]]], "a corner twice"),
        ([[[0, 0], [120, 0], [240, 0]]], "half the sky"),
        ([[[0, 0], [1, 0], [0, 1], [0, 0], [1, 0], [0, 1]]], "a corner twice"),
    ],
)
def test_what_is_no_footprint_is_refused(given: Any, message: str) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        Footprint.from_attributes({"footprint": given}, "f.zarr")
    assert str(caught.value).startswith("f.zarr: attribute 'footprint'")
