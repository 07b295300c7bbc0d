from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch.catalog.output import Output
from deblend_batch.config import make_config
from deblend_batch.engine.inputs.weights import find_run_card
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.worker.exchange import load_run_model
from deblend_batch.errors import ConfigError, ModelError
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


def test_a_run_refuses_weights_that_its_config_does_not_name(tmp_path: Path) -> None:
    model = write_tiny_model(str(tmp_path / "tiny.safetensors"))
    values = {"field": "f", "detections": "d", "output": "o", "model": model}
    digest = find_run_card(make_config(values)).sha256
    assert find_run_card(make_config({**values, "model_sha256": digest})).sha256 == digest
    with pytest.raises(ModelError, match=f"have sha256 {digest}, not {'0' * 64} as asked for"):
        find_run_card(make_config({**values, "model_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match=r"model_sha256 .*, not 'short'"):
        make_config({**values, "model_sha256": "short"})


def test_an_actor_refuses_weights_that_changed_since_the_run_began(tmp_path: Path) -> None:
    model = write_tiny_model(str(tmp_path / "tiny.safetensors"))
    context = RunContext(Output("o"), model, None, False, "", "0" * 64)
    with pytest.raises(ModelError, match=f"not {'0' * 64} as asked for"):
        load_run_model(context, "cpu")
