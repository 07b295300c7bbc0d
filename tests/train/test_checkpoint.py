from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deblend_batch.errors import ModelError, OutputConflictError
from deblend_batch.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from deblend_batch.train.trainee import Trainee


def _trainee(seed: int) -> Trainee:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(network.parameters())
    return Trainee(network, copy.deepcopy(network), copy.deepcopy(network), optimizer)


def _step(trainee: Trainee) -> None:
    trainee.optimizer.zero_grad()
    trainee.network(torch.ones(5, 3)).square().mean().backward()
    trainee.optimizer.step()


def test_a_restored_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    url = str(tmp_path / "c.safetensors")
    one, other = _trainee(0), _trainee(1)
    for _ in range(3):
        _step(one)
    progress = Progress(3, [0.5], [{"step": 3, "flux_mape": 0.1}], 0)
    save_checkpoint(url, one, progress, {"seed": 1})
    assert load_checkpoint(url, other, {"seed": 1}) == progress
    for trainee in (one, other):
        _step(trainee)
    for mine, theirs in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("part", ["average", "best"])
def test_all_three_networks_are_kept(part: str, tmp_path: Path) -> None:
    url = str(tmp_path / "c.safetensors")
    one, other = _trainee(0), _trainee(1)
    save_checkpoint(url, one, Progress(), {})
    load_checkpoint(url, other, {})
    states = [getattr(trainee, part).state_dict() for trainee in (one, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_without_a_checkpoint_training_starts_afresh(tmp_path: Path) -> None:
    assert load_checkpoint(str(tmp_path / "none"), _trainee(0), {}) == Progress()


def _edited(url: str, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    """Return a checkpoint whose own words have been changed."""
    content = Path(url).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    words = json.loads(header["__metadata__"]["deblend_batch_checkpoint"])
    header["__metadata__"]["deblend_batch_checkpoint"] = json.dumps(edit(words))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@pytest.mark.parametrize(
    "edit",
    [
        lambda words: words | {"progress": {"step": "3"}},
        lambda words: words | {"progress": {"step": -1}},
        lambda words: words | {"progress": [], "more": 1},
        lambda words: {"progress": words["progress"]},
        lambda words: [words],
    ],
)
def test_a_checkpoint_of_other_types_is_one_line(edit: Any, tmp_path: Path) -> None:
    url = str(tmp_path / "c.safetensors")
    save_checkpoint(url, _trainee(0), Progress(), {})
    Path(url).write_bytes(_edited(url, edit))
    with pytest.raises(ModelError, match=r"c\.safetensors: damaged \(.*\); remove it to train"):
        load_checkpoint(url, _trainee(0), {})


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{}"])
def test_what_is_no_checkpoint_is_one_line(content: bytes, tmp_path: Path) -> None:
    url = str(tmp_path / "c.safetensors")
    Path(url).write_bytes(content)
    with pytest.raises(ModelError, match=r"c\.safetensors: damaged"):
        load_checkpoint(url, _trainee(0), {})


def test_a_diverged_training_is_resumed(tmp_path: Path) -> None:
    url = str(tmp_path / "c.safetensors")
    save_checkpoint(url, _trainee(0), Progress(1, [float("nan")]), {})
    assert load_checkpoint(url, _trainee(0), {}).step == 1


def test_another_trainings_checkpoint_is_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "c.safetensors")
    save_checkpoint(url, _trainee(0), Progress(), {"seed": 1, "steps": 5})
    with pytest.raises(OutputConflictError, match="a training with another steps; give another"):
        load_checkpoint(url, _trainee(0), {"seed": 1, "steps": 6})
