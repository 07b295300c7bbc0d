"""Whether ``run.json`` and the receipts fit each other, and what was counted: pure functions.

A fingerprint says of what it is one, so a part that was altered shows; who alters all parts alike does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from deblend_batch import flags
from deblend_batch.catalog.ledger import differing, fingerprint, run_id
from deblend_batch.catalog.parts import fingerprint_at
from deblend_batch.catalog.records import Receipt, RunFile, RunPart
from deblend_batch.config import RunConfig, make_config
from deblend_batch.engine.inputs.fingerprint import OPTIONAL_PARTS, option_parts, release
from deblend_batch.errors import ConfigError

_ALTERED_PART = "it was altered: take it from a copy, or merge the parts again"
_ALTERED = "it was altered: take it from a copy, or remove it and run again with the same config"


@dataclass
class Counted:
    """What was found in an output.

    Parameters
    ----------
    expected, written, quarantined : int
        Blends: pairs, where the run's model takes pairs.
    rows : int
        Rows of the shards.
    tiles, tiles_written : int
        Tiles of the index, and those of them that are whole.
    flags : dict
        Rows with each flag, as the receipts of these have them.
    detections, deferred, refined : Counter
        Of the index.
    """

    expected: int = 0
    written: int = 0
    quarantined: int = 0
    rows: int = 0
    tiles: int = 0
    tiles_written: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    detections: Counter[str] = field(default_factory=Counter)
    deferred: Counter[str] = field(default_factory=Counter)
    refined: Counter[str] = field(default_factory=Counter)


def check_run(run: RunFile) -> list[str]:
    """Compare the parts of ``run.json`` with each other."""
    parts, problems = run["fingerprint_of"], []
    if fingerprint(parts) != run["fingerprint"]:
        problems.append(
            f"its fingerprint is not that of what it lists in fingerprint_of; {_ALTERED}"
        )
    if run["run"] != run_id(str(run["config"].get("output")), run["fingerprint"]):
        problems.append(f"its id is not that of its output and fingerprint; {_ALTERED}")
    if release(run["versions"].get("deblend_batch", "")) != parts["release"]:
        problems.append(f"its versions are not those of the release that it names; {_ALTERED}")
    if (parts_of := run.get("parts")) is not None:
        problems += _check_parts(parts_of, cast("Mapping[str, Any]", parts).get("parts"))
    try:
        config = make_config(run["config"])
    except ConfigError as error:
        problems.append(f"its config cannot be used ({error}); {_ALTERED}")
    else:
        if changed := _differing(config, run):
            problems.append(
                f"{', '.join(changed)} in its config and in fingerprint_of differ; {_ALTERED}"
            )
    return [f"run.json: {problem}" for problem in problems]


def _check_parts(parts: Sequence[RunPart], listed: object) -> list[str]:
    """Compare the parts of a merged catalogue with each other, and with what its fingerprint lists."""
    problems = [
        f"the fingerprint of its part {part['run']} is not that of what it lists; {_ALTERED_PART}"
        for part in parts
        if fingerprint(part["fingerprint_of"]) != part["fingerprint"]
    ]
    if [part["fingerprint"] for part in parts] != listed:
        problems.append(f"its parts are not those of its fingerprint; {_ALTERED_PART}")
    return problems


def _differing(config: RunConfig, run: RunFile) -> list[str]:
    """Name the parts of a config of which the fingerprint says something else."""
    parts = run["fingerprint_of"]
    options = option_parts(config)
    changed = differing(parts, options)
    changed += [name for name in OPTIONAL_PARTS if name in parts and name not in options]
    if (config.pairs.table is None) != (dict(parts).get("pairs.table") is None):
        changed.append("pairs.table")
    if config.model_sha256 is not None and config.model_sha256.lower() != parts["model"]:
        changed.append("model_sha256")
    fields = [config.field] if config.field is not None else config.survey
    globs = isinstance(fields, str) or any("*" in str(each) for each in fields or [])
    if not globs and fields is not None and len(fields) != len(parts["fields"]):
        changed.append("fields")
    return changed


def check_receipt(tile: str, receipt: Receipt, run: RunFile) -> list[str]:
    """Compare a receipt with the run that it should be of."""
    if receipt.fingerprint != fingerprint_at(run, tile):
        what = "fingerprint"
    elif receipt.model_sha256 != run["fingerprint_of"]["model"]:
        what = "model"
    else:
        return []
    return [
        f"receipt {tile}: of another run ({what} differs); remove it and its shard, and run again"
    ]


def compare_totals(run: RunFile, found: Counted) -> list[str]:
    """Compare the totals and the state of a run that is complete with what was found."""
    said = run["totals"]["pairs"]
    if not run["state"].startswith("complete"):
        return []
    problems = []
    adds_up = said["written"] + said["quarantined"] == said["expected"] and said["pending"] == 0
    claimed = (said["expected"], said["written"], said["quarantined"])
    counted = (found.expected, found.written, found.quarantined)
    if not adds_up or claimed != counted:
        verb = "do not match what was found" if adds_up else "do not add up"
        problems.append(f"totals {verb} ({_shown(claimed)}; found {_shown(counted)})")
    elif run["state"] != ("complete_with_quarantine" if found.quarantined else "complete"):
        problems.append(
            f"its state is {run['state']}, with {found.quarantined} pairs in quarantine"
        )
    problems += [f"totals.{name} is not what was found" for name in _others(run, found)]
    return [f"run.json: {problem}" for problem in problems]


def _shown(counts: tuple[int, int, int]) -> str:
    return "{} expected, {} written, {} quarantined".format(*counts)


def _others(run: RunFile, found: Counted) -> list[str]:
    """Name the totals besides pairs that do not fit."""
    totals = run["totals"]
    tiles = totals["tiles"]
    fits = {
        "rows": totals["rows"] == found.rows,
        "tiles": (tiles["expected"], tiles["written"]) == (found.tiles, found.tiles_written),
        "flags": flags.add_counts([totals["flags"]]) == found.flags,
        "detections": Counter(totals["detections"]) == found.detections,
        "deferred": Counter(totals.get("deferred", {})) == found.deferred,
        "refined": Counter(totals.get("refined", {})) == found.refined,
    }
    return [name for name, does in fits.items() if not does]
