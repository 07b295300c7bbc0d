"""The publication of a finished run, after it has been verified."""

from __future__ import annotations

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.publish import Publication, publish_shards
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.errors import CatalogError
from deblend_batch.progress import Progress, silent


def publish_run(output: Output, progress: Progress = silent) -> Publication:
    """Publish a complete run as a HATS catalogue in its output folder."""
    state = Ledger(output).read_run()["state"]
    if not state.startswith("complete"):
        raise CatalogError(f"{output}: the run is {state}, not complete; run it again first")
    found = verify_run(output, recompute=0, progress=progress)
    if found.problems:
        raise CatalogError(f"{output}: {found.problems[0]}")
    return publish_shards(output, found.rows, progress)
