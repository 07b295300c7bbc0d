"""A store that fails, cuts and delays requests costs time, never a pair: the same rows, bit for bit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.cli.main import main
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.driver import loop as driver
from deblend_batch.engine.driver.depth import Depth
from deblend_batch.engine.inputs.work import RunContext, open_field
from deblend_batch.engine.run import process_field
from deblend_batch.errors import DeblendError, StorageError, TransientStorageError
from deblend_batch.field.layout import Field, finish_field
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box
from tests.storage_s3.bucket import FIELD, shards_of
from tests.storage_s3.proxy import Faults, Proxy
from tests.storage_s3.seaweedfs import SeaweedFS
from tests.support import SmallField, make_meta

pytest.importorskip("s3fs")

WRITES = Faults(
    ["PUT"], refused=0.05, reset=0.05, half_request=0.05, lost_answer=0.05, only="/runs/"
)
READS = Faults(["GET", "HEAD", "LIST"], refused=0.05, reset=0.05, half_answer=0.10)
READS_PER_CHUNK = 1.3
"""Most requests for pixels, for each index of a shard and each chunk that a tile touches."""


@pytest.fixture
def proxy(s3: SeaweedFS) -> Iterator[Proxy]:
    """A proxy in front of the session's server, which does no harm yet."""
    with Proxy(s3.endpoint) as proxy:
        yield proxy


def check_finished(output: str, undisturbed: dict[str, bytes], options: dict[str, Any]) -> None:
    """Check that a run is complete, with the rows that it should have, and that its ledger adds up."""
    assert shards_of(output, options) == undisturbed
    found = verify_run(Output(output, options), recompute=0)
    assert (found.problems, found.quarantined) == ((), 0)
    totals = Ledger(Output(output, options)).read_run()["totals"]["pairs"]
    assert totals["written"] == totals["expected"] == found.pairs


def test_a_run_outlives_writes_that_fail(
    inputs: dict[str, Any], proxy: Proxy, undisturbed: dict[str, bytes]
) -> None:
    """Refused, reset before and after the deed, and cut half-way: a fifth of all."""
    output, options = "s3://survey/runs/writes", inputs["storage_options"]
    proxy.faults = (WRITES,)
    summary = process_field({**inputs, "output": output, "storage_options": proxy.through(options)})
    assert summary.exit_code == 0
    assert sum(proxy.met.values()) >= 4
    assert len(proxy.met) == 4
    check_finished(output, undisturbed, options)
    tiles, pixels = len(undisturbed), "/survey/inputs/field.zarr/image/c/"
    assert proxy.count("PUT", "/survey/runs/writes/") <= 4 * tiles
    assert 0 < proxy.count("GET", pixels) <= READS_PER_CHUNK * 3 * tiles  # an index and two chunks
    assert proxy.count("HEAD", pixels) == 0
    # Opening inputs and index, in the driver, the task that indexes, and the actor; and two looks for a PSF.
    assert proxy.count("GET") + proxy.count("LIST") + proxy.count("HEAD") <= 3 * tiles + 95


@pytest.mark.slow
def test_a_run_outlives_reads_that_fail_and_are_slow(
    inputs: dict[str, Any], proxy: Proxy, undisturbed: dict[str, bytes]
) -> None:
    output, options = "s3://survey/runs/reads", inputs["storage_options"]
    proxy.faults, proxy.latency_s = (READS,), 0.04
    summary = process_field({**inputs, "output": output, "storage_options": proxy.through(options)})
    assert summary.exit_code == 0
    assert sum(proxy.met.values()) >= 10
    assert proxy.met["half_answer"] >= 2
    check_finished(output, undisturbed, options)


def test_requests_for_pixels_are_bounded(s3: SeaweedFS, proxy: Proxy) -> None:
    """One for each index of a shard, and one for each chunk; of a shard that is read whole, one in all."""
    url, edge, chunk, shard = "s3://survey/inputs/sharded.zarr", 400, 64, 256
    group = stores.create_group(url, s3.options, {})
    pixels = np.random.default_rng(5).normal(size=(1, edge, edge)).astype(np.float32)
    group.create_array("image", data=pixels, chunks=(1, chunk, chunk), shards=(1, shard, shard))
    finish_field(group, make_meta())
    opened = Field.open(url, proxy.through(s3.options))
    boxes = [Box(y, x, y + 232, x + 232) for y, x in product(range(-16, edge, 200), repeat=2)]
    read_tile(opened, boxes[0])
    proxy.forget()
    for box in boxes:
        found = read_tile(opened, box)
        inside = found.inside
        wanted = pixels[0, inside.y0 : inside.y1, inside.x0 : inside.x1]
        assert np.array_equal(found.image[0][np.isfinite(found.image[0])], wanted.ravel())
    touched = sum(_touched(box.clipped((edge, edge)), chunk) for box in boxes)
    touched += sum(_touched(box.clipped((edge, edge)), shard) for box in boxes)
    assert 0 < proxy.count("GET", "/survey/inputs/") <= READS_PER_CHUNK * touched
    proxy.forget()
    for box in boxes:
        read_tile(opened, box)
    chunks = sum(_touched(box.clipped((edge, edge)), chunk) for box in boxes)
    assert proxy.count("GET") == chunks  # the indexes are known
    assert proxy.count("HEAD") == proxy.count("LIST") == 0


def _touched(box: Box, edge: int) -> int:
    rows = (box.y1 - 1) // edge - box.y0 // edge + 1
    columns = (box.x1 - 1) // edge - box.x0 // edge + 1
    return rows * columns


def test_a_chunk_keeps_no_other_waiting(s3: SeaweedFS, proxy: Proxy) -> None:
    """Of 16 chunks eight are asked for at once: three round trips with the index, not seventeen."""
    url, edge, chunk = "s3://survey/inputs/together.zarr", 256, 64
    group = stores.create_group(url, s3.options, {})
    pixels = np.random.default_rng(5).normal(size=(1, edge, edge)).astype(np.float32)
    group.create_array(
        "image", data=pixels, chunks=(1, chunk, chunk), shards=(1, 2 * edge, 2 * edge)
    )
    finish_field(group, make_meta())
    opened, again = (Field.open(url, proxy.through(s3.options)) for _ in range(2))
    for field in (opened, again):
        field.image  # noqa: B018  # opened here, and not while the clock runs
    read_tile(opened, Box(0, 0, 1, 1))
    proxy.latency_s = 0.2
    began = time.monotonic()
    found = read_tile(again, Box(0, 0, edge, edge))
    assert time.monotonic() - began < 8 * proxy.latency_s
    assert np.array_equal(found.image, pixels)


def test_a_field_that_is_made_again_is_read_again(s3: SeaweedFS) -> None:
    """Another start of a run opens it anew, in a process that knows the old one's indexes."""
    url = "s3://survey/inputs/again.zarr"
    context = RunContext(Output("out", s3.options), "tiny", None, False, "f", "m")
    for number, width in enumerate((100, 300)):
        group = stores.create_group(url, s3.options, {})
        pixels = np.random.default_rng(number).normal(size=(1, 90, width)).astype(np.float32)
        group.create_array("image", data=pixels, chunks=(1, 32, 32), shards=(1, 320, 320))
        finish_field(group, make_meta())
        opened = open_field(url, replace(context, start=str(number)))
        assert opened is open_field(url, replace(context, start=str(number)))
        assert np.array_equal(read_tile(opened, Box(0, 0, 90, width)).image, pixels)


@pytest.mark.slow
def test_actors_hold_more_tiles_where_a_store_keeps_their_models_waiting(
    inputs: dict[str, Any],
    proxy: Proxy,
    small_field: SmallField,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not where the pixels are local; the rows are the same."""
    made: list[Depth] = []

    def make(tiles: int) -> Depth:
        made.append(Depth(tiles))
        return made[-1]

    monkeypatch.setattr(driver, "Depth", make)
    local = small_field.config(str(tmp_path / "out"), tiles={"size": 64}, engine={"actors": 1})
    process_field(local)
    proxy.latency_s = 0.04
    options = proxy.through(inputs["storage_options"])
    output = "s3://survey/runs/deeper"
    more = {"output": output, "storage_options": options, "tiles": {"size": 64}}
    process_field({**inputs, **more})
    assert [depth.tiles for depth in made] == [3, 12]
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out" / "shards").iterdir()}
    assert shards_of(output, inputs["storage_options"]) == expected


@pytest.mark.slow
def test_a_run_outlives_a_server_that_is_killed(
    inputs: dict[str, Any], proxy: Proxy, undisturbed: dict[str, bytes], s3: SeaweedFS
) -> None:
    """SIGKILL once two tiles are written, and another start on the same data a second later."""
    output, options = "s3://survey/runs/killed", inputs["storage_options"]
    config = {**inputs, "output": output, "storage_options": proxy.through(options)}
    killer = threading.Thread(target=_kill_and_restart, args=(s3, proxy, output))
    killer.start()
    assert "\n" not in _how_it_stopped(config)
    killer.join()
    assert process_field(config).exit_code == 0
    check_finished(output, undisturbed, options)


def _how_it_stopped(config: dict[str, Any]) -> str:
    try:
        process_field(config)
    except DeblendError as stop:
        return str(stop)
    return ""


def _kill_and_restart(server: SeaweedFS, proxy: Proxy, output: str) -> None:
    receipts = output.removeprefix("s3:/") + "/ledger/"
    until = time.monotonic() + 120
    while proxy.count("PUT", receipts) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    server.kill()
    time.sleep(1)
    server.start()


def test_a_token_that_expires_stops_a_run_in_one_line(
    inputs: dict[str, Any],
    proxy: Proxy,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither tried again nor taken for tiles that cannot be measured; and no word of it is told."""
    output, options = "s3://survey/runs/expired", inputs["storage_options"]
    given = {**proxy.through(options), "token": "planted-token"}
    config = {**inputs, "output": output, "storage_options": given}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    proxy.faults = (Faults(["GET"], refused=1, refusal="400 ExpiredToken"),)
    assert main(["run", str(tmp_path / "config.yaml"), "--debug"]) == 2
    errors = capfd.readouterr().err
    assert f"{FIELD}: permission denied (ExpiredToken); check the owner" in errors
    assert proxy.count("GET") == 1
    for word in ("planted-token", options["secret"], options["key"]):
        assert word not in errors


def test_a_token_that_expires_during_a_run_quarantines_nothing(
    inputs: dict[str, Any], proxy: Proxy, s3: SeaweedFS
) -> None:
    output, options = "s3://survey/runs/expires", inputs["storage_options"]
    config = {**inputs, "output": output, "storage_options": proxy.through(options)}
    proxy.faults = (Faults(["PUT"], refused=1, refusal="400 ExpiredToken", only="/shards/"),)
    with pytest.raises(
        StorageError, match=r"shards/\w+.parquet: permission denied \(ExpiredToken\)"
    ):
        process_field(config)
    ledger = Ledger(Output(output, options))
    assert ledger.read_run()["state"] == "failed"
    assert ledger.output.quarantined() == ledger.output.shards() == []
    written = json.dumps(ledger.read_run())
    assert s3.secret not in written
    assert s3.key not in written


def test_a_half_written_object_is_not_there(s3: SeaweedFS, proxy: Proxy) -> None:
    """The server keeps none of it; and botocore makes as many attempts as the user wants."""
    url = "s3://survey/half/written"
    options = proxy.through(s3.options) | {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    proxy.faults = (Faults(["PUT"], half_request=1),)
    for write in (storage.write_bytes, storage.create_bytes):
        with pytest.raises(TransientStorageError, match=r"half/written: .*; check the URL"):
            write(url, b"x" * 100_000, options)
    assert proxy.count("PUT") <= 4  # aiohttp sends each twice, where a connection was in use before
    assert not storage.exists(url, s3.options)


@pytest.mark.parametrize("verb", ["read_bytes", "read_many", "open_read"])
def test_answers_that_break_off_are_asked_for_again(s3: SeaweedFS, proxy: Proxy, verb: str) -> None:
    urls = [f"s3://survey/broken/{number}" for number in range(6)]
    for url in urls:
        storage.write_bytes(url, url.encode() * 100, s3.options)
    proxy.faults, options = (Faults(["GET"], half_answer=0.4),), proxy.through(s3.options)
    if verb == "read_many":
        found = list(storage.read_many(urls, options))
    elif verb == "read_bytes":
        found = [storage.read_bytes(url, options) for url in urls]
    else:
        found = [storage.open_read(url, options).read() for url in urls]
    assert found == [url.encode() * 100 for url in urls]
    assert proxy.met["half_answer"] >= 2


def test_a_store_that_always_refuses_is_asked_five_times(
    s3: SeaweedFS, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not five times five: one client repeats requests, and nothing repeats that."""
    standard = pytest.importorskip("botocore.retries.standard")
    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0.01)
    proxy.faults = (Faults(["GET", "PUT"], refused=1),)
    options = proxy.through(s3.options)
    with pytest.raises(TransientStorageError, match=r"survey/x: .*; check the URL, the network"):
        storage.write_bytes("s3://survey/x", b"x", options)
    assert proxy.count("PUT") == 5
