"""The units of work of a run, as their receipts tell: when, where and how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output


@dataclass(frozen=True)
class Unit:
    """A tile, or a part of one, that an actor has done.

    Parameters
    ----------
    name : str
        Its shard's.
    pairs : int
        Pairs.
    node : str
        Where.
    worker : tuple of (str, int)
        Node and process of the actor.
    seconds : float
        From when the actor took it until its answers were there.
    end : float
        When its receipt was written, seconds since the epoch.
    """

    name: str
    pairs: int
    node: str
    worker: tuple[str, int]
    seconds: float
    end: float


def read_units(output: str) -> list[Unit]:
    """Read the units of a run, by when they were done.

    Parameters
    ----------
    output : str
        The run's output.

    Returns
    -------
    list of Unit
        One a receipt.
    """
    ledger = Ledger(Output(output))
    units = [
        Unit(
            receipt.tile,
            receipt.pairs,
            receipt.worker["node"],
            (receipt.worker["node"], receipt.worker["pid"]),
            sum(receipt.seconds.values()),
            datetime.fromisoformat(receipt.written_at).timestamp(),
        )
        for receipt in ledger.read_receipts(ledger.output.receipts())
    ]
    return sorted(units, key=lambda unit: unit.end)
