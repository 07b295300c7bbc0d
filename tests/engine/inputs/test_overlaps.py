"""Overlapping fields of a survey: every source once, whoever's table it is in, in any order of the fields."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from deblend_batch.engine.inputs.index.deferred import read_deferred
from tests.engine.bricks import (
    CENTRES,
    OFFSETS_YX,
    examined_survey,
    prepared_survey,
    rows_in,
    write_bricks,
)
from tests.support import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_model(str(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


def crowd(seed: int, n: int = 150) -> np.ndarray:
    """Sources over all fields, a third of them in close pairs, none on another."""
    rng = np.random.default_rng(seed)
    lone = rng.uniform(-5, (215, 255), (n, 2))
    beside = lone[: n // 3] + rng.uniform(4, 6, (n // 3, 2)) * rng.choice([-1, 1], (n // 3, 2))
    yx = np.concatenate([lone, beside])
    apart = np.linalg.norm(yx[:, None] - yx[None], axis=-1) + 1e9 * np.eye(len(yx))
    return np.asarray(yx[~np.triu(apart < 3.5, 1).any(axis=0)])


@pytest.mark.parametrize(
    ("centre", "sharing"), [(CENTRES[1], 4), (CENTRES[0], 0), (CENTRES[2], 0), (CENTRES[3], 2)]
)
@pytest.mark.parametrize("kind", ["fit", "network"])
def test_every_source_is_measured_once(
    tmp_path: Path, model: str, centre: tuple[float, float], sharing: int, kind: str
) -> None:
    jitter = 0.5 if sharing < 4 else 0.0
    bricks = write_bricks(tmp_path, crowd(1), centre=centre, sharing=sharing, jitter_px=jitter)
    changes: dict[str, Any] = {} if kind == "fit" else {"model": model}
    changes["pairs"] = {"max_separation": 0.9}
    rows = []
    for number, order in enumerate(([0, 1, 2, 3], [2, 3, 1, 0])):
        prepared = prepared_survey(bricks, tmp_path / f"o{number}", order, **changes)
        examined = examined_survey(prepared)
        rows.append(sorted(rows_in(prepared, examined)))
        counts = Counter[str]()
        for index in examined.indexes:
            counts.update(index.detections)
            assert sum(index.deferred.values()) == _listed(prepared, index.url)
        parts = [counts[name] for name in ("used", "not_finite", "outside", "deferred")]
        if not sharing:
            assert counts["read"] == sum(parts)
    assert rows[0] == rows[1]
    primary = Counter(
        bricks.truth[field, source] for field, source, _, is_primary in rows[0] if is_primary
    )
    assert set(primary.values()) == {1}
    if kind == "fit":
        assert bricks.held(within_px=jitter) <= set(primary) <= bricks.held(within_px=-jitter)
        assert len(primary) == len(rows[0])
        assert counts["used"] == len(primary)
    else:
        pairs = Counter(blend for _, _, blend, _ in rows[0])
        assert set(pairs.values()) == {2}
    assert len(primary) > 30


def _listed(prepared: Any, url: str) -> int:
    name = url.rsplit("/", 1)[1].removesuffix(".parquet")
    if not prepared.output.exists(prepared.output.deferred_url(name)):
        return 0
    return len(read_deferred(prepared.output, name))


@settings(max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, 1000),
    jitter=st.sampled_from([0.0, 0.3, 0.5]),
    centre=st.sampled_from(CENTRES),
    order=st.permutations(range(len(OFFSETS_YX))),
)
def test_fields_agree_on_who_has_what(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    jitter: float,
    centre: tuple[float, float],
    order: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("bricks")
    bricks = write_bricks(folder, crowd(seed, 60), centre=centre, jitter_px=jitter)
    prepared = prepared_survey(bricks, folder / "out", order)
    rows = rows_in(prepared, examined_survey(prepared))
    found = Counter(bricks.truth[field, source] for field, source, *_ in rows)
    assert set(found.values()) == {1}
    assert bricks.held(within_px=jitter) <= set(found) <= bricks.held(within_px=-jitter)
