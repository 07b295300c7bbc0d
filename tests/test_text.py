"""Secrets in URLs are hidden, and text of others does nothing to a terminal, wherever either is shown."""

from __future__ import annotations

import logging
import pickle
import unicodedata
from functools import partial
from typing import Any

import pytest
import structlog

from deblend_batch import errors, storage
from deblend_batch.cli.main import main
from deblend_batch.cli.output import print_table
from deblend_batch.config import make_config
from deblend_batch.errors import ConfigError, DeblendError, StorageError
from deblend_batch.logs import configure_logs
from deblend_batch.pages.page import Section, render_page
from deblend_batch.text import cause, has_secret, printable, redacted, shown

WORD = "hunter2"
HOSTILE = "a\x1b]0;b\x07\r\nc\x9b31m\u202ed\u2066\u200b\U000e0041é"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:hunter2@bucket/a", "s3://***@bucket/a"),
        ("https://hunter2@host/a", "https://***@host/a"),
        ("simplecache::https://u:hunter2@host/a", "simplecache::https://***@host/a"),
        ("abfs://container@account.dfs.core.windows.net/a", None),
        ("abfs://name:hunter2@account/a", "abfs://***@account/a"),
        (
            "https://h/a?X-Amz-Date=1&X-Amz-Signature=hunter2",
            "https://h/a?X-Amz-Date=***&X-Amz-Signature=***",
        ),
        ("https://h/a?sv=2024&sig=hunter2#x", "https://h/a?sv=2024&sig=***#x"),
        ("https://h/a?download=1", None),
        ("https://h/a?q=" + "z" * 30, "https://h/a?q=***"),
        ("h://a?token=hunter2 and h://b:hunter2@c", "h://a?token=*** and h://***@c"),
        ("gs://b/a?Key=hunter2", "gs://b/a?Key=***"),
        ("s3://bucket/date=2025-??/f?.zarr", None),
        ("/data/a@b/c=d.fits", None),
        ("403, url='https://h/a?access_token=hunter2'", "403, url='https://h/a?access_token=***'"),
    ],
)
def test_secrets_of_urls_are_hidden_and_nothing_else(text: str, expected: str | None) -> None:
    assert redacted(text) == (expected or text)
    assert has_secret(text) is (expected is not None)
    assert WORD not in redacted(text)


@pytest.mark.parametrize(
    "kind",
    [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, DeblendError)
    ],
)
def test_no_error_holds_the_secret_of_a_url(kind: type[DeblendError]) -> None:
    error = pickle.loads(pickle.dumps(kind(f"s3://key:{WORD}@bucket/a: wrong; mend it")))
    assert str(error) == "s3://***@bucket/a: wrong; mend it"
    assert WORD not in repr(error) + repr(error.args)


@pytest.mark.parametrize("url", ["s3://key:hunter2@bucket/a", "https://hunter2@host/a"])
def test_credentials_in_a_url_are_refused(url: str) -> None:
    with pytest.raises(
        StorageError, match=r"\*\*\*@\w+/a: .* must not hold credentials; give them as"
    ):
        storage.read_bytes(url)


@pytest.mark.parametrize("key", ["field", "detections", "output", "model", "survey", "pairs.table"])
def test_a_run_s_config_keeps_no_secret(key: str) -> None:
    url = f"https://host/a.parquet?X-Amz-Signature={WORD}"
    values: dict[str, Any] = {"field": "f", "detections": "d", "output": "o"}
    if key == "survey":
        del values["field"]
        values["survey"] = [{"field": "f", "detections": url}]
    with pytest.raises(
        ConfigError, match=rf"{key}: https.*Signature=\*\*\* holds a secret.*; give"
    ):
        make_config(values, {} if key == "survey" else {key: url})


def test_what_others_wrote_is_shown_as_escapes() -> None:
    shown = printable(HOSTILE)
    assert shown == r"a\x1b]0;b\x07\r\nc\x9b31m\u202ed\u2066\u200b\U000e0041é"
    assert not [each for each in shown if unicodedata.category(each) in {"Cc", "Cf", "Cs"}]


def _error(text: str) -> None:
    assert main(["status", f"/nowhere/{text}"]) == 2


def _traceback(text: str) -> None:
    assert main(["status", f"/nowhere/{text}", "--debug"]) == 2


def _log(text: str) -> None:
    structlog.get_logger().warning("retry", tile=text, reason=text)


@pytest.mark.parametrize(
    "show",
    [
        _error,
        _traceback,
        _log,
        lambda text: logging.getLogger("s3fs").error("lost %s", text),
        lambda text: print_table([(text, text)]),
    ],
    ids=["error", "traceback", "log", "library's log", "table"],
)
def test_nothing_shown_acts_on_a_terminal_or_holds_a_secret(
    show: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    configure_logs("text", debug=True)  # else libraries say nothing
    show(f"{HOSTILE}https://key:{WORD}@host/?token={WORD}")
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert "é" in said
    assert WORD not in said
    assert not [
        each for each in said if each != "\n" and unicodedata.category(each) in {"Cc", "Cf"}
    ]


def test_nor_does_a_page() -> None:
    render = partial(render_page, f"t{HOSTILE}", "s")
    page = render([Section("a", f"one\ntwo {HOSTILE} https://key:{WORD}@host/")])
    assert "one\ntwo" in page
    assert WORD not in page
    assert not [
        each for each in page if each != "\n" and unicodedata.category(each) in {"Cc", "Cf"}
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ValueError("Checksums do not match. Stored: b'\\x96\\n'. Computed: b\"'\"."),
            "Checksums do not match",
        ),
        (ValueError("no frame: bytearray(b'abc') is not one"), "no frame"),
        (ValueError("of 12 bytes"), "of 12 bytes"),
        (ValueError("x" * 500), "x" * 97 + "..."),
        (RuntimeError("first\nsecond"), "first"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=["checksum", "array", "no literal", "long", "lines", "silent"],
)
def test_the_cause_of_a_failure_is_a_few_words(error: Exception, said: str) -> None:
    assert cause(error) == said


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("g", "'g'"),
        (["g", "r"], "['g', 'r']"),
        (1e308, "1e+308"),
        (2**64, "18446744073709551616"),
        (10**4000, "<13288 bits>"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
        (DEEP, "[[[[...]]]]"),
        (dict.fromkeys(range(100_000), "x"), "{0: 'x', 1: 'x', 2: 'x', 3: 'x', ...}"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_in_short(value: Any, expected: str) -> None:
    assert shown(value) == expected


@pytest.mark.parametrize("value", ["x" * 3_000_000, b"x" * 3_000_000, [["x" * 99] * 99] * 99])
def test_a_large_value_is_shown_by_its_beginning(value: Any) -> None:
    words = shown(value)
    assert len(words) <= 60
    assert "xxx" in words
    assert "..." in words
