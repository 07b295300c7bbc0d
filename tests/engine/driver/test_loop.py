"""The driver's loop carries decisions out: on a crew of one worker that is told what to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.config import EngineConfig
from deblend_batch.engine.crew.crew import Answer, Call
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.loop import Driver
from deblend_batch.engine.inputs.index.indexing import index_field
from deblend_batch.engine.inputs.work import RunContext, TileSpec
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.worker.exchange import TileOutcome, WorkerInfo
from deblend_batch.errors import RunStoppedError, TransientStorageError
from deblend_batch.failure import Failure, Fault
from deblend_batch.tiling.tile import Box
from tests.engine.indexing import task_for, write_detections, write_field

REFUSAL = Fault.of(TransientStorageError("s3://x: 503 SlowDown; check the network"))
BUG = Fault.of(KeyError("a bug"))
DEATH = Fault(Failure.WORKER, "died", "WorkerDied", RuntimeError("died"))
N_PAIRS = 5
Say = Callable[[TileSpec, range | None], Fault | None]


class Told:
    """A crew of one worker at a time, whose answers ``say`` decides: of a tile, or of some of its pairs."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._answers: list[Answer] = []
        self.started = 0

    def start(self) -> Call:
        self.started += 1
        call = Call(self.started, "ready")
        info = WorkerInfo("node", 1, "cpu", (), None, 1)
        self._answers.append(Answer(call, info))
        return call

    def submit(self, worker: Any, method: str, *arguments: Any) -> Call:
        call = Call(worker, method)
        spec = arguments[0]
        rows = range(*arguments[1:]) if method == "probe" else None
        fault = self._say(spec, rows)
        value = None if fault or rows else outcome(spec, arguments[1])
        self._answers.append(Answer(call, value, fault))
        return call

    def wait(self, seconds: float) -> list[Answer]:
        return [self._answers.pop(0)] if self._answers else []

    def lives(self, worker: Any) -> bool:
        return False

    def kill(self, worker: Any) -> None:
        return

    def close(self) -> None:
        return

    def resources(self) -> Mapping[str, float]:
        return {"CPU": 1.0}

    def leaving(self) -> frozenset[str]:
        return frozenset()

    def why_waiting(self) -> Mapping[str, str]:
        return {}


def outcome(spec: TileSpec, known: Any) -> TileOutcome:
    """A tile that was measured without some pairs."""
    times = {"busy_seconds": 1.0, "up_seconds": 1.0}
    receipt = Receipt(spec.name, 1, 2, 4, "", "", "", {}, {}, times, "")
    pairs = [(poison.row, 0, 0) for poison in known]
    record = QuarantineRecord(spec.name, "killers", "WorkerDied", 1, pairs) if pairs else None
    return TileOutcome(receipt, record, len(pairs))


class Play:
    """A driver of such a crew, and what it tells."""

    def __init__(self, folder: Path, say: Say, attempts: int = 1) -> None:
        self.done: list[str] = []
        self.quarantined: dict[str, int] = {}
        self.retried: list[tuple[str, int, Failure, str]] = []
        yx = np.stack(
            [np.repeat(np.arange(N_PAIRS) * 20.0 + 10, 2), np.tile([10.0, 13.0], N_PAIRS)]
        )
        write_detections(folder / "detections.parquet", yx.T)
        self.index = index_field(task_for(write_field(folder), folder))
        assert self.index.n_blends == N_PAIRS
        events = Events(
            done=lambda receipt: self.done.append(receipt.tile),
            quarantined=self._record,
            left_out=self._record,
            retried=lambda *told: self.retried.append(told),
            joined=lambda _: None,
            waiting=lambda *_: None,
            tick=lambda: None,
        )
        self.crew = Told(say)
        context = RunContext(Output(str(folder)), "model", None, False, "f", "m")
        engine = EngineConfig(attempts=attempts, max_failures=3)
        self._driver = Driver(context, self.crew, ActorPool(1, 0.0, 1.0), engine, events)

    def run(self, names: str, *, proven: bool = False) -> None:
        box = Box(0, 0, 100, 100)
        specs = [TileSpec(name, "f", self.index.url, box, 0, N_PAIRS, ()) for name in names]
        self._driver.run(iter(specs), 1, proven=proven)

    def _record(self, record: QuarantineRecord) -> None:
        self.quarantined[record.tile] = len(record.pairs)


def test_a_tile_is_tried_again_later(tmp_path: Path) -> None:
    faults = [REFUSAL]
    play = Play(tmp_path, lambda *_: faults.pop() if faults else None, attempts=2)
    play.run("a")
    assert (play.done, play.quarantined) == (["a"], {})
    assert play.retried == [("a", 1, Failure.TRANSIENT, REFUSAL.reason)]
    assert play.crew.started == 1


def test_a_store_that_is_gone_stops_the_run(tmp_path: Path) -> None:
    play = Play(tmp_path, lambda *_: REFUSAL)
    with pytest.raises(TransientStorageError, match="503 SlowDown"):
        play.run("a")
    assert play.quarantined == {}


def test_killers_are_left_out_alone_and_each_death_is_made_good(tmp_path: Path) -> None:
    deaths = 0

    def say(spec: TileSpec, rows: range | None) -> Fault | None:
        nonlocal deaths
        dies = spec.name == "a" and (2 in rows if rows else deaths == 0)
        deaths += dies
        return DEATH if dies else None

    play = Play(tmp_path, say)
    play.run("ab")
    assert (sorted(play.done), play.quarantined) == (["a", "b"], {"a": 1})
    assert play.crew.started == 1 + deaths


@pytest.mark.parametrize("proven", [False, True])
def test_a_bug_of_the_only_tile_left_is_that_tile_s_where_others_have_worked(
    tmp_path: Path, proven: bool
) -> None:
    play = Play(tmp_path, lambda *_: BUG)
    if proven:
        play.run("a", proven=True)
        assert play.quarantined == {"a": N_PAIRS}
    else:
        with pytest.raises(KeyError, match="a bug"):
            play.run("a")
        assert play.quarantined == {}


def test_tiles_in_doubt_are_given_up_once_another_works(tmp_path: Path) -> None:
    play = Play(tmp_path, lambda spec, _: BUG if spec.name in "ab" else None)
    play.run("abcd")
    assert (play.done, play.quarantined) == (["c", "d"], {"a": N_PAIRS, "b": N_PAIRS})


def test_tiles_that_all_fail_stop_the_run(tmp_path: Path) -> None:
    play = Play(tmp_path, lambda *_: BUG)
    with pytest.raises(RunStoppedError, match=r"3 tiles in a row failed, last c: .*a bug"):
        play.run("abcde", proven=True)
    assert list(play.quarantined) == ["a", "b", "c"]
