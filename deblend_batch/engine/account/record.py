"""The record of a run: ``run.json``, from what decides its rows to how it ended."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, cast

from deblend_batch.catalog.claim import check_claim, claim
from deblend_batch.catalog.ledger import Ledger, fingerprint, run_id
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import RUN_VERSION, FingerprintParts, RunFile, State, now
from deblend_batch.config import RunConfig, make_config
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.inputs.access import check_output
from deblend_batch.engine.inputs.fingerprint import versions
from deblend_batch.errors import StorageError
from deblend_batch.failure import one_line

_SAVE_SECONDS = 30.0


class RunRecord:
    """``run.json`` of a run that has taken its output.

    Parameters
    ----------
    ledger : Ledger
        Of the output.
    content : RunFile
        What ``run.json`` holds.
    """

    def __init__(self, ledger: Ledger, content: RunFile) -> None:
        self._ledger = ledger
        self._content = content
        self._saved = time.monotonic()

    @classmethod
    def claim(cls, ledger: Ledger, config: RunConfig, parts: dict[str, Any]) -> RunRecord:
        """Take the output for a run, or take up the run that is there."""
        check_output(ledger.output)
        new = _new_content(config, parts)
        content = claim(ledger, new)
        # The same fingerprint: what it is of is known to be so of the new one.
        content["run"], content["config"] = new["run"], new["config"]
        content["fingerprint_of"] = new["fingerprint_of"]
        if content["versions"] != new["versions"]:
            content["earlier_versions"].append(content["versions"])
            content["versions"] = new["versions"]
        return cls(ledger, content)

    @staticmethod
    def check(ledger: Ledger, config: RunConfig, parts: dict[str, Any]) -> None:
        """Check that :meth:`claim` would take the output. Leaves nothing in it."""
        check_output(ledger.output)
        check_claim(ledger, _new_content(config, parts))

    @property
    def counted_before(self) -> bool:
        """Whether an earlier start has come as far as counting its pairs."""
        return bool(self._content["totals"]["pairs"]["expected"])

    def counted_of(self, n_tiles: int) -> tuple[dict[str, int], int] | None:
        """Return the flags counted so far, if they are those of so many tiles.

        Tiles are only ever added, so an equal number means the same ones; a tile that is opened again is not
        in the number that the caller counts.

        Returns
        -------
        tuple or None
            Rows with each flag, and all rows; None where ``run.json`` speaks of other tiles.
        """
        totals = self._content["totals"]
        known = totals["flagged_tiles"] == n_tiles
        return (totals["flags"], totals["rows"]) if known else None

    def begin(self, tally: Tally) -> None:
        """Write that the run is running, unless it is complete and nothing is known to be left."""
        if tally.pairs.pending or not self._content["state"].startswith("complete"):
            self.save("running", tally)

    def overdue(self) -> bool:
        """Tell whether it is time to save again."""
        return time.monotonic() - self._saved > _SAVE_SECONDS

    def save(
        self,
        state: str,
        tally: Tally,
        error: BaseException | None = None,
        memory: dict[str, Any] | None = None,
    ) -> None:
        """Write how far the run is.

        Parameters
        ----------
        state : str
            ``running``, ``interrupted``, ``failed``, ``complete`` or ``complete_with_quarantine``.
        tally : Tally
            What has been counted; until its pairs are, the totals of the last start stand.
        error : BaseException, optional
            What ended the run.
        memory : dict, optional
            Peak memory beside what was projected.
        """
        self._saved = time.monotonic()
        self._content |= {
            "state": cast("State", state),
            "updated_at": now(),
            "totals": tally.totals() if tally.counted else self._content["totals"],
            "workers": tally.workers or self._content["workers"],
            "memory": memory or self._content["memory"],
            "error": None if error is None else f"{type(error).__name__}: {one_line(error)}",
        }
        self._ledger.write_run(self._content)

    def abandon(self, state: str, tally: Tally, error: BaseException | None = None) -> None:
        """Write that the run ended early; if this start had not begun, what an earlier one wrote stands.

        Parameters
        ----------
        state : str
            ``interrupted`` or ``failed``.
        tally : Tally
            What has been counted.
        error : BaseException, optional
            What ended the run.
        """
        if self._content["state"] == "running":
            with suppress(
                StorageError
            ):  # why the run ended matters more than that this cannot be written
                self.save(state, tally, error)


def config_of(output: Output, run: RunFile) -> RunConfig:
    """Return the config of a run from its ``run.json``, with the storage options that its output is given."""
    place = {"output": output.url, "storage_options": dict(output.options)}
    return make_config({**run["config"], **place})


def _new_content(config: RunConfig, parts: dict[str, Any]) -> RunFile:
    of_parts = fingerprint(parts)
    return {
        "deblend_batch_run": RUN_VERSION,
        "run": run_id(config.output, of_parts),
        "state": "running",
        "fingerprint": of_parts,
        "fingerprint_of": cast("FingerprintParts", parts),
        "config": config.public(),
        "versions": versions(),
        "earlier_versions": [],
        "created_at": now(),
        "updated_at": now(),
        "totals": Tally().totals(),
        "workers": [],
        "memory": None,
        "error": None,
    }
