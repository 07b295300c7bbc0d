"""Everything on s3://: the same rows as from files, one winner of every race, no secret left behind."""

from __future__ import annotations

import importlib
import json
import logging
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.cli.main import main
from deblend_batch.engine.account.reader import StatusReader, read_status
from deblend_batch.engine.audit.publication import publish_run
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.run import process_field
from deblend_batch.errors import NotFoundError, StorageError
from deblend_batch.field.layout import Field
from deblend_batch.report.page import write_report
from tests.storage_s3.bucket import FIELD, shards_of
from tests.storage_s3.proxy import Proxy

pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def finished(inputs: dict[str, Any]) -> str:
    """A complete run, all of it in the bucket."""
    output = "s3://survey/runs/finished"
    summary = process_field({**inputs, "output": output})
    assert summary.exit_code == 0
    return output


def test_the_rows_are_those_of_a_local_run(
    finished: str, undisturbed: dict[str, bytes], s3: Any
) -> None:
    assert shards_of(finished, s3.options) == undisturbed


def test_what_looks_at_a_run_works_there(finished: str, s3: Any) -> None:
    found = verify_run(Output(finished, s3.options))
    assert (found.exit_code, found.problems) == (0, ())
    status = read_status(Output(finished, s3.options))
    assert (status.state, status.pairs_written) == ("complete", status.pairs_expected)
    page = storage.read_bytes(write_report(Output(finished, s3.options)), s3.options).decode()
    assert "Example pairs" in page
    assert "Not shown" not in page


def test_a_further_look_at_a_run_costs_its_listings_and_run_json(finished: str, s3: Any) -> None:
    with Proxy(s3.endpoint) as proxy:
        reader = StatusReader(Output(finished, proxy.through(s3.options)))
        first = reader.read()
        proxy.forget()
        again = reader.read()
        assert replace(again, idle_seconds=first.idle_seconds) == first
        asked = {verb: proxy.count(verb) for verb in ("LIST", "GET", "HEAD")}
    assert asked["LIST"] <= 5  # index, ledger, shards, quarantine; and whether run.json is a folder
    assert asked["GET"] + asked["HEAD"] <= 3


@pytest.mark.parametrize("verb", ["status", "verify", "report"])
def test_verbs_without_a_config_take_keys_from_the_environment(
    finished: str,
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert main([verb, finished]) == 0
    captured = capfd.readouterr()
    assert finished in captured.out
    assert s3.secret not in captured.out + captured.err


def test_verbs_take_keys_from_a_file(
    finished: str, s3: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump(s3.options))
    assert main(["verify", finished, "--storage-options", str(file)]) == 0
    captured = capfd.readouterr()
    assert finished in captured.out
    assert s3.secret not in captured.err


def test_wrong_keys_from_a_file_are_not_shown(
    finished: str, s3: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump({**s3.options, "secret": "hunter2"}))
    assert main(["report", finished, "--storage-options", str(file), "--debug"]) == 2
    captured = capfd.readouterr()
    assert "permission denied; check the owner, the mode or the credentials" in captured.err
    assert "hunter2" not in captured.out + captured.err


def test_a_run_resumes_where_it_stopped(finished: str, inputs: dict[str, Any], s3: Any) -> None:
    """Two tiles lose their receipts and one its shard; another process may have listed them before."""
    before, ledger = shards_of(finished, s3.options), Ledger(Output(finished, s3.options))
    lost = ledger.output.receipts()[:3]
    for tile in lost[:2]:
        storage.remove(ledger.output.receipt_url(tile), s3.options)
    storage.remove(ledger.output.shard_url(lost[2]), s3.options)
    kept = {tile: ledger.read_receipt(tile) for tile in ledger.output.receipts()}
    summary = process_field({**inputs, "output": finished})
    assert summary.totals["pairs"]["written"] == summary.totals["pairs"]["expected"]
    assert shards_of(finished, s3.options) == before
    assert {tile: ledger.read_receipt(tile) for tile in kept} == kept
    assert verify_run(Output(finished, s3.options)).problems == ()


def test_nothing_is_done_twice(finished: str, inputs: dict[str, Any]) -> None:
    assert process_field({**inputs, "output": finished}).pairs_per_second == 0


def every_object(s3: Any, *prefixes: str) -> dict[str, bytes]:
    """Names and contents of all objects under some prefixes."""
    fs, _ = storage.filesystem("s3://survey", s3.options)
    fs.invalidate_cache()
    return {path: fs.cat_file(path) for prefix in prefixes for path in fs.find(prefix)}


def test_no_secret_is_left_behind(
    finished: str,
    inputs: dict[str, Any],
    s3: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in what a run writes, nor in what it says, even with --debug and a failure."""
    config = {**inputs, "output": "s3://survey/runs/said", "detections": "s3://survey/none.parquet"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with caplog.at_level(logging.DEBUG, logger="deblend_batch"):
        assert main(["run", str(tmp_path / "config.yaml"), "--debug"]) == 2
        assert main(["plan", str(tmp_path / "config.yaml"), "--debug"]) == 2
    captured = capfd.readouterr()
    said = captured.out + captured.err + caplog.text
    assert "none.parquet: no such detection" in said
    objects = every_object(s3, "survey/runs")
    assert any(name.endswith("run.json") for name in objects)
    assert any(name.endswith("report.html") for name in objects)
    for word in (s3.secret, s3.key):
        assert word not in said
        assert not [name for name, content in objects.items() if word.encode() in content]


@pytest.mark.parametrize(
    "module", ["config", "engine.inputs.work", "engine.inputs.index.indexing", "detect.field"]
)
def test_records_that_carry_options_do_not_show_them(module: str) -> None:
    """What is printed by a traceback, a debugger or a log line holds no secret."""
    found = importlib.import_module(f"deblend_batch.{module}")
    shown = [
        f"{name}.{key}"
        for name, kind in vars(found).items()
        if isinstance(kind, type) and kind.__module__ == found.__name__
        for key, each in {
            **getattr(kind, "__dataclass_fields__", {}),
            **getattr(kind, "model_fields", {}),
        }.items()
        if key in {"options", "storage_options"} and each.repr
    ]
    assert shown == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": "wrong"}, r"field.zarr: permission denied \(SignatureDoesNotMatch\); check"),
        ({"key": "nobody"}, r"field.zarr: permission denied \(InvalidAccessKeyId\); check"),
        ({"token": "unknown-to-it"}, r"field.zarr: permission denied \(\w+\); check"),
        (
            {"key": None, "secret": None, "anon": True},
            r"field.zarr: permission denied \(AccessDenied\); check",
        ),
        (
            {
                "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
                "config_kwargs": {"retries": {"total_max_attempts": 1}},
            },
            r"field.zarr: .*; check the URL, the network and the credentials",
        ),
    ],
    ids=["wrong secret", "unknown key", "unknown token", "anonymous", "no server"],
)
def test_what_the_store_refuses_is_one_line_and_exit_code_2(
    inputs: dict[str, Any],
    s3: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    options = {key: value for key, value in (s3.options | changes).items() if value is not None}
    config = {**inputs, "output": "s3://survey/runs/refused", "storage_options": options}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "config.yaml")]) == 2
    errors = capfd.readouterr().err
    assert re.fullmatch(rf"error: s3://survey/inputs/{message}.*\n", errors)
    for word in ("unknown-to-it", s3.secret, s3.key):
        assert word not in errors


@pytest.mark.parametrize(
    ("key", "url", "message"),
    [
        ("field", "s3://survey/none.zarr", "none.zarr: no Zarr group here"),
        ("detections", "s3://survey/none.fits", "none.fits: no such detection or pairs table"),
        ("field", "s3://nobucket/field.zarr", "nobucket/field.zarr: no Zarr group here"),
        ("model", "s3://survey/none.safetensors", "none.safetensors: no such file"),
    ],
    ids=["field", "table", "bucket", "weights"],
)
def test_what_is_not_there_is_named(
    inputs: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    key: str,
    url: str,
    message: str,
) -> None:
    config = {**inputs, "output": f"s3://survey/runs/none-{key}", key: url}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["run", str(tmp_path / "config.yaml")]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_of_many_creators_exactly_one_wins(s3: Any) -> None:
    url, wins = "s3://survey/race/receipt", []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        if storage.create_bytes(url, bytes([number]) * 10_000, s3.options):
            wins.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert storage.read_bytes(url, s3.options) == bytes(wins) * 10_000
    assert not storage.create_bytes(url, b"late", s3.options)


def test_the_verbs_of_storage(s3: Any) -> None:
    folder, options = "s3://survey/verbs", s3.options
    assert storage.list_names(folder, options) == []
    for name in ("b.zarr", "a.zarr"):
        storage.write_bytes(storage.join(folder, name, "zarr.json"), name.encode(), options)
    assert storage.list_names(folder, options) == ["a.zarr", "b.zarr"]
    urls = [storage.join(folder, name) for name in ("a.zarr", "b.zarr")]
    assert storage.expand(storage.join(folder, "*.zarr"), options) == urls
    files = [storage.join(url, "zarr.json") for url in urls]
    assert list(storage.read_many(files, options)) == [b"a.zarr", b"b.zarr"]
    assert storage.identity(files[0], options).startswith("etag:")
    assert storage.identity(files[0], options) != storage.identity(files[1], options)
    with storage.open_read(files[0], options) as file:
        file.seek(2)
        assert file.read() == b"zarr"
    storage.remove(files[0], options)
    storage.remove(files[0], options)
    assert not storage.exists(files[0], options)
    storage.remove_tree(folder, options)
    assert not storage.exists(files[1], options)
    with pytest.raises(NotFoundError, match=r"a.zarr/zarr.json: no such file or object"):
        storage.read_bytes(files[0], options)


def test_a_write_that_is_refused_says_so(s3: Any) -> None:
    options = s3.options | {"secret": "wrong"}
    for write in (storage.write_bytes, storage.create_bytes):
        with pytest.raises(
            StorageError, match=r"permission denied \(Sig\w+\); check .* credentials"
        ):
            write("s3://survey/refused", b"x", options)
    assert not storage.exists("s3://survey/refused", s3.options)


def test_a_field_travels_between_processes_with_its_options(
    inputs: dict[str, Any], s3: Any
) -> None:
    import pickle

    opened = pickle.loads(pickle.dumps(Field.open(FIELD, s3.options)))
    assert np.isfinite(opened.plane(0, slice(0, 8), slice(0, 8))).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # lsdb, not we
def test_a_published_catalogue_opens_there(finished: str, s3: Any) -> None:
    lsdb, upath = pytest.importorskip("lsdb"), pytest.importorskip("upath")
    import dask

    published = publish_run(Output(finished, s3.options))
    with dask.config.set(scheduler="synchronous"):
        frame = lsdb.open_catalog(upath.UPath(published.url, **s3.options)).compute()
    assert (
        len(frame)
        == published.rows
        == json.loads(storage.read_bytes(storage.join(finished, "run.json"), s3.options))["totals"][
            "rows"
        ]
    )
