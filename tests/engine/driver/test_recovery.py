"""What is decided about failures: each class by its table, and whole stories told to the function alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.engine.driver.recovery import (
    FRESH,
    Again,
    Course,
    Decision,
    Doubt,
    InPieces,
    Quarantine,
    Searching,
    State,
    Stop,
    Tries,
    Whole,
    WithoutKillers,
    decide,
)
from deblend_batch.engine.worker.bisection import Search
from deblend_batch.engine.worker.poison import Poison
from deblend_batch.errors import BadDataError, StorageError, TransientStorageError
from deblend_batch.failure import Failure, Fault

REFUSAL = Fault.of(TransientStorageError("s3://x: 503 SlowDown; check the network"))
FULL = Fault.of(MemoryError("Unable to allocate 9 GiB"))
BUG = Fault.of(KeyError("a bug"))
DATA = Fault.of(BadDataError("field.zarr: cannot decode a chunk"))
USER = Fault.of(StorageError("/data: permission denied; check the mode"))
CUDA = Fault.of(RuntimeError("CUDA error: an illegal memory access was encountered"))
DEATH = Fault(Failure.WORKER, "died", "WorkerDied", RuntimeError("died"))
SPOT = replace(DEATH, preempted=True)
N, MOST = 8, 4
SEARCH = Search.begin(range(N), DEATH, 128, confirm=True)
KILLERS = (Poison(3, "died", "WorkerDied"),)
ALL_BLAMED = tuple(Poison(row, DATA.reason, DATA.error) for row in range(N))


def tried(state: State, attempts: int, refusals: int = 0) -> State:
    """The same state after failures."""
    return replace(state, tries=Tries(attempts, refusals))


PATIENT = [FRESH, InPieces(4), Searching(SEARCH, 1), WithoutKillers(KILLERS, 1)]


@pytest.mark.parametrize("state", PATIENT, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize(
    ("fault", "before", "after", "delay"),
    [
        (REFUSAL, (0, 0), (0, 1), 0.5),
        (REFUSAL, (0, 1), (0, 2), 1.0),
        (REFUSAL, (3, 2), (3, 3), 2.0),
        (FULL, (0, 0), (1, 0), 0.5),
        (CUDA, (1, 3), (2, 3), 1.0),
    ],
    ids=["store", "store again", "store counted apart", "memory", "device"],
)
def test_what_may_pass_is_tried_again_later(
    state: State, fault: Fault, before: tuple[int, int], after: tuple[int, int], delay: float
) -> None:
    decision = decide(tried(state, *before), N, fault, MOST, proven=False)
    told = after[1] if fault is REFUSAL else after[0]
    assert decision == Again(tried(state, *after), delay, told, fault.reason)


@pytest.mark.parametrize("state", PATIENT, ids=lambda state: type(state).__name__)
@pytest.mark.parametrize("proven", [False, True])
def test_the_same_in_every_state(state: State, proven: bool) -> None:
    assert decide(state, N, USER, MOST, proven=proven) == Stop()
    assert decide(tried(state, 3, 3), N, SPOT, MOST, proven=proven) == Again(tried(state, 3, 3))
    assert decide(tried(state, 0, MOST - 1), N, REFUSAL, MOST, proven=proven) == Stop()


@pytest.mark.parametrize(
    ("state", "fault", "proven", "decision"),
    [
        (FRESH, DATA, False, Quarantine(ALL_BLAMED, 1)),
        (tried(FRESH, 2), DATA, True, Quarantine(ALL_BLAMED, 3)),
        (InPieces(2), DATA, False, Quarantine(ALL_BLAMED, 1)),
        (FRESH, DEATH, False, Again(tried(FRESH, 1), 0.5, 1, "died")),
        (tried(FRESH, 3), DEATH, False, Again(Searching(SEARCH, 1))),
        (tried(InPieces(4), 3), DEATH, False, Again(Searching(SEARCH, 4))),
        (
            tried(FRESH, 3, 1),
            FULL,
            False,
            Again(InPieces(2, Tries(0, 1)), 0.5, 4, f"{FULL.reason}; now in 2 pieces"),
        ),
        (
            tried(WithoutKillers(KILLERS, 4), 3),
            DEATH,
            True,
            Again(WithoutKillers(KILLERS, 8), 0.5, 4, "died; now in 8 pieces"),
        ),
    ],
    ids=[
        "data",
        "data after deaths",
        "data in pieces",
        "a death",
        "the last death",
        "the last death in pieces",
        "memory for the last time",
        "a death without the killers",
    ],
)
def test_what_each_failure_calls_for(
    state: State, fault: Fault, proven: bool, decision: Decision
) -> None:
    assert decide(state, N, fault, MOST, proven=proven) == decision


def test_a_bug_is_the_tile_s_own_only_where_others_have_worked() -> None:
    own = decide(FRESH, N, BUG, MOST, proven=True)
    assert isinstance(own, Quarantine)
    assert [each.reason for each in own.poison] == ["'a bug'"] * N
    assert decide(FRESH, N, BUG, MOST, proven=False) == Doubt(own)


@pytest.mark.parametrize("state", [InPieces(8, Tries(3)), WithoutKillers(KILLERS, 64, Tries(3))])
def test_what_fails_in_the_smallest_pieces_is_given_up(state: State) -> None:
    assert isinstance(decide(state, N, FULL, MOST, proven=True), Quarantine)


@pytest.mark.parametrize(
    ("state", "suspect"),
    [(FRESH, False), (tried(FRESH, 1), False), (tried(FRESH, 2), True)]
    + [(state, True) for state in PATIENT[1:]],
)
def test_who_is_given_an_actor_to_itself(state: State, suspect: bool) -> None:
    assert state.suspect == suspect


def test_the_course_of_a_run() -> None:
    course = Course(most_failures=3)
    assert not course.doubted().doubted().a_bug
    assert course.doubted().doubted().doubted().a_bug
    assert replace(course, most_failures=1).doubted().a_bug
    assert not course.failed().failed().hopeless
    assert course.failed().failed().failed().hopeless
    assert course.failed().failed().doubted().worked() == Course(3, proven=True)


Say = Callable[[str, range, int], Fault | None]


@dataclass
class Story:
    """A tile that is tried until it is measured or given up; ``say`` tells how each try ends."""

    say: Say
    n_pairs: int
    attempts: int = 3
    proven: bool = True
    tries: list[tuple[str, range, int]] = field(default_factory=list)

    def end(self) -> tuple[Poison, ...] | Decision:
        """Return the pairs that are left out of what was measured, or how else it ended."""
        state: State = FRESH
        while True:
            probe = state.search.next if isinstance(state, Searching) else None
            rows = probe or range(self.n_pairs)
            pieces = 1 if isinstance(state, Whole | Searching) else state.pieces
            what = "process" if probe is None else "probe"
            self.tries.append((what, rows, pieces))
            fault = self.say(what, rows, pieces)
            if fault is None and probe is None:
                return state.poison if isinstance(state, WithoutKillers) else ()
            decision = decide(state, self.n_pairs, fault, self.attempts, proven=self.proven)
            if not isinstance(decision, Again):
                return decision
            state = decision.state


def in_turn(*outcomes: Fault | None) -> Say:
    """Say one after the other, whatever is tried; then that all is well."""
    left: Iterator[Fault | None] = iter(outcomes)
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
    outcomes: tuple[Fault | None, ...],
) -> None:
    assert Story(in_turn(*outcomes), 1).end() == ()


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_lone_pair_is_no_killer_before_it_has_killed_twice_alone(attempts: int) -> None:
    assert Story(in_turn(*[DEATH] * attempts, DEATH), 1, attempts).end() == ()
    given_up = Story(in_turn(*[DEATH] * (attempts + 2)), 1, attempts).end()
    assert given_up == Quarantine((Poison(0, "died", "WorkerDied"),), 1)


@given(
    n_pairs=st.integers(1, 4096),
    killers=st.sets(st.integers(0, 4095), max_size=8),
    attempts=st.integers(1, 4),
    refused=st.sets(st.integers(0, 40)),
)
def test_pairs_that_kill_are_left_out_alone(
    n_pairs: int, killers: set[int], attempts: int, refused: set[int]
) -> None:
    """Whatever pairs they are, and though the store refuses now and then, never twice in a row."""
    killers = {row for row in killers if row < n_pairs}
    searched = False

    def say(what: str, rows: range, _: int) -> Fault | None:
        nonlocal searched
        number = len(story.tries)
        if attempts > 1 and number in refused and number - 1 not in refused:
            return REFUSAL
        searched |= what == "probe"
        if what == "process" and searched:
            return None
        return DEATH if killers & set(rows) else None

    story = Story(say, n_pairs, attempts)
    ended = story.end()
    poison = ended.poison if isinstance(ended, Quarantine) else ended
    assert isinstance(poison, tuple)
    assert {each.row for each in poison} == killers
    assert isinstance(ended, Quarantine) == (len(killers) == n_pairs)


@given(n_pairs=st.integers(1, 300), killers=st.sets(st.integers(0, 299), min_size=1))
def test_no_pair_is_lost_however_many_kill(n_pairs: int, killers: set[int]) -> None:
    """Past the bound on deaths what is left is blamed as it is: every killer is, and each pair once."""
    killers = {row for row in killers if row < n_pairs}
    state: State = Searching(Search.begin(range(n_pairs), DEATH, 128, confirm=True), 1)
    worked: list[int] = []
    deaths = 0
    decision: Decision = Again(state)
    while isinstance(decision, Again) and isinstance(decision.state, Searching):
        rows = decision.state.search.next
        assert rows is not None
        fault = DEATH if killers & set(rows) else None
        deaths += fault is not None
        state = decision.state
        decision = decide(state, n_pairs, fault, 3, proven=True)
        worked += [] if fault else list(rows)
    ended = decision.state if isinstance(decision, Again) else decision
    assert isinstance(ended, WithoutKillers | Quarantine)
    blamed = [each.row for each in ended.poison]
    assert sorted(blamed + worked) == list(range(n_pairs))
    assert killers <= set(blamed)
    assert deaths <= 2 * (128 + 2)


def test_memory_in_a_search_blames_nobody() -> None:
    """Each range runs out of memory once, as where another process takes it."""
    seen: set[range] = set()

    def say(what: str, rows: range, _: int) -> Fault | None:
        if what == "process":
            return DEATH if len(story.tries) <= 3 else None
        first = rows not in seen
        seen.add(rows)
        return FULL if first else None

    story = Story(say, 8)
    assert story.end() == ()


@pytest.mark.parametrize("fits", [8, 1])
def test_a_tile_without_room_is_done_in_ever_smaller_pieces(fits: int) -> None:
    story = Story(lambda _, rows, pieces: FULL if len(rows) / pieces > fits else None, 32)
    assert story.end() == ()
    assert story.tries[-1][2] == 32 // fits
    assert all(what == "process" for what, _, _ in story.tries)


def test_a_tile_that_fails_in_any_pieces_is_given_up() -> None:
    story = Story(lambda what, *_: DEATH if what == "process" else None, 4)
    ended = story.end()
    assert isinstance(ended, Quarantine)
    assert [each.row for each in ended.poison] == [0, 1, 2, 3]
    assert [what for what, _, _ in story.tries].count("probe") == 2  # searched once
