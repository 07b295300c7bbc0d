from __future__ import annotations

import pytest

from deblend_batch.train.checkpoint import Progress
from deblend_batch.train.curves import learning_curves


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("validations", [1, 5])
def test_the_curves_are_a_picture(masks: bool, validations: int) -> None:
    entry = {"flux_mape": 0.1, "flux_mape_central": 0.09, "flux_mape_companion": 0.11}
    if masks:
        entry["iou"] = 0.8
    history = [{**entry, "step": 10.0 * k} for k in range(validations)]
    progress = Progress(10 * validations, [0.3] * validations, history, validations - 1)
    assert learning_curves(progress, "a model").startswith(b"\x89PNG")
