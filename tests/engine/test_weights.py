from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch.config import make_config
from deblend_batch.engine.weights import find_run_card
from deblend_batch.errors import ConfigError
from tests.support import write_tiny_model


@pytest.mark.parametrize("has_masks", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_masks_are_refused_where_the_model_has_none(
    tmp_path: Path, has_masks: bool, asked: bool
) -> None:
    model = write_tiny_model(str(tmp_path / "tiny.safetensors"), masks=has_masks)
    config = make_config(
        {"field": "f", "detections": "d", "output": "o", "model": model, "masks": asked}
    )
    if asked and not has_masks:
        with pytest.raises(ConfigError, match=r"^masks: .*tiny\.safetensors predicts no masks"):
            find_run_card(config)
    else:
        assert find_run_card(config).has_masks == has_masks
