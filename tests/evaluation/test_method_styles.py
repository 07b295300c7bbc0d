from __future__ import annotations

import pytest

from deblend_batch.evaluation.report.styles import method_styles


@pytest.mark.parametrize("n", [1, 7, 15])
def test_no_two_methods_look_alike(n: int) -> None:
    names = ["SExtractor", "unet-small", *(f"other {i}" for i in range(n))]
    styles = method_styles(names)
    assert list(styles) == names
    assert len(set(styles.values())) == len(names)


def test_a_known_method_looks_the_same_in_any_company() -> None:
    alone = method_styles(["SExtractor"])["SExtractor"]
    assert method_styles(["a", "blend2flux-small", "SExtractor"])["SExtractor"] == alone
    assert method_styles(["blend2flux"])["blend2flux"] == method_styles(["blend2flux-small"]).get(
        "blend2flux-small"
    )


def test_two_of_a_kind_are_told_apart() -> None:
    styles = method_styles(["blend2flux", "blend2flux-small"])
    assert styles["blend2flux"] != styles["blend2flux-small"]
