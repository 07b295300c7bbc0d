from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.simulate.pairs.rules import training_rules
from deblend_batch.train.config import TrainConfig, load_train_config, make_train_config


def test_every_key_has_a_default() -> None:
    config = make_train_config({})
    assert config == TrainConfig()
    assert config.model == "blend2flux-small"


@pytest.mark.parametrize("stamp_size", [64, 128])
def test_the_default_rules_are_the_simulators(stamp_size: int) -> None:
    assert TrainConfig().pairs.rules(stamp_size) == training_rules(stamp_size)


def test_a_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("steps: 10\nseed: 3\npool: {size: 640, psf_fwhm_px: null}\n")
    config = load_train_config(str(path), {"steps": 20, "device": None})
    assert (config.steps, config.seed, config.pool.size, config.device) == (20, 3, 640, "cpu")
    assert config.pool.variation.psf_fwhm_px is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps: 3", "unknown key 'stepps'; did you mean 'steps'"),
        ("pool: {sizes: 3}", "unknown key 'pool.sizes'; did you mean 'pool.size'"),
        ("steps: 0", "steps must be greater than or equal to 1, not 0"),
        ("steps: many", "steps must be a valid integer, not 'many'"),
        ("precision: float16", "precision must be 'float32' or 'bfloat16', not 'float16'"),
        ("pairs: {noise_factor: [0, 1]}", "pairs.noise_factor.0 must be greater than 0, not 0"),
        ("pool: 3", "pool must be a section of keys, not 3"),
        (
            "zzz: 3",
            "unknown key 'zzz'; docs/config.md lists the keys; the sections are pool, pairs",
        ),
        ("- 1", "holds a list, not keys and values; see docs/config.md"),
        ("a: [", "line 1 not valid YAML"),
    ],
)
def test_mistakes_are_named_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_train_config(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no\.yaml: no such file"):
        load_train_config(str(tmp_path / "no.yaml"))


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().steps = 3  # type: ignore[misc]
