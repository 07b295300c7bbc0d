"""What decides the rows of a run: release, options, inputs, weights."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from deblend_batch import storage
from deblend_batch.config import DetectionsConfig, RunConfig, SurveyField
from deblend_batch.detections.formats.scan import table_of
from deblend_batch.engine.inputs.survey import SurveyEntry, field_identity
from deblend_batch.field.layout import Field
from deblend_batch.models.card import ModelCard
from deblend_batch.version import __version__

OPTIONAL_PARTS = (
    "blends", "sources", "overlaps", "where", "origin", "carry", "reading", "tables",
)  # fmt: skip
"""Parts of a fingerprint that are left out where the config does not depart from 0.1."""


def release(version: str) -> str:
    """Return the part of a version that rows depend on.

    Releases that share their first two numbers give the same rows, so that a run may be finished with a
    later one of them; a change that alters a row raises the second number.

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


def option_parts(config: RunConfig) -> dict[str, Any]:
    """Return the options that decide the rows of a run, by the names that they have in its fingerprint.

    Those that 0.1 did not have are left out where they have their default, so that its runs still agree.
    """
    default = type(config).model_fields
    dumped = config.model_dump(mode="json")
    new = {
        "blends": config.blends.model_dump(mode="json"),
        "sources": config.sources,
        "overlaps": config.overlaps.model_dump(mode="json"),
        "where": config.where,
        "origin": config.origin,
        "carry": config.carry,
    }
    return {
        **{
            name: value
            for name, value in new.items()
            if getattr(config, name) != default[name].get_default(call_default_factory=True)
        },
        **_reading_parts(config),
        "pairs": config.pairs.model_dump(mode="json", exclude={"table"}),
        "columns": dumped["columns"],
        "tiles": config.tiles.model_dump(mode="json"),
        "masks": config.masks,
    }


def _reading_parts(config: RunConfig) -> dict[str, Any]:
    """Return how tables are read, other than by the columns at the top; where the tables are says nothing."""
    entries = config.survey if isinstance(config.survey, list) else []
    given = [each.detections for each in entries if isinstance(each, SurveyField)]
    readings = [
        reading.model_dump(mode="json", exclude={"table"}, exclude_defaults=True)
        if isinstance(reading, DetectionsConfig)
        else {}
        for reading in (config.detections, *given)
    ]
    tables = [table_of(str(config.reading(own).table))[1] for own in (None, *given)]
    found: dict[str, list[Any]] = {"reading": readings, "tables": tables}
    return {name: parts for name, parts in found.items() if any(parts)}


def fingerprint_parts(
    config: RunConfig, entries: Sequence[SurveyEntry], fields: Sequence[Field], card: ModelCard
) -> dict[str, Any]:
    """Collect what decides the rows of a run: release, options, inputs, weights.

    The fields' PSFs are read for models that use them, so that one that is none stops a run before its start.
    """
    options = config.storage_options
    psf = {} if card.takes_pairs else {"psf": [field.psf.digest() for field in fields]}
    tables = dict.fromkeys(entry.detections_url for entry in entries)
    is_part = len(entries) == 1 and not entries[0].alone  # whose rows carry their field
    return {
        "release": release(__version__),
        "fields": [field_identity(entry.field_url, options) for entry in entries],
        "detections": [storage.identity(table_of(url)[0], options) for url in tables],
        "pairs.table": storage.identity(table_of(config.pairs.table)[0], options)
        if config.pairs.table
        else None,
        "model": card.sha256,
        **psf,
        **({"part": True} if is_part else {}),
        **option_parts(config),
    }
