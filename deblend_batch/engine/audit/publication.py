"""The publication of a finished run, after it has been verified."""

from __future__ import annotations

from typing import Any

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.publish import Publication, publish_shards
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.errors import CatalogError


def publish_run(output: str, options: dict[str, Any] | None = None) -> Publication:
    """Publish a complete run as a HATS catalogue under ``<output>/catalog``.

    Parameters
    ----------
    output : str
        Output folder.
    options : dict, optional
        Storage options.

    Returns
    -------
    Publication
        Where it is.

    Raises
    ------
    CatalogError
        If the run is not complete, or a shard is missing or damaged.
    """
    ledger = Ledger(output, options)
    state = ledger.read_run()["state"]
    if not state.startswith("complete"):
        raise CatalogError(f"{ledger.output}: the run is {state}, not complete; run it again first")
    found = verify_run(output, options, recompute=0)
    if found.problems:
        raise CatalogError(f"{ledger.output}: {found.problems[0]}")
    shards = [ledger.shard_url(tile) for tile in ledger.shards()]
    return publish_shards(ledger.output, shards, found.rows, options)
