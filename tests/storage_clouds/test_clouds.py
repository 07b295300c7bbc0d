"""gs:// and az:// URLs, against real servers: every verb, a field's pixels, a whole run, refusals."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deblend_batch
from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.inputs.access import check_output, check_tables
from deblend_batch.errors import NotFoundError, StorageError
from deblend_batch.field.layout import Field, finish_field
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box
from tests.storage_clouds.servers import Server
from tests.support import SmallField, make_meta

pytest.importorskip("gcsfs")
pytest.importorskip("adlfs")


def test_every_verb_of_storage(cloud: Server) -> None:
    folder, options = cloud.url("verbs"), {f"{cloud.scheme}://": cloud.options}
    first, second = storage.join(folder, "a.bin"), storage.join(folder, "b.txt")
    storage.write_bytes(first, b"0123456789", options)
    assert storage.create_bytes(second, b"one", options)
    assert not storage.create_bytes(second, b"two", options)
    assert list(storage.read_many([first, second], options)) == [b"0123456789", b"one"]
    assert storage.read_start(first, 3, options) == b"012"
    storage.write_bytes(f"{folder}/empty", b"", options)
    assert storage.read_start(f"{folder}/empty", 3, options) == b""
    storage.remove(f"{folder}/empty", options)
    with storage.open_read(first, options) as file:
        file.seek(7)
        assert file.read(2) == b"78"
    assert storage.list_names(folder, options) == ["a.bin", "b.txt"]
    newest = storage.list_newest(folder, options)
    assert sorted((file.name, file.size) for file in newest) == [("a.bin", 10), ("b.txt", 3)]
    assert storage.expand(f"{folder}/*.bin", options) == [first]
    assert storage.exists(first, options)
    assert storage.identity(first, options).startswith("etag:")
    check_tables([first, folder], options)
    storage.remove(first, options)
    storage.remove(first, options)
    storage.remove_tree(folder, options)
    storage.remove_tree(folder, options)
    assert storage.list_names(folder, options) == []


def test_an_output_is_probed(cloud: Server) -> None:
    check_output(Output(cloud.url("runs/new"), cloud.options))
    assert storage.list_names(cloud.url("runs/new"), cloud.options) == []
    nowhere = f"{cloud.scheme}://nowhere/run"
    with pytest.raises(StorageError, match=rf"^{nowhere}: cannot write: nothing can be created"):
        check_output(Output(nowhere, cloud.options))
    with pytest.raises(NotFoundError, match=rf"^{nowhere}: no such file or object; check the URL"):
        storage.read_bytes(nowhere, cloud.options)


@pytest.mark.parametrize("shards", [None, (1, 256, 256)])
def test_pixels_come_back(cloud: Server, shards: tuple[int, ...] | None) -> None:
    """Of a sharded array the index is at the end of each object."""
    url = cloud.url(f"{'sharded' if shards else 'plain'}.zarr")
    pixels = np.random.default_rng(5).normal(size=(1, 300, 300)).astype(np.float32)
    group = stores.create_group(url, cloud.options, {})
    group.create_array("image", data=pixels, chunks=(1, 64, 64), shards=shards)
    finish_field(group, make_meta())
    tile = read_tile(Field.open(url, cloud.options), Box(10, 20, 290, 240))
    np.testing.assert_array_equal(tile.image[0], pixels[0, 10:290, 20:240])


def test_a_wrong_key_is_one_line_that_does_not_show_it(cloud: Server) -> None:
    if cloud.scheme == "gs":
        pytest.skip("fake-gcs-server checks no credentials")
    wrong = base64.b64encode(b"planted-secret").decode()
    right = cloud.options["connection_string"].partition("AccountKey=")[2].partition(";")[0]
    options = {"connection_string": cloud.options["connection_string"].replace(right, wrong)}
    url = cloud.url("x")
    for call in (storage.read_bytes, storage.list_names, Field.open):
        with pytest.raises(
            StorageError, match=rf"^{url}: permission denied \(Auth\w+\); check"
        ) as caught:
            call(url, options)
        assert wrong not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"connection_string": "planted-secret"}])
def test_options_that_say_too_little_are_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(
        StorageError, match=r"^az://c/x: unable to connect to account .*; check the URL and its"
    ) as caught:
        storage.read_bytes("az://c/x", options)
    assert "planted" not in str(caught.value)


def test_a_process_that_has_read_a_field_ends_quietly(cloud: Server) -> None:
    url = cloud.url("quiet.zarr")
    group = stores.create_group(url, cloud.options, {})
    group.create_array("image", data=np.zeros((64, 64), np.float32))
    finish_field(group, make_meta())
    program = (
        "import json, sys; from deblend_batch.field.layout import Field; "
        "print(Field.open(sys.argv[1], json.load(sys.stdin)).shape_yx)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, url],
        input=json.dumps(cloud.options),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("(64, 64)\n", "")


@pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes:ResourceWarning")
def test_a_run_from_and_to_the_store(
    cloud: Server, small_field: SmallField, tmp_path: Path
) -> None:
    """The same rows as on disk, to the byte; run again, it finds itself complete."""
    inputs, options = cloud.url("inputs"), cloud.options
    folder = Path(small_field.url)
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{inputs}/field.zarr/{path.relative_to(folder)}"
            storage.write_bytes(name, path.read_bytes(), options)
    for name, source in (
        ("d.parquet", small_field.detections),
        ("m.safetensors", small_field.model),
    ):
        storage.write_bytes(f"{inputs}/{name}", Path(source).read_bytes(), options)
    config = small_field.config(str(tmp_path / "run"), engine={"actors": 1})
    there = {
        "field": f"{inputs}/field.zarr",
        "detections": f"{inputs}/d.parquet",
        "model": f"{inputs}/m.safetensors",
        "output": cloud.url("run"),
        "storage_options": options,
    }
    assert deblend_batch.process_field(config).exit_code == 0
    for _ in range(2):
        assert deblend_batch.process_field(config | there).exit_code == 0
    found = verify_run(Output(cloud.url("run"), options), recompute=0)
    assert (found.problems, found.quarantined) == ((), 0)
    shards = sorted((tmp_path / "run" / "shards").iterdir())
    urls = [cloud.url(f"run/shards/{path.name}") for path in shards]
    assert list(storage.read_many(urls, options)) == [path.read_bytes() for path in shards]
