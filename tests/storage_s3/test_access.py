"""What a store will not let a run do is said by ``plan`` and ``run`` in the first seconds, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.cli.main import main
from deblend_batch.engine.inputs.access import check_output, check_tables
from deblend_batch.errors import NotFoundError
from tests.storage_s3.proxy import Faults, Proxy
from tests.storage_s3.seaweedfs import SeaweedFS

pytest.importorskip("s3fs")

OUTPUT = "s3://survey/runs/looked-at"
ATTEMPTS = 5
"""Of a request that is repeated; see ``test_faults.py``."""
Said = Callable[[str, dict[str, Any]], str]


@pytest.fixture
def proxy(s3: SeaweedFS) -> Iterator[Proxy]:
    """A proxy in front of the session's server, which does no harm yet."""
    with Proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def refused(tmp_path: Path, proxy: Proxy, capfd: pytest.CaptureFixture[str]) -> Said:
    """Give a verb a config that it refuses; return the one line that it says, and says at once."""

    def said(verb: str, config: dict[str, Any]) -> str:
        through = {**config, "storage_options": proxy.through(config["storage_options"])}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(through))
        proxy.forget()
        assert main([verb, str(tmp_path / "config.yaml")]) == 2
        assert 0 < proxy.most_asked() < ATTEMPTS
        errors = capfd.readouterr().err
        found = re.fullmatch(r"error: (.*)\n", errors)
        assert found, errors
        return found[1]

    return said


def left_in(output: str, s3: SeaweedFS) -> list[str]:
    """Return all objects of an output, hidden ones too."""
    fs, path = storage.filesystem(output, s3.options)
    fs.invalidate_cache()
    return [
        str(name) for name in fs.find(path) if name != path
    ]  # the server keeps the empty folder


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("output", "reads_only", "message"),
    [
        (OUTPUT, True, r"cannot write: permission denied \(AccessDenied\); check the owner.*"),
        (
            "s3://nobucket/run",
            False,
            r"cannot write: nothing can be created here \(.*bucket.*\);.*",
        ),
    ],
    ids=["read-only key", "no bucket"],
)
def test_an_output_that_cannot_be_written_is_known_at_once(
    inputs: dict[str, Any],
    s3: SeaweedFS,
    refused: Said,
    verb: str,
    output: str,
    reads_only: bool,
    message: str,
) -> None:
    options = s3.read_only if reads_only else s3.options
    said = refused(verb, {**inputs, "output": output, "storage_options": options})
    assert re.fullmatch(f"{output}: {message}", said)
    for word in (options["secret"], options["key"]):
        assert word not in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": "wrong"}, r"permission denied \(SignatureDoesNotMatch\); check .*"),
        ({"key": "nobody"}, r"permission denied \(InvalidAccessKeyId\); check .*"),
        ({"token": "unknown-to-it"}, r"permission denied \(\w+\); check .*"),
    ],
    ids=["wrong secret", "unknown key", "unknown token"],
)
def test_plan_knows_wrong_keys(
    inputs: dict[str, Any],
    s3: SeaweedFS,
    refused: Said,
    changes: dict[str, Any],
    message: str,
) -> None:
    """Those of the inputs, and, by options of its own, those of the output."""
    wrong = s3.options | changes
    said = refused("plan", {**inputs, "output": OUTPUT, "storage_options": wrong})
    assert re.fullmatch(f"{inputs['field']}: {message}", said)
    options = {**s3.options, "s3://survey/runs": wrong}
    said = refused("plan", {**inputs, "output": OUTPUT, "storage_options": options})
    assert re.fullmatch(f"{OUTPUT}: cannot write: {message}", said)


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (
            Faults(["GET"], refused=1, refusal="400 ExpiredToken"),
            r".*field.zarr: permission denied \(ExpiredToken\); check .*",
        ),
        (
            Faults(["GET"], refused=1, refusal="403 AccessDenied", only="detections.parquet"),
            r".*detections.parquet: permission denied \(AccessDenied\); check .*",
        ),
        (
            Faults(["PUT"], refused=1, refusal="400 ExpiredToken", only="/.tmp-probe"),
            rf"{OUTPUT}-\w+: cannot write: permission denied \(ExpiredToken\); check .*",
        ),
        (
            Faults(["GET"], refused=1, refusal="403 AccessDenied", only="/.tmp-probe"),
            rf"{OUTPUT}-\w+: cannot read: permission denied \(AccessDenied\); check .*",
        ),
    ],
    ids=["expired", "table unreadable", "expired for writes", "output unreadable"],
)
def test_what_a_store_does_not_allow_is_known_before_any_work(
    inputs: dict[str, Any],
    s3: SeaweedFS,
    proxy: Proxy,
    refused: Said,
    verb: str,
    faults: Faults,
    message: str,
) -> None:
    output = f"{OUTPUT}-{verb}"
    proxy.faults = (faults,)
    said = refused(verb, {**inputs, "output": output})
    assert re.fullmatch(message, said), said
    assert not storage.exists(storage.join(output, "run.json"), s3.options)


def test_one_look_at_a_table_suffices(
    inputs: dict[str, Any], s3: SeaweedFS, proxy: Proxy, tmp_path: Path
) -> None:
    """A file is asked for its first byte; a folder, which is none, is listed."""
    options = proxy.through(s3.options)
    check_tables([inputs["detections"]], options)
    assert [proxy.count(verb) for verb in ("GET", "HEAD", "LIST")] == [1, 0, 0]
    folder = "s3://survey/inputs/folder.parquet"
    storage.write_bytes(f"{folder}/part-0.parquet", b"x", s3.options)
    proxy.forget()
    check_tables([folder], options)
    assert [proxy.count(verb) for verb in ("GET", "HEAD", "LIST")] == [1, 0, 1]
    with pytest.raises(NotFoundError, match=r"^s3://survey/none: no such detection or pairs table"):
        check_tables(["s3://survey/none"], options)
    (tmp_path / "folder").mkdir()
    check_tables([str(tmp_path / "folder")], {})
    with pytest.raises(NotFoundError, match=r"none\.csv: no such detection or pairs table; check"):
        check_tables([str(tmp_path / "none.csv")], {})


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_store_that_ignores_conditions_is_refused(
    inputs: dict[str, Any], s3: SeaweedFS, proxy: Proxy, refused: Said, verb: str
) -> None:
    proxy.ignores_conditions = True
    output = f"{OUTPUT}-blind-{verb}"
    said = refused(verb, {**inputs, "output": output})
    assert said == (
        f"{output}: its store ignores 'If-None-Match: *', so that two drivers could commit one tile; "
        "use one that honours conditional writes"
    )


def test_one_that_may_not_remove_what_it_tried_leaves_what_nothing_reads(
    inputs: dict[str, Any], s3: SeaweedFS, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.faults = (Faults(["DELETE"], refused=1, refusal="403 AccessDenied"),)
    options = proxy.through(s3.options)
    output = f"{OUTPUT}-for-good"
    for _ in range(2):
        check_output(Output(output, options))
    assert left_in(output, s3) == [Output(output).probe_url.removeprefix("s3://")]
    assert storage.list_names(output, s3.options) == []


def test_plan_leaves_nothing_and_a_run_can_follow(
    inputs: dict[str, Any], s3: SeaweedFS, tmp_path: Path
) -> None:
    output = "s3://survey/runs/planned"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**inputs, "output": output}))
    assert main(["plan", str(tmp_path / "config.yaml")]) == 0
    assert left_in(output, s3) == []
    assert main(["run", str(tmp_path / "config.yaml")]) == 0
    assert Output(output).probe_url.removeprefix("s3://") not in left_in(output, s3)
