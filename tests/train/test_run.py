from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deblend_batch.errors import (
    ConfigError,
    InterruptedRunError,
    ModelError,
    OutputConflictError,
    StorageError,
)
from deblend_batch.models import find_card, load_model
from deblend_batch.models.networks.architectures import RECIPES
from deblend_batch.models.weights import read_weights
from deblend_batch.simulate.galaxies.draw import draw_pool
from deblend_batch.simulate.galaxies.pool import save_pool
from deblend_batch.train import loop
from deblend_batch.train.config import TrainConfig, make_train_config
from deblend_batch.train.news import Report
from deblend_batch.train.run import train
from tests.models.tiny import tiny_recipe
from tests.support import wait_until

_SCRIPT = """
import sys
from deblend_batch.models.networks.architectures import RECIPES
from deblend_batch.train.config import make_train_config
from deblend_batch.train.run import train
from tests.models.tiny import tiny_recipe

if __name__ == "__main__":
    assert not {"galsim", "astropy"} & set(sys.modules)  # they take seconds, and its pool is drawn
    RECIPES["tiny-blend2mask2flux"] = tiny_recipe("blend2mask2flux")
    import json
    train(make_train_config(json.loads(sys.argv[1])), sys.argv[2], print)
"""


@pytest.fixture(scope="module")
def pool_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("pool") / "pool.zarr")
    save_pool(url, draw_pool("candels-h", 128, 1))
    return url


@pytest.fixture(scope="module", autouse=True)
def tiny_recipes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for architecture in ("blend2flux", "unet", "blend2mask2flux"):
            patch.setitem(RECIPES, f"tiny-{architecture}", tiny_recipe(architecture))
        yield


@pytest.fixture(scope="module")
def whole(tiny_recipes: None, pool_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a training that nothing disturbed."""
    return train(_config(pool_url), str(tmp_path_factory.mktemp("whole")))


def _config(pool_url: str, architecture: str = "blend2mask2flux", **more: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "model": f"tiny-{architecture}",
        "pool": {"url": pool_url},
        "steps": 6,
        "evaluate_every": 2,
        "batch_size": 16,
        "workers": 0,
        "threads": 1,
        "validation_pairs": 64,
        "test_pairs": 64,
    }
    return make_train_config(values | more)


def _state(url: str) -> dict[str, torch.Tensor]:
    return read_weights(url).tensors()


def _assert_same_weights(one: str, other: str) -> None:
    first, second = _state(one), _state(other)
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


class _KilledError(Exception):
    pass


def _killed_at(step: int) -> Any:
    def die(report: Report) -> None:
        if report.step == step:
            raise _KilledError

    return die


@pytest.mark.parametrize("architecture", ["blend2flux", "unet", "blend2mask2flux"])
def test_training_makes_a_model_with_a_card(
    architecture: str, pool_url: str, tmp_path: Path
) -> None:
    reports: list[Report] = []
    config = _config(pool_url, architecture, name="mine")
    url = train(config, str(tmp_path / "out"), reports.append)
    assert url.endswith("/mine.safetensors")
    assert [report.step for report in reports] == [2, 4, 6]
    assert all(np.isfinite(report.loss) for report in reports)
    assert "flux_mape" in str(reports[0])
    card = find_card(url)
    assert card.test_metrics["pairs"] == 64
    assert 0 < card.test_metrics["coverage"] < 1
    assert card.domain is not None
    assert card.domain.separation_px[0] < card.domain.separation_px[1]
    assert card.training["steps"] == 6
    assert pool_url not in str(card.to_json())
    assert (tmp_path / "out" / "learning_curves.png").stat().st_size > 1000
    assert load_model(url).card.has_masks == (architecture != "blend2flux")


def test_a_training_that_is_killed_twice_resumes_to_the_bit(
    whole: str, pool_url: str, tmp_path: Path
) -> None:
    config = _config(pool_url)
    for step in (2, 4):
        with pytest.raises(_KilledError):
            train(config, str(tmp_path), _killed_at(step))
    resumed = train(config, str(tmp_path))
    _assert_same_weights(whole, resumed)
    assert find_card(resumed).sha256 == find_card(whole).sha256


def test_a_finished_training_only_writes_its_result_again(whole: str, pool_url: str) -> None:
    reports: list[Report] = []
    first = find_card(whole)
    again = find_card(train(_config(pool_url), str(Path(whole).parent), reports.append))
    assert again.sha256 == first.sha256
    assert reports == []


@pytest.mark.slow
def test_a_training_survives_sigkill(whole: str, pool_url: str, tmp_path: Path) -> None:
    config = _config(pool_url)
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    folder = tmp_path / "killed"
    command = [sys.executable, str(script), config.model_dump_json(), str(folder)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    checkpoint = folder / "checkpoint.safetensors"
    wait_until(lambda: checkpoint.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    _assert_same_weights(whole, train(config, str(folder)))


def test_workers_change_nothing(whole: str, pool_url: str, tmp_path: Path) -> None:
    _assert_same_weights(whole, train(_config(pool_url, workers=1), str(tmp_path)))


def test_another_training_in_the_folder_is_refused(pool_url: str, tmp_path: Path) -> None:
    train(_config(pool_url, steps=2), str(tmp_path))
    with pytest.raises(OutputConflictError, match="a training with another steps"):
        train(_config(pool_url, steps=4), str(tmp_path))


def test_patience_ends_a_training(pool_url: str, tmp_path: Path) -> None:
    config = _config(pool_url, steps=8, evaluate_every=1, patience=2, learning_rate=1e-30)
    card = find_card(train(config, str(tmp_path)))
    assert card.training["steps"] == 3


def test_a_relative_folder_in_a_job_is_refused(
    pool_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="output: 'out' is a relative path, and a Ray job runs"):
        train(_config(pool_url), "out")


def test_interruption_is_said_in_one_line_and_leaves_the_curves(
    pool_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_DRAW_SECONDS", 0.0)

    def interrupt(_: Report) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="training interrupted; run again to resume"):
        train(_config(pool_url), str(tmp_path), interrupt)
    assert (tmp_path / "learning_curves.png").stat().st_size > 1000


def test_weights_of_a_unet_start_a_blend2mask2flux(pool_url: str, tmp_path: Path) -> None:
    first = train(_config(pool_url, "unet", steps=2), str(tmp_path / "unet"))
    config = _config(pool_url, steps=1, learning_rate=1e-12, weight_decay=0, initial=first)
    second = train(config, str(tmp_path / "flux"))
    masks = _state(first)["backbone.masks.weight"]
    torch.testing.assert_close(_state(second)["backbone.masks.weight"], masks)
    before, card = find_card(first), find_card(second)
    assert card.training["initial"]["sha256"] == before.sha256
    assert card.trained_on.endswith(f"before that, {before.trained_on}")


def test_the_pool_is_drawn_once_and_kept(tmp_path: Path) -> None:
    config = _config("", "blend2flux", steps=1, pool={"size": 128, "psf_fwhm_px": None})
    train(config, str(tmp_path))
    drawn = (tmp_path / "pool.zarr" / "zarr.json").stat().st_mtime_ns
    train(config, str(tmp_path))
    assert (tmp_path / "pool.zarr" / "zarr.json").stat().st_mtime_ns == drawn


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "blend3flux"}, "model: unknown recipe 'blend3flux'; known: blend2flux, "),
        ({"preset": "hst-acs"}, "pool.url: .* was drawn for preset 'candels-h', not 'hst-acs'"),
        ({"pool": {"size": 64}, "preset": "hubble"}, "preset 'hubble' is unknown"),
    ],
)
def test_mistakes_are_named(
    changes: dict[str, Any], message: str, pool_url: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(_config(pool_url, **changes), str(tmp_path))


def test_a_device_that_is_none_is_refused_before_a_galaxy_is_drawn(tmp_path: Path) -> None:
    config = make_train_config({"model": "tiny-unet", "device": "gpu"})
    with pytest.raises(ModelError, match=r"^device 'gpu': unknown to torch; use --device cpu"):
        train(config, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_a_galaxy_is_drawn(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/out/config\.json: "):
        train(TrainConfig(), str(tmp_path / "file" / "out"))


def test_the_folder_tells_what_was_trained(pool_url: str, tmp_path: Path) -> None:
    config = _config(pool_url, steps=1)
    train(config, str(tmp_path))
    assert TrainConfig.model_validate_json((tmp_path / "config.json").read_text()) == config


def test_weights_of_another_network_are_no_start(pool_url: str, tmp_path: Path) -> None:
    first = train(_config(pool_url, "blend2flux", steps=1), str(tmp_path / "one"))
    config = _config(pool_url, "unet", initial=first)
    with pytest.raises(ConfigError, match="has no tensor of this network's names and shapes"):
        train(config, str(tmp_path / "two"))
