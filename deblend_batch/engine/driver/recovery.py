"""What to do about a tile that failed: a pure function of what is known of the tile and of the fault.

Nothing here knows Ray, a clock or a store: delays are values, and the driver's loop carries decisions out.
What each class of failure calls for is told in docs/architecture.md and docs/reliability.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from deblend_batch.engine.worker.bisection import Search
from deblend_batch.engine.worker.poison import Poison
from deblend_batch.failure import POISONOUS, Failure, Fault

WORKER_IN_DOUBT = frozenset({Failure.WORKER, Failure.DEVICE, Failure.MEMORY})
"""Failures after which a worker may be gone, or not to be trusted."""

_OF_THE_PAIRS = POISONOUS | {Failure.WORKER}
_BACKOFF_SECONDS = 0.5
_SUSPECT_AFTER = 2
_MOST_DEATHS = 128
_MOST_PIECES = 64
_UNEXPLAINED = 3


@dataclass(frozen=True)
class Tries:
    """How often a tile failed in its present state: by a store's fault, and otherwise."""

    attempts: int = 0
    refusals: int = 0


@dataclass(frozen=True)
class Whole:
    """A tile that is measured as it is: fresh, or again after failures."""

    tries: Tries = Tries()

    @property
    def suspect(self) -> bool:
        """Whether it may be what kills its workers: it is then given an actor to itself."""
        return self.tries.attempts >= _SUSPECT_AFTER


@dataclass(frozen=True)
class InPieces:
    """A tile for which memory did not suffice: groups of its pairs are measured one after the other."""

    pieces: int
    tries: Tries = Tries()
    suspect = True


@dataclass(frozen=True)
class Searching:
    """A tile of which some pairs at a time are tried and forgotten, to learn which of them kill a worker."""

    search: Search
    pieces: int
    tries: Tries = Tries()
    suspect = True


@dataclass(frozen=True)
class WithoutKillers:
    """A tile that has been searched, measured without the pairs that were found, if any were."""

    poison: tuple[Poison, ...]
    pieces: int
    tries: Tries = Tries()
    suspect = True


FRESH = Whole()
"""Of a tile that nothing is known of."""

State = Whole | InPieces | Searching | WithoutKillers
"""What is to be done to a tile next, and what has been learnt of it."""


@dataclass(frozen=True)
class Again:
    """Give the tile to a worker again.

    Parameters
    ----------
    state : Whole, InPieces, Searching or WithoutKillers
        What is done to it then.
    delay_seconds : float
        How long to wait before.
    times : int
        How often it failed, to be told; 0 where there is nothing to tell.
    reason : str
        One line, to be told.
    """

    state: State
    delay_seconds: float = 0.0
    times: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Quarantine:
    """Give the tile up: none of its pairs can be measured.

    Parameters
    ----------
    poison : tuple of Poison
        Every pair, and why.
    attempts : int
        How often it was tried.
    """

    poison: tuple[Poison, ...]
    attempts: int


@dataclass(frozen=True)
class Doubt:
    """Keep the tile until another works: then it is given up as this says; if none does, it is a bug."""

    quarantine: Quarantine


@dataclass(frozen=True)
class Stop:
    """End the run: going on would repeat the failure, or put what is sound in quarantine."""


Decision = Again | Quarantine | Doubt | Stop


def decide(
    state: State, n_blends: int, fault: Fault | None, most_attempts: int, *, proven: bool
) -> Decision:
    """Decide what to do about a tile that failed, or of which a few pairs were tried.

    Parameters
    ----------
    state : Whole, InPieces, Searching or WithoutKillers
        What was done to it.
    n_blends : int
        Its pairs.
    fault : Fault, optional
        How it failed; None if the pairs that were tried did not.
    most_attempts : int
        How often the same is tried (``engine.attempts``).
    proven : bool
        Whether any tile of the run has worked.
    """
    if fault is None:
        return _narrowed(state, n_blends, None, most_attempts)
    if fault.failure is Failure.USER:
        return Stop()
    if fault.preempted:
        return Again(state)
    if isinstance(state, Searching) and fault.failure in _OF_THE_PAIRS:
        return _narrowed(state, n_blends, fault, most_attempts)
    if fault.failure in POISONOUS:
        given_up = _all_blamed(n_blends, fault, state.tries.attempts + 1)
        return Doubt(given_up) if fault.failure is Failure.BUG and not proven else given_up
    return _try_again(state, n_blends, fault, most_attempts)


def _try_again(state: State, n_blends: int, fault: Fault, most_attempts: int) -> Decision:
    """Count a failure that may pass, a store's apart from others; do the same again unless too often."""
    before, refused = state.tries, fault.failure is Failure.TRANSIENT
    tries = Tries(before.attempts + (not refused), before.refusals + refused)
    times = tries.refusals if refused else tries.attempts
    if times < most_attempts:
        again = replace(state, tries=tries)
        return Again(again, _BACKOFF_SECONDS * 2 ** (times - 1), times, fault.reason)
    if refused:
        return Stop()  # a store that is gone would quarantine what is sound
    if isinstance(state, Searching):
        return _narrowed(state, n_blends, fault, most_attempts)
    return _exhausted(replace(state, tries=tries), n_blends, fault)


def _exhausted(state: Whole | InPieces | WithoutKillers, n_blends: int, fault: Fault) -> Decision:
    """Look for pairs that kill the worker, once; then do the tile in pieces; then give it up."""
    pieces = 1 if isinstance(state, Whole) else state.pieces
    if fault.failure is not Failure.MEMORY and not isinstance(state, WithoutKillers):
        search = Search.begin(range(n_blends), fault, _MOST_DEATHS, confirm=True)
        return Again(Searching(search, pieces))
    if pieces >= min(n_blends, _MOST_PIECES):
        return _all_blamed(n_blends, fault, state.tries.attempts)
    pieces, tries = 2 * pieces, Tries(0, state.tries.refusals)
    divided: State = InPieces(pieces, tries)
    if isinstance(state, WithoutKillers):
        divided = replace(state, pieces=pieces, tries=tries)
    reason = f"{fault.reason}; now in {pieces} pieces"
    return Again(divided, _BACKOFF_SECONDS, state.tries.attempts, reason)


def _narrowed(state: State, n_blends: int, fault: Fault | None, most_attempts: int) -> Decision:
    """Go on narrowing down which pairs kill the workers; then do the tile without them, with one try left."""
    assert isinstance(state, Searching)
    search = state.search.tried(fault)
    if search.next is not None:
        return Again(Searching(search, state.pieces))
    if len(search.poison) == n_blends:
        return Quarantine(search.blamed, 1)
    return Again(WithoutKillers(search.blamed, state.pieces, Tries(most_attempts - 1)))


def _all_blamed(n_blends: int, fault: Fault, attempts: int) -> Quarantine:
    return Quarantine(tuple(Poison.of(row, fault) for row in range(n_blends)), max(attempts, 1))


@dataclass(frozen=True)
class Course:
    """How a run goes, as far as that decides when it stops.

    Parameters
    ----------
    most_failures : int
        Tiles in a row that may fail (``engine.max_failures``).
    proven : bool
        Whether any tile has worked, in this start or before: another that fails is a fault of its own.
    in_a_row : int
        Tiles that failed since the last that worked.
    in_doubt : int
        Tiles that failed for no known reason while nothing had worked.
    """

    most_failures: int
    proven: bool = False
    in_a_row: int = 0
    in_doubt: int = 0

    def worked(self) -> Course:
        """Take note of a tile of which most pairs could be measured."""
        return replace(self, proven=True, in_a_row=0, in_doubt=0)

    def failed(self) -> Course:
        """Take note of a tile of which at least half of the pairs could not be measured."""
        return replace(self, in_a_row=self.in_a_row + 1)

    def doubted(self) -> Course:
        """Take note of a tile that failed for no known reason while nothing had worked."""
        return replace(self, in_doubt=self.in_doubt + 1)

    @property
    def hopeless(self) -> bool:
        """Whether most of tile after tile failed: going on would put a survey in quarantine."""
        return self.in_a_row >= self.most_failures

    @property
    def a_bug(self) -> bool:
        """Whether nothing works, for a reason that nobody knows."""
        return self.in_doubt >= min(_UNEXPLAINED, self.most_failures)
