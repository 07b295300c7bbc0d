"""Settings from strangers: what is too large, too deep or multiplies itself ends in one line, at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from deblend_batch import yaml_text
from deblend_batch.config import load_config
from deblend_batch.errors import ConfigError
from deblend_batch.settings import load_storage_options

LEVELS = 12


def _laughs(last: str) -> str:
    """Ten of ten of ten of ...: a few hundred bytes that stand for 10^12 values."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, LEVELS)]
    return "\n".join([*lines, last])


def _merges() -> str:
    """The same by merge keys, which are copied where they stand."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, LEVELS)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_laughs(f"field: *a{LEVELS - 1}"), "holds more than 100,000 values, its aliases followed"),
        (_merges(), "holds more than 100,000 values, its aliases followed"),
        ("field: &a [*a]", "nested deeper than 32 levels, or an alias is inside its anchor"),
        ("field: " + "[" * 100 + "]" * 100, "nested deeper than 32 levels"),
        ("field: " + "[" * 500_000, "nested deeper than 32 levels"),
        ("field: " + "{a: " * 200_000, "nested deeper than 32 levels"),
        ("field: " + "1:" * 200_000 + "1", "has a value of more than 10,000 characters"),
        ("field: x\n" * 200_000, "is larger than 1,048,576 bytes"),
    ],
    ids=["aliases", "merge keys", "cycle", "deep", "deeper", "deep mapping", "long", "large"],
)
@pytest.mark.parametrize("load", [load_config, load_storage_options])
def test_a_bomb_is_one_line_at_once(text: str, message: str, load: object, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert callable(load)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*{message}.*; see docs") as caught:
        load(str(file))
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value)


def test_only_the_start_of_a_large_file_is_read(tmp_path: Path) -> None:
    with (tmp_path / "c.yaml").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(ConfigError, match="is larger than 1,048,576 bytes"):
        load_config(str(tmp_path / "c.yaml"))


def test_aliases_and_merge_keys_of_honest_settings_work() -> None:
    text = "a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 4}\nc: *a\n"
    assert yaml_text.parse(text.encode()) == yaml.safe_load(text)
    assert yaml_text.parse(b"") is None


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("pairs: {table: a}\n# later\npairs: {max_separation: 3}", "'pairs' .* in lines 1 and 3"),
        ("tiles: {size: 64, size: 128}", "'size' .* in lines 1 and 1"),
        ("a: 1\n'a': 2", "'a' .* in lines 1 and 2"),
        ("storage_options:\n  key: x\n  secret: y\n  key: z", "'key' .* in lines 2 and 4"),
        ("survey:\n- {field: a, field: b}", "'field' .* in lines 2 and 2"),
    ],
)
def test_a_key_given_twice_is_refused(text: str, lines: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"c.yaml: key {lines}; keep one of them"):
        load_config(f"{tmp_path}/c.yaml")


def test_a_key_may_be_given_beside_one_that_is_merged() -> None:
    assert yaml_text.parse(b"a: &a {x: 1}\nb: {<<: *a, x: 2}") == {"a": {"x": 1}, "b": {"x": 2}}


def test_texts_are_read_whatever_tags_stand_beside_them() -> None:
    text = b"datatype:\n- {name: ra, unit: deg}\nmeta: !!omap\n- u: !astropy.units.Unit {unit: rad}"
    assert yaml_text.records(text, "datatype") == [{"name": "ra", "unit": "deg"}]
    assert yaml_text.records(b"[1]", "datatype") == yaml_text.records(b"", "datatype") == []
