"""Detections for tests of blends: on a flat sky, or anywhere on the sphere."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblend_batch.detections.table import Detections
from deblend_batch.tiling.blending import Sky, central_first, describe_blends
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.grouping import BlendRules, group_sources

SCALE_ARCSEC = 0.1
SHAPE_YX = (400, 400)


def sky_at(
    yx: NDArray[np.float64],
    *,
    ids: Any = None,
    mag: Any = None,
    radius: Any = None,
    ra: float = 150.0,
    dec: float = 0.0,
) -> Detections:
    """Detections at pixel positions on a nearly flat sky of 0.1 arcsec a pixel."""
    n = len(yx)
    unknown = np.full(n, np.nan, np.float32)
    declination = dec + yx[:, 0] * SCALE_ARCSEC / 3600
    return Detections(
        id=np.arange(1, n + 1) if ids is None else np.asarray(ids, np.int64),
        ra=(ra + yx[:, 1] * SCALE_ARCSEC / 3600 / np.cos(np.radians(dec))) % 360,
        dec=declination,
        yx=yx,
        mag=unknown if mag is None else np.asarray(mag, np.float32),
        radius_arcsec=unknown if radius is None else np.asarray(radius, np.float32),
    )


def blends_of(found: Detections, rules: BlendRules | None = None) -> Blends:
    """Group and describe detections that have pixel positions."""
    assert found.yx is not None
    grouping = group_sources(found, found.yx, SCALE_ARCSEC, rules or BlendRules())
    sky = Sky(found, found.yx, SHAPE_YX)
    return describe_blends(central_first(grouping, found), sky, SCALE_ARCSEC, 0.2)


def members(blends: Blends) -> list[frozenset[int]]:
    """The ids of each blend."""
    return [
        frozenset(ids[:n].tolist())
        for ids, n in zip(blends.source_id, blends.n_members.tolist(), strict=True)
    ]


_lattice = st.tuples(st.integers(0, 90), st.integers(0, 90))
"""A grid of 4 px: links of 2 arcsec reach five steps, many distances are equal, some sources coincide."""
positions = st.lists(_lattice, max_size=40).map(
    lambda points: np.array(points, np.float64).reshape(-1, 2) * 4
)
crowds = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=9, max_size=40).map(
    lambda points: np.array(points, np.float64).reshape(-1, 2) * 4 + 190
)
rules = st.builds(
    BlendRules,
    link_arcsec=st.sampled_from([0.4, 1.0, 2.0]),
    max_members=st.sampled_from([1, 2, 3, 5, 8]),
    sources=st.just("all"),
)


@st.composite
def skies(draw: st.DrawFn) -> Detections:
    """Sparse and crowded ones, with magnitudes and radii that are known or not."""
    yx = draw(positions | crowds)
    n = len(yx)
    some = st.sampled_from([np.nan, 18.0, 20.0, 21.5])
    mag = draw(st.lists(some, min_size=n, max_size=n))
    radius = draw(
        st.lists(st.sampled_from([np.nan, 0.2, 1.0, 2.5, -1.0, np.inf]), min_size=n, max_size=n)
    )
    ids = draw(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n, unique=True)
        | st.just(list(range(n)))
    )
    return sky_at(yx, ids=ids, mag=mag, radius=radius)
