"""What the run files of several outputs make together, and whether they may: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from deblend_batch import flags
from deblend_batch.catalog.ledger import fingerprint, run_id
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.parts import part_prefix
from deblend_batch.catalog.records import (
    RUN_VERSION,
    Counts,
    FingerprintParts,
    RunFile,
    RunPart,
    Totals,
    now,
)
from deblend_batch.config import DetectionsConfig, PairsConfig, RunConfig, SurveyField, make_config
from deblend_batch.engine.inputs.fingerprint import option_parts
from deblend_batch.errors import CatalogError

_AGREE = ("release", "model", "blends", "sources", "overlaps", "masks", "carry")
"""Parts of a fingerprint that decide how a source is measured; of ``pairs`` the separation does."""
_KEPT = (
    "run", "state", "fingerprint", "fingerprint_of", "config", "versions", "created_at", "updated_at",
    "totals",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """An output that is to be merged.

    Parameters
    ----------
    output : Output
        The folder.
    run : RunFile
        Its ``run.json``.
    """

    output: Output
    run: RunFile

    @property
    def prefix(self) -> str:
        """What the names of its files get before them; nothing where it has been merged itself."""
        return "" if "parts" in self.run else part_prefix(self.run["fingerprint"])

    @property
    def runs(self) -> list[RunPart]:
        """The runs that it comes from: itself, or its own parts."""
        own = cast("RunPart", {name: cast("Mapping[str, Any]", self.run)[name] for name in _KEPT})
        return self.run.get("parts", [own])


def check_combinable(parts: Sequence[Part]) -> None:
    """Refuse outputs that measure differently, or that hold the same run or the same field."""
    first = parts[0]
    wanted = _rules(first.run)
    for part in parts[1:]:
        found = _rules(part.run)
        if differs := [name for name in wanted if found[name] != wanted[name]]:
            raise CatalogError(
                f"{part.output}: measured otherwise than {first.output} ({', '.join(differs)} differs); "
                "merge outputs of one model and one set of options"
            )
    holders: dict[str, Part] = {}
    for part in parts:
        for each in part.runs:
            _hold(holders, f"the run {each['run']}", part_prefix(each["fingerprint"]), part)
            for field in each["fingerprint_of"]["fields"]:
                _hold(holders, "a field", field, part)


def _hold(holders: dict[str, Part], what: str, key: str, part: Part) -> None:
    other = holders.setdefault(key, part)
    if other is not part:
        raise CatalogError(
            f"{part.output}: holds {what} that {other.output} holds, too; give each part of a survey once"
        )


def _rules(run: RunFile) -> dict[str, Any]:
    parts = dict(run["fingerprint_of"])
    pairs = cast("Mapping[str, Any]", parts.get("pairs") or {})
    rules = {name: parts.get(name) for name in _AGREE}
    return rules | {"pairs.max_separation": pairs.get("max_separation")}


def combined_run(parts: Sequence[Part], output: Output, state: str, totals: Totals) -> RunFile:
    """Return the ``run.json`` of a merged catalogue.

    Parameters
    ----------
    parts : sequence of Part
        In the order of their fingerprints.
    output : Output
        Where it is to be.
    state : str
        How far it is.
    totals : Totals
        What it holds.
    """
    config = _combined_config([make_config(part.run["config"]) for part in parts], output)
    runs = sorted((run for part in parts for run in part.runs), key=lambda run: run["fingerprint"])
    of_parts = _combined_fingerprint([dict(part.run["fingerprint_of"]) for part in parts], config)
    of_parts["parts"] = [run["fingerprint"] for run in runs]
    mark, versions = fingerprint(of_parts), [part.run["versions"] for part in parts]
    return {
        "deblend_batch_run": RUN_VERSION,
        "run": run_id(output.url, mark),
        "state": cast("Any", state),
        "fingerprint": mark,
        "fingerprint_of": cast("FingerprintParts", of_parts),
        "config": config.public(),
        "versions": versions[0],
        "earlier_versions": [each for each in versions[1:] if each != versions[0]],
        "created_at": now(),
        "updated_at": now(),
        "totals": totals,
        "workers": [],
        "memory": None,
        "error": None,
        "parts": runs,
    }


def _combined_fingerprint(parts: Sequence[dict[str, Any]], config: RunConfig) -> dict[str, Any]:
    detections = [table for each in parts for table in each["detections"]]
    return {
        "release": parts[0]["release"],
        "fields": [field for each in parts for field in each["fields"]],
        "detections": list(dict.fromkeys(detections)),
        "pairs.table": None,
        "model": parts[0]["model"],
        **option_parts(config),
    }


def _combined_config(configs: Sequence[RunConfig], output: Output) -> RunConfig:
    """Return the config of one run over the fields of all; what is not of the fields is that of the first."""
    survey = [
        SurveyField(field=url, detections=config.reading(own))
        for config in configs
        for url, own in _fields(config)
    ]
    first = configs[0]
    changes: dict[str, Any] = {
        "field": None,
        "survey": survey,
        "detections": None,
        "columns": {},
        "where": None,
        "origin": None,
        "output": output.url,
        "pairs": PairsConfig(max_separation=first.pairs.max_separation),
    }
    return first.model_copy(update=changes)


def _fields(config: RunConfig) -> list[tuple[str, str | DetectionsConfig | None]]:
    """List the fields of a config with what they say of their tables; a glob stays one."""
    if config.field is not None:
        return [(config.field, None)]
    survey = [config.survey] if isinstance(config.survey, str) else config.survey or []
    entries = [
        each if isinstance(each, SurveyField) else SurveyField(field=each) for each in survey
    ]
    return [(each.field, each.detections) for each in entries]


def combined_totals(totals: Sequence[Totals], placed: int) -> Totals:
    """Add totals up.

    Parameters
    ----------
    totals : sequence of Totals
        Of the parts.
    placed : int
        Pairs that one part could not place, and another did, or could not either: they count once.
    """
    pairs = _added([each["pairs"] for each in totals])
    pairs["expected"] -= placed
    pairs["quarantined"] -= placed
    return {
        "pairs": pairs,
        "rows": sum(each["rows"] for each in totals),
        "tiles": _added([each["tiles"] for each in totals]),
        "detections": _summed([each["detections"] for each in totals]),
        "deferred": _summed([each.get("deferred", {}) for each in totals]),
        "refined": _summed([each.get("refined", {}) for each in totals]),
        "retries": _summed([each["retries"] for each in totals]),
        "flags": flags.add_counts([each["flags"] for each in totals]),
        "flagged_tiles": sum(each["flagged_tiles"] for each in totals),
    }


def _added(counts: Sequence[Counts]) -> Counts:
    return {
        "expected": sum(each["expected"] for each in counts),
        "written": sum(each["written"] for each in counts),
        "quarantined": sum(each["quarantined"] for each in counts),
        "pending": sum(each["pending"] for each in counts),
    }


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
