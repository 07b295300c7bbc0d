"""What the driver does about failures: its loop alone, on actors that are told what to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError

from deblend_batch.engine.driver import loop as driver_module
from deblend_batch.engine.driver.crew import Actor
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.loop import Driver
from deblend_batch.engine.inputs.work import TileSpec
from deblend_batch.engine.worker.actor import TileOutcome
from deblend_batch.errors import RunStoppedError, TransientStorageError
from deblend_batch.tiling.tile import Box

DEATH, REFUSAL = RayActorError(), TransientStorageError("s3://x: 503 SlowDown; check the network")
BUG, FULL = KeyError("a bug"), MemoryError("Unable to allocate 9 GiB")
Say = Callable[[str, range, int], Exception | None]


def spec(name: str, n_pairs: int = 1) -> TileSpec:
    return TileSpec(name, "f", "i", Box(0, 0, 8, 8), 0, n_pairs, ())


class Play:
    """A driver on one actor, of which ``say`` tells how each try of a tile's pairs ends.

    It is told "process" or "probe", the pairs, and in how many pieces.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, say: Say, attempts: int = 3) -> None:
        self.done: list[str] = []
        self.quarantined: dict[str, list[int]] = {}
        self.tries: list[tuple[str, range, int]] = []
        self._say = say
        monkeypatch.setattr(driver_module, "Crew", lambda *_: self._crew())
        monkeypatch.setattr(driver_module, "_BACKOFF_SECONDS", 0.0)
        monkeypatch.setattr(driver_module, "_TICK_SECONDS", 0.0)
        monkeypatch.setattr(driver_module, "ray", SimpleNamespace(wait=self._wait, get=self._get))
        monkeypatch.setattr(driver_module, "load_pairs", lambda spec, _: _ids(spec.n_pairs))
        events = Events(
            done=lambda receipt: self.done.append(receipt.tile),
            quarantined=self._record,
            left_out=self._record,
            retried=lambda *_: None,
            joined=lambda _: None,
            waiting=lambda _: None,
            tick=lambda: None,
        )
        engine: Any = SimpleNamespace(attempts=attempts, max_failures=3, tiles_in_flight=1)
        context: Any = SimpleNamespace(output="out")
        pool: Any = None
        self._driver = Driver(context, pool, engine, events)

    def run(self, tiles: Iterator[TileSpec], *, proven: bool = False) -> None:
        self._driver.run(tiles, 1, proven=proven)

    def _crew(self) -> Any:
        pool = SimpleNamespace(n_actors=1)
        live = [Actor(SimpleNamespace(process=_Call(self._process), probe=_Call(self._probe)))]
        nothing = {
            name: lambda *_: None
            for name in ("start", "close", "look_at_nodes", "say_waiting", "replace")
        }
        return SimpleNamespace(live=live, booting={}, pool=pool, n_ready=1, **nothing)

    def _process(self, spec: TileSpec, known: Any, _: int, pieces: int) -> Any:
        out = self._tell("process", range(spec.n_pairs), pieces)
        receipt: Any = SimpleNamespace(tile=spec.name, worker={"busy_seconds": 1, "up_seconds": 1})
        record: Any = None
        if known:
            pairs = [(poison.row, 0, 0) for poison in known]
            record = SimpleNamespace(tile=spec.name, pairs=pairs, reason="killers")
        return out or TileOutcome(receipt, record, len(known))

    def _probe(self, _: TileSpec, start: int, stop: int) -> Any:
        return self._tell("probe", range(start, stop), 1)

    def _tell(self, what: str, rows: range, pieces: int) -> Exception | None:
        self.tries.append((what, rows, pieces))
        return self._say(what, rows, pieces)

    def _record(self, record: Any) -> None:
        self.quarantined[record.tile] = [blend for blend, _, _ in record.pairs]

    @staticmethod
    def _wait(waiting: Any, **_: Any) -> Any:
        return waiting[:1], waiting[1:]

    @staticmethod
    def _get(reference: Any) -> Any:
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value


class _Call:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> Any:
        return _Reference(self._call(*arguments))


class _Reference:
    def __init__(self, value: Any) -> None:
        self.value = value


def _ids(n: int) -> Any:
    return SimpleNamespace(blend_id=np.arange(n), source_id=np.zeros((n, 2), np.int64))


def in_turn(*outcomes: Exception | None) -> Say:
    """Say one after the other, whatever is tried; then that all is well."""
    left = iter(outcomes)
    return lambda *_: next(left, None)


@pytest.mark.parametrize(
    "outcomes",
    [
        (DEATH, REFUSAL, DEATH, REFUSAL),
        (REFUSAL, DEATH, REFUSAL, DEATH),
        (DEATH, DEATH, DEATH, REFUSAL, None),
    ],
)
def test_a_store_s_failures_and_others_are_counted_apart(
    monkeypatch: pytest.MonkeyPatch, outcomes: tuple[Exception | None, ...]
) -> None:
    play = Play(monkeypatch, in_turn(*outcomes))
    play.run(iter([spec("a")]))
    assert (play.done, play.quarantined) == (["a"], {})


def test_a_store_that_is_gone_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch, lambda *_: REFUSAL)
    with pytest.raises(TransientStorageError, match="503 SlowDown"):
        play.run(iter([spec("a")]))
    assert len(play.tries) == 3
    assert play.quarantined == {}


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_lone_pair_is_no_killer_before_it_has_killed_twice_alone(
    monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    play = Play(monkeypatch, in_turn(*[DEATH] * attempts, DEATH), attempts)
    play.run(iter([spec("a")]))
    assert (play.done, play.quarantined) == (["a"], {})
    play = Play(monkeypatch, in_turn(*[DEATH] * (attempts + 2)), attempts)
    play.run(iter([spec("a")]))
    assert (play.done, play.quarantined) == ([], {"a": [0]})


def test_killers_are_left_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(what: str, rows: range, _: int) -> Exception | None:
        kills = {3, 40} & set(rows) if what == "probe" else len(play.tries) <= 3
        return DEATH if kills else None

    play = Play(monkeypatch, say)
    play.run(iter([spec("a", 64)]))
    assert (play.done, play.quarantined) == (["a"], {"a": [3, 40]})


def test_memory_in_a_search_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each range runs out of memory once, as where another process takes it."""
    seen: set[range] = set()

    def say(what: str, rows: range, _: int) -> Exception | None:
        if what == "process":
            return DEATH if len(play.tries) <= 3 else None
        first = rows not in seen
        seen.add(rows)
        return FULL if first else None

    play = Play(monkeypatch, say)
    play.run(iter([spec("a", 8)]))
    assert (play.done, play.quarantined) == (["a"], {})


@pytest.mark.parametrize("fits", [8, 1])
def test_a_tile_without_room_is_done_in_ever_smaller_pieces(
    monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    play = Play(monkeypatch, lambda _, rows, pieces: FULL if len(rows) / pieces > fits else None)
    play.run(iter([spec("a", 32)]))
    assert (play.done, play.quarantined) == (["a"], {})
    assert play.tries[-1][2] == 32 // fits
    assert all(what == "process" for what, _, _ in play.tries)


def test_a_tile_that_fails_in_any_pieces_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch, lambda what, *_: DEATH if what == "process" else None)
    play.run(iter([spec("a", 4)]))
    assert play.quarantined == {"a": [0, 1, 2, 3]}
    assert [what for what, _, _ in play.tries].count("probe") == 2  # searched once


@pytest.mark.parametrize("proven", [False, True])
def test_a_bug_of_the_only_tile_left_is_that_tile_s_where_others_have_worked(
    monkeypatch: pytest.MonkeyPatch, proven: bool
) -> None:
    play = Play(monkeypatch, lambda *_: BUG)
    if proven:
        play.run(iter([spec("a")]), proven=True)
        assert play.quarantined == {"a": [0]}
    else:
        with pytest.raises(KeyError, match="a bug"):
            play.run(iter([spec("a")]))


def test_tiles_that_all_fail_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    play = Play(monkeypatch, lambda *_: BUG)
    with pytest.raises(RunStoppedError, match=r"3 tiles in a row failed, last c: .*a bug"):
        play.run(iter([spec(name) for name in "abcde"]), proven=True)
    assert list(play.quarantined) == ["a", "b", "c"]
