"""YAML settings: files that are none, and storage options that no message shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch.config import RunConfig
from deblend_batch.errors import ConfigError
from deblend_batch.settings import Section, load_storage_options, read_mapping
from deblend_batch.train.config import TrainConfig

ROOT = Path(__file__).parents[1]
FILES = {
    "png": (b"\x89PNG\r\n\x1a\n\xff", "not a text file; give a YAML file, see docs/config.md"),
    "control": (b"SIMPLE\x00\x01", "not a text file; give a YAML file, see docs/config.md"),
    "empty": (b"", "the file is empty; write keys and values, see docs/config.md"),
    "comments": (b"# a: 1", "the file is empty; write keys and values, see docs/config.md"),
    "list": (b"- a", "holds a list, not keys and values; see docs/config.md"),
    "text": (b"hello", "holds a single value, not keys and values; see docs/config.md"),
    "broken": (b"a: 1\nb: [1", "line 2 not valid YAML; see docs/config.md"),
    "date": (b"a: 2024-13-45", "not valid YAML; see docs/config.md"),
    "deep": (
        b"[" * 5000,
        "is nested deeper than 32 levels, more than settings need; see docs/config.md",
    ),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_files_that_hold_no_settings(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_mapping(str(file))
    assert str(caught.value) == f"{file}: {message}"


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_mapping(str(file)) == {"a": 1}


def test_storage_options_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("key: me\nclient_kwargs: {endpoint_url: http://127.0.0.1:1}\n")
    options = {"key": "me", "client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}}
    assert load_storage_options(str(file)) == options


@pytest.mark.parametrize("text", ["hunter2", "[hunter2]", "secret: [hunter2", "1: hunter2"])
def test_a_mistake_in_storage_options_shows_no_secret(tmp_path: Path, text: str) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"^storage options: {file}: .*(not|keys)") as caught:
        load_storage_options(str(file))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", [RunConfig, TrainConfig])
def test_the_page_that_messages_name_lists_every_key(kind: type[Section]) -> None:
    page = (ROOT / "docs" / "config.md").read_text()
    for name, field in kind.model_fields.items():
        section = field.annotation
        inner = getattr(section, "model_fields", {}) if isinstance(section, type) else {}
        for key in [f"{name}.{each}" for each in inner] or [name]:
            assert f"`{key}`" in page
