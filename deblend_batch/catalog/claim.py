"""Taking an output for a run: an output belongs to one run, and who may go on with it is decided here."""

from __future__ import annotations

import structlog

from deblend_batch.catalog.ledger import Ledger, differing
from deblend_batch.catalog.output import RUN
from deblend_batch.catalog.records import RunFile, as_json
from deblend_batch.errors import OutputConflictError

log = structlog.get_logger()


def claim(ledger: Ledger, run: RunFile) -> RunFile:
    """Take an output for a run, or take up the run that is there.

    Where ``run.json`` has been lost, receipts that are all of this run vouch for what is there.
    """
    if not ledger.output.exists(ledger.output.run_url):
        receipts = _check_vouched(ledger, run)
        if ledger.output.create(ledger.output.run_url, as_json(run)):
            if receipts:
                log.warning(
                    "run.json was missing and is made anew: all receipts are of this run",
                    output=ledger.output.url,
                    receipts=receipts,
                )
            return run
    found = ledger.read_run()
    if found["fingerprint"] != run["fingerprint"] and _is_barren(ledger):
        # An earlier start failed on its inputs before it made anything: nothing of it is worth keeping.
        ledger.output.remove_indexes()
        ledger.write_run(run)
        return run
    _check_same(ledger, found, run)
    return found


def check_claim(ledger: Ledger, run: RunFile) -> None:
    """Check that :func:`claim` would take the output. Writes nothing."""
    if not ledger.output.exists(ledger.output.run_url):
        _check_vouched(ledger, run)
    elif not _is_barren(ledger):
        _check_same(ledger, ledger.read_run(), run)


def _check_vouched(ledger: Ledger, run: RunFile) -> int:
    """Check that an output without ``run.json`` is empty, or all its receipts of a run; count them."""
    names = ledger.output.names()
    if not names or RUN in names:  # which another driver may just have made
        return 0
    tiles, _ = ledger.newest_receipts()
    receipts = ledger.read_receipts(tiles)
    others = [each.tile for each in receipts if each.fingerprint != run["fingerprint"]]
    if others:
        raise OutputConflictError(
            f"{ledger.output}: run.json is missing, and {len(others)} of {len(tiles)} receipts are of "
            f"another run (ledger/{others[0]}.json); give another output, or the config and inputs it was "
            "started with"
        )
    if not tiles:
        raise OutputConflictError(
            f"{ledger.output}: not empty ({names[0]} is there), with neither run.json nor a receipt to say "
            "of which run; empty it or give another output"
        )
    return len(tiles)


def _is_barren(ledger: Ledger) -> bool:
    """Tell whether the run has ended without a shard, a receipt or a quarantine record."""
    state = ledger.read_run()["state"]
    output = ledger.output
    return state == "failed" and not (output.shards() or output.receipts() or output.quarantined())


def _check_same(ledger: Ledger, found: RunFile, run: RunFile) -> None:
    if found["fingerprint"] != run["fingerprint"]:
        raise OutputConflictError(f"{ledger.output}: {_conflict(found, run)}")


def _conflict(found: RunFile, run: RunFile) -> str:
    """Say how the run that is there differs, and what can be done."""
    theirs_of, ours_of = found["fingerprint_of"], run["fingerprint_of"]
    changed = differing(theirs_of, ours_of) + [name for name in theirs_of if name not in ours_of]
    if "release" in changed:
        theirs, ours = (each["versions"].get("deblend_batch", "?") for each in (found, run))
        return (
            f"begun by deblend-batch {theirs}, and this is {ours}, whose rows may differ; "
            f"give another output, or finish it with {theirs}"
        )
    return (
        f"belongs to another run ({', '.join(changed) or 'fingerprint'} differs); "
        "give another output, or the config and inputs it was started with"
    )
