"""The record of a run: ``run.json``, from what decides its rows to how it ended."""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from importlib import metadata
from typing import Any

from deblend_batch import storage
from deblend_batch.catalog.claim import check_claim, claim
from deblend_batch.catalog.ledger import Ledger, fingerprint, run_id
from deblend_batch.catalog.records import now
from deblend_batch.config import RunConfig
from deblend_batch.engine.failure import one_line
from deblend_batch.engine.survey import SurveyEntry, field_identity
from deblend_batch.engine.tally import Tally
from deblend_batch.errors import StorageError
from deblend_batch.version import __version__

_SAVE_SECONDS = 30.0


def release(version: str) -> str:
    """Return the part of a version that rows depend on.

    Releases that share their first two numbers give the same rows, so that a run may be finished with a
    later one of them; a change that alters a row raises the second number.

    Parameters
    ----------
    version : str
        Of this package.

    Returns
    -------
    str
        Its first two numbers.

    Examples
    --------
    >>> release("0.1.3")
    '0.1'
    """
    return ".".join(version.split(".")[:2])


def versions() -> dict[str, str]:
    """Return the versions of what makes a catalogue."""
    packages = ("ray", "dask", "zarr", "torch", "numpy", "astropy", "pyarrow")
    return {
        "deblend_batch": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def fingerprint_parts(
    config: RunConfig, entries: list[SurveyEntry], model_sha256: str
) -> dict[str, Any]:
    """Collect what decides the rows of a run: release, options, inputs, weights.

    Parameters
    ----------
    config : RunConfig
        The config.
    entries : list of SurveyEntry
        Its fields.
    model_sha256 : str
        Of the weights.

    Returns
    -------
    dict
        Named parts, so that a mismatch can say which one differs.
    """
    options = config.storage_options
    tables = dict.fromkeys(entry.detections_url for entry in entries)
    return {
        "release": release(__version__),
        "fields": [field_identity(entry.field_url, options) for entry in entries],
        "detections": [storage.identity(url, options) for url in tables],
        "pairs": config.pairs.model_dump(mode="json", exclude={"table"}),
        "pairs.table": storage.identity(config.pairs.table, options)
        if config.pairs.table
        else None,
        "columns": config.columns,
        "tiles": config.tiles.model_dump(mode="json"),
        "model": model_sha256,
        "masks": config.masks,
    }


class RunRecord:
    """``run.json`` of a run that has taken its output.

    Parameters
    ----------
    ledger : Ledger
        Of the output.
    content : dict
        What ``run.json`` holds.
    """

    def __init__(self, ledger: Ledger, content: dict[str, Any]) -> None:
        self._ledger = ledger
        self._content = content
        self._saved = time.monotonic()

    @classmethod
    def claim(cls, ledger: Ledger, config: RunConfig, parts: dict[str, Any]) -> RunRecord:
        """Take the output for a run, or take up the run that is there.

        Parameters
        ----------
        ledger : Ledger
            Of the output.
        config : RunConfig
            The config.
        parts : dict
            Of :func:`fingerprint_parts`.

        Returns
        -------
        RunRecord
            The run's record.

        Raises
        ------
        OutputConflictError
            If the output belongs to another run, or holds files of something else.
        """
        new = _new_content(config, parts)
        content = claim(ledger, new) | {key: new[key] for key in ("config", "run")}
        if content["versions"] != new["versions"]:
            content["earlier_versions"].append(content["versions"])
            content["versions"] = new["versions"]
        return cls(ledger, content)

    @staticmethod
    def check(ledger: Ledger, config: RunConfig, parts: dict[str, Any]) -> None:
        """Check that :meth:`claim` would take up a run that is there already. Writes nothing.

        Parameters
        ----------
        ledger : Ledger
            Of the output.
        config : RunConfig
            The config.
        parts : dict
            Of :func:`fingerprint_parts`.

        Raises
        ------
        OutputConflictError
            If the output belongs to another run.
        """
        check_claim(ledger, _new_content(config, parts))

    def flags_of(self, n_tiles: int) -> dict[str, int] | None:
        """Return the flags counted so far, if they are those of so many tiles.

        Tiles are only ever added, so an equal number means the same ones; a tile that is opened again is not
        in the number that the caller counts.

        Parameters
        ----------
        n_tiles : int
            Finished tiles in the output.

        Returns
        -------
        dict or None
            Rows with each flag; None where ``run.json`` speaks of other tiles.
        """
        totals = self._content["totals"]
        if totals.get("flagged_tiles") != n_tiles:
            return None
        counts: dict[str, int] = totals["flags"]
        return counts

    def begin(self, tally: Tally) -> None:
        """Write that the run is running, unless it is complete and nothing is known to be left.

        Parameters
        ----------
        tally : Tally
            What has been counted.

        Raises
        ------
        StorageError
            If the store refuses.
        """
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

        Raises
        ------
        StorageError
            If the store refuses.
        """
        self._saved = time.monotonic()
        self._content |= {
            "state": state,
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


def _new_content(config: RunConfig, parts: dict[str, Any]) -> dict[str, Any]:
    of_parts = fingerprint(parts)
    return {
        "deblend_batch_run": 1,
        "run": run_id(config.output, of_parts),
        "state": "running",
        "fingerprint": of_parts,
        "fingerprint_of": parts,
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
