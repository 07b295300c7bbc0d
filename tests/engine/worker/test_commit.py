"""Several writers of one tile, in any order and whichever dies: each pair ends in exactly one place."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import Receipt, now
from deblend_batch.catalog.shard import Measurement, encode, make_rows
from deblend_batch.engine.account.done import read_done
from deblend_batch.engine.inputs.work import TileSpec
from deblend_batch.engine.worker.commit import Committer, TileResult
from deblend_batch.engine.worker.poison import Poison
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.tile import Box
from tests.blends import blends_of_two
from tests.support import make_meta

TILE, N = "y0000x0000", 4
_numbers = itertools.count()


def pairs_of(n: int) -> Blends:
    base = np.arange(2 * n, dtype=np.float64).reshape(n, 2)
    return blends_of_two(
        np.stack([base, base], axis=-1),
        blend_id=np.arange(n) + 7,
        source_id=base.astype(np.int64) + 100,
        radec=np.stack([150 + base / 100, base / 100], axis=-1),
    )


def result(
    poison: Sequence[int] = (), *, recorded: bool = False, masks: bool = False, flux: float = 1.0
) -> TileResult:
    """What measuring a tile of four pairs gives where some cannot be measured."""
    pairs, sound = pairs_of(N), np.setdiff1d(np.arange(N), list(poison))
    n, place = len(sound), sound.astype(np.float32)
    values = np.repeat(np.float32(flux) + place, 2).reshape(n, 1, 2)
    area = np.repeat(place, 2).reshape(n, 2)
    measured = Measurement(
        {
            "flux": values,
            "flux_err": (values / 10).astype(np.float32),
            "mask_area": area,
            "mask_overlap": area,
            "flags": np.zeros((n, 2), np.int32),
        }
    )
    rows = make_rows(TILE, pairs[sound], measured, make_meta(), "a network")
    pixels = np.broadcast_to(sound.astype(np.uint8)[:, None, None, None], (n, 3, 4, 4)).copy()
    blame = [Poison(int(row), f"pair {row}", "BadDataError") for row in sorted(poison)]
    spec = TileSpec(TILE, "f", "i", Box(0, 0, 8, 8), 0, N, (), recorded=recorded)
    return TileResult(spec, pairs, rows, pixels if masks else None, blame)


def describe(
    rows: pa.Table, shard: bytes, left_out: list[int], masks_sha256: str | None
) -> Receipt:
    sha256 = hashlib.sha256(shard).hexdigest()
    counts = (len(rows) // 2, len(rows), len(shard), sha256)
    return Receipt(TILE, *counts, "f", "m", {}, {}, {}, now(), left_out, masks_sha256)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(Output(str(tmp_path / "out")))


def committer(ledger: Ledger) -> Committer:
    return Committer(ledger, MaskStore(ledger.output))


def read_shard(ledger: Ledger) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.read_bytes(ledger.output.shard_url(TILE))))


def places(ledger: Ledger) -> tuple[list[int], list[int]]:
    """The pairs in the shard and in the quarantine record, by their place."""
    written = read_shard(ledger)["blend_id"].to_pylist()[::2]
    held = ledger.read_quarantine(TILE).pairs if ledger.output.quarantined() else []
    return [blend - 7 for blend in written], sorted(blend - 7 for blend, *_ in held)


def assert_settled(ledger: Ledger) -> None:
    written, held = places(ledger)
    assert sorted(written + held) == list(range(N)), (written, held)
    receipt = ledger.read_receipt(TILE)
    shard = storage.read_bytes(ledger.output.shard_url(TILE))
    assert receipt.sha256 == hashlib.sha256(shard).hexdigest()
    assert receipt.pairs == len(written)
    if receipt.masks_sha256 is not None:
        blends, _ = MaskStore(ledger.output).read(TILE, receipt.masks_sha256, receipt.pairs)
        assert (blends - 7).tolist() == written


def test_a_commit_is_a_record_a_shard_masks_and_then_the_receipt(ledger: Ledger) -> None:
    receipt, record = committer(ledger).commit(result([1], masks=True), describe)
    assert_settled(ledger)
    assert places(ledger) == ([0, 2, 3], [1])
    assert record is not None
    assert (record.reason, record.error) == ("pair 1", "BadDataError")
    blends, masks = MaskStore(ledger.output).read(TILE, receipt.masks_sha256 or "", 3)
    assert blends.tolist() == [7, 9, 10]
    assert masks[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert receipt == ledger.read_receipt(TILE)


def test_the_first_receipt_stands(ledger: Ledger) -> None:
    committer(ledger).commit(result(), describe)
    first = storage.read_bytes(ledger.output.receipt_url(TILE))
    committer(ledger).commit(result(), describe)
    assert storage.read_bytes(ledger.output.receipt_url(TILE)) == first


def test_a_tile_that_works_after_all_is_released(ledger: Ledger) -> None:
    ledger.quarantine(committer_record([0, 1, 2, 3]))
    committer(ledger).commit(result(recorded=True), describe)
    assert places(ledger) == ([0, 1, 2, 3], [])


def committer_record(places: Sequence[int]) -> Any:
    from deblend_batch.engine.worker.poison import quarantine_record

    return quarantine_record(TILE, pairs_of(N), [Poison(row, "x", "E") for row in places])


DAMAGE: dict[str, Callable[[], bytes]] = {
    "cut": lambda: encode(result().rows)[:100],
    "empty": lambda: b"",
    "other fluxes": lambda: encode(result(flux=2.0).rows),
    "rows twice": lambda: encode(pa.concat_tables([result().rows, result().rows])),
    "another table": lambda: encode(result().rows.select(["ra"])),
    "another tile": lambda: encode(make_other_tile()),
}


def make_other_tile() -> pa.Table:
    rows = result().rows
    ids = pa.array(rows["blend_id"].to_numpy() + 1000)
    return rows.set_column(rows.schema.get_field_index("blend_id"), "blend_id", ids)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_shard_that_no_writer_of_the_tile_makes_is_replaced(
    ledger: Ledger, damage: Callable[[], bytes]
) -> None:
    storage.write_bytes(ledger.output.shard_url(TILE), damage())
    committer(ledger).commit(result(), describe)
    assert storage.read_bytes(ledger.output.shard_url(TILE)) == encode(result().rows)
    assert_settled(ledger)


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_damaged_receipt_is_replaced(ledger: Ledger, content: bytes) -> None:
    storage.write_bytes(ledger.output.receipt_url(TILE), content)
    committer(ledger).commit(result(), describe)
    assert_settled(ledger)


def test_a_shard_brings_its_own_masks(ledger: Ledger) -> None:
    """Also to a writer that could not measure a pair that it holds; whose own masks go."""
    first, _ = committer(ledger).commit(result([1], masks=True), describe)
    second, record = committer(ledger).commit(result([2], masks=True), describe)
    assert second.masks_sha256 == first.masks_sha256
    assert places(ledger) == ([0, 2, 3], [1])
    assert record is not None
    assert "another writer" in record.reason
    names = storage.list_names(f"{ledger.output}/masks.zarr")
    assert names == [f"{TILE}-{str(first.masks_sha256)[:16]}"]


def test_a_shard_of_another_kind_of_machine_stands(ledger: Ledger) -> None:
    committer(ledger).commit(result(flux=1.001), describe)
    committer(ledger).commit(result(), describe)
    assert storage.read_bytes(ledger.output.shard_url(TILE)) == encode(result(flux=1.001).rows)
    assert_settled(ledger)


class Killed(BaseException):
    """What becomes of a writer whose process dies."""


class Stage:
    """Lets one writer at a time use the store, in an order that is laid down; some die at a step."""

    def __init__(self, names: Sequence[str], order: Sequence[int], deaths: dict[str, int]) -> None:
        self._live, self._waiting = set(names), set[str]()
        self._order = iter(order)
        self._deaths = deaths
        self._steps = dict.fromkeys(names, 0)
        self._turn: str | None = None
        self._changed = threading.Condition()

    def use(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_call(*arguments: Any, **options: Any) -> Any:
            me = threading.current_thread().name
            if me not in self._steps:
                return call(*arguments, **options)
            with self._changed:
                self._steps[me] += 1
                if self._steps[me] == self._deaths.get(me):
                    raise Killed
                self._waiting.add(me)
                self._choose()
                assert self._changed.wait_for(lambda: self._turn == me, 10)
                try:
                    return call(*arguments, **options)
                finally:
                    self._waiting.remove(me)
                    self._turn = None

        return wait_and_call

    def play(self, work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except Killed:
                pass
            finally:
                with self._changed:
                    self._live.remove(threading.current_thread().name)
                    self._choose()

        return run

    def _choose(self) -> None:
        if self._waiting == self._live and self._waiting and self._turn is None:
            ready = sorted(self._waiting)
            self._turn = ready[next(self._order, 0) % len(ready)]
            self._changed.notify_all()


def lose(ledger: Ledger, poison: Collection[int], *, masks: bool) -> None:
    """Leave a tile as it is once its shard was lost or removed: what else there was of it remains."""
    committer(ledger).commit(result(sorted(poison), masks=masks, flux=1.002), describe)
    storage.remove(ledger.output.shard_url(TILE))


poisons = st.sets(st.integers(0, N - 1), max_size=N - 1)
writers = st.tuples(poisons, st.booleans(), st.sampled_from([1.0, 1.001]))
deaths = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(1, 12))
histories = st.one_of(
    st.tuples(st.none(), deaths), st.tuples(poisons.map(frozenset), st.just(dict[str, int]()))
)


@given(
    writers,
    writers,
    st.lists(st.integers(0, 1), max_size=24),
    histories,
    poisons,
    st.booleans(),
)
def test_two_writers_leave_each_pair_in_one_place(
    one: tuple[set[int], bool, float],
    other: tuple[set[int], bool, float],
    order: list[int],
    history: tuple[frozenset[int] | None, dict[str, int]],
    later: set[int],
    masks: bool,
) -> None:
    """At any interleaving of their requests; and if one or both die, a later start mends what they left.

    Each could not measure some pairs, may have seen a quarantine record, and rounds in its own way. The tile
    may have been done before, and its shard been lost: what is left of it is of a shard that is no more.
    """
    lost, deaths = history
    ledger = Ledger(Output(f"memory://commit/{next(_numbers)}"))
    if lost is not None:
        lose(ledger, lost, masks=masks)
    stage = Stage(["a", "b"], order, deaths)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("create_bytes", "write_bytes", "read_bytes", "remove"):
            patch.setattr(storage, name, stage.use(getattr(storage, name)))
        threads = [
            threading.Thread(
                name=name,
                target=stage.play(
                    partial(
                        committer(ledger).commit,
                        result(
                            sorted(poison), recorded=recorded or bool(lost), flux=flux, masks=masks
                        ),
                        describe,
                    )
                ),
            )
            for name, (poison, recorded, flux) in (("a", one), ("b", other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    if not deaths:
        assert_settled(ledger)
    resume(ledger, later, masks=masks)
    assert_settled(ledger)


def resume(ledger: Ledger, poison: set[int], *, masks: bool) -> None:
    """Do what the next start does with this tile."""
    written, held = read_done(ledger)
    if not written:
        again = result(sorted(poison), recorded=bool(held), masks=masks)
        committer(ledger).commit(again, describe)
