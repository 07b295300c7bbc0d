"""Who measures tiles, as the driver sees them: a narrow protocol, of Ray's actors and of local processes.

A crew makes workers (:class:`deblend_batch.engine.worker.actor.ModelActor`), passes calls to them, and says
how they ended. It decides nothing: the driver owns every retry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from deblend_batch.failure import Fault


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a method of a worker.

    Parameters
    ----------
    worker : object
        The worker, as its crew knows it.
    method : str
        Of :class:`~deblend_batch.engine.worker.actor.ModelActor`.
    """

    worker: Any
    method: str


@dataclass(frozen=True)
class Answer:
    """How a call ended.

    Parameters
    ----------
    call : Call
        Which one.
    value : object
        What the method returned.
    fault : Fault, optional
        How it failed; None if it did not.
    """

    call: Call
    value: Any = None
    fault: Fault | None = None


class Crew(Protocol):
    """Workers, and calls to them."""

    def start(self) -> Call:
        """Make a worker; the answer to this call tells that it can take tiles, and where it runs."""

    def submit(self, worker: Any, method: str, *arguments: Any) -> Call:
        """Call a method of a worker."""

    def wait(self, seconds: float) -> list[Answer]:
        """Return the answers that have come, as soon as there is one; none after a time without."""

    def lives(self, worker: Any) -> bool:
        """Tell whether a worker still answers."""

    def kill(self, worker: Any) -> None:
        """End a worker; the calls that it has not answered fail."""

    def close(self) -> None:
        """Kill every worker that is left."""

    def resources(self) -> Mapping[str, float]:
        """Return the ``CPU`` and ``GPU`` that there are now."""

    def leaving(self) -> frozenset[str]:
        """Return the nodes that will be taken away."""

    def why_waiting(self) -> Mapping[str, str]:
        """Return what a user should know whose workers do not become ready."""
