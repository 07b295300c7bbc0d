"""The fields of a run, in the order that decides which of two overlapping ones owns a pair."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from deblend_batch import storage
from deblend_batch.arrays.bounds import MAX_DOCUMENT_BYTES
from deblend_batch.catalog.schema import check_bands
from deblend_batch.config import DetectionsConfig, RunConfig, SurveyField
from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors


@dataclass(frozen=True)
class SurveyEntry:
    """One field of a run.

    Parameters
    ----------
    prefix : str
        Put before the names of its tiles; empty where the run has one field.
    field_url : str
        The field.
    reading : DetectionsConfig
        Its detections, and how they are read.
    shared_table : bool
        Whether other fields use the same detection table.
    first_of_table : bool
        Whether no field before this one uses the same table: it then counts the table's rows.
    alone : bool
        Whether it is the only field of the run; else what no field can place is known at the end of them all.
    earlier_overlaps : tuple of str
        Fields before this one, of the same table, that may cover part of its sky; they own what they cover.
    """

    prefix: str
    field_url: str
    reading: DetectionsConfig
    shared_table: bool
    first_of_table: bool = True
    alone: bool = True
    earlier_overlaps: tuple[str, ...] = ()

    @property
    def detections_url(self) -> str:
        """URL of its detection table."""
        return str(self.reading.table)

    def index_name(self) -> str:
        """Return the name of the field's pair index."""
        return f"{self.prefix or 'field'}".rstrip("-")


def list_fields(config: RunConfig) -> list[tuple[str, DetectionsConfig]]:
    """List the fields of a run, with their detections and how these are read.

    Raises
    ------
    NotFoundError
        If a glob matches nothing.
    ConfigError
        If a field is named twice or has no detection table.
    """
    if config.field is not None:
        return [(config.field, config.reading(None))]
    survey = config.survey or []
    entries = [survey] if isinstance(survey, str) else survey
    found: list[tuple[str, DetectionsConfig]] = []
    for entry in entries:
        item = entry if isinstance(entry, SurveyField) else SurveyField(field=entry)
        urls = storage.expand(item.field, config.storage_options)
        if not urls:
            raise NotFoundError(f"{item.field}: no field matches this glob; check the path")
        found += [(url, config.reading(item.detections)) for url in urls]
    urls = [url for url, _ in found]
    for url in urls:
        if urls.count(url) > 1:
            raise ConfigError(f"survey: {url} is listed twice; name each field once")
    return found


def open_fields(config: RunConfig) -> list[tuple[SurveyEntry, Field]]:
    """Open every field of a run, so that a broken one is known before any work is done."""
    pairs = list_fields(config)
    fields = [Field.open(url, config.storage_options) for url, _ in pairs]
    tables = [table for _, table in pairs]
    for field in fields:
        check_bands(field.meta.bands, field.url)
    circles = [_circle(field) for field in fields]
    entries = []
    for number, (url, table) in enumerate(pairs):
        shared = tables.count(table) > 1
        earlier = [
            pairs[other][0]
            for other in range(number)
            if tables[other] == table
            and _overlap(circles[other], circles[number], config.pairs.max_separation)
        ]
        prefix = f"f{number:04d}-" if len(pairs) > 1 else ""
        first, alone = table not in tables[:number], len(pairs) == 1
        entries.append(SurveyEntry(prefix, url, table, shared, first, alone, tuple(earlier)))
    return list(zip(entries, fields, strict=True))


def tables_of(config: RunConfig, detections: Sequence[str]) -> list[str]:
    """Return the tables that a run reads, each once: those of detections, and of pre-detected pairs."""
    pairs = [config.pairs.table] if config.pairs.table else []
    return list(dict.fromkeys([*detections, *pairs]))


def check_reachable(config: RunConfig) -> None:
    """Refuse stores that workers, which are other processes, could not see."""
    survey = config.survey if isinstance(config.survey, list) else [config.survey]
    fields = [each.field if isinstance(each, SurveyField) else each for each in survey]
    tables = [each.detections for each in survey if isinstance(each, SurveyField)]
    read = [config.reading(each).table for each in (None, *tables)]
    inputs = [config.field, config.pairs.table, *fields, *read]
    for url in [config.output, *inputs]:
        if url and storage.scheme_of(url) == "memory":
            raise ConfigError(
                f"{url}: memory:// lives in one process, and a run has several; give a path or s3://..."
            )
    storage.check_writable(config.output)


def field_identity(url: str, options: dict[str, Any]) -> str:
    """Hash the metadata of a field: its attributes, which say when and of what it was made, and its shape.

    Pixels are not read: a survey's would take hours. A field that is made again has another ``created_at``;
    a chunk that is mended in place does not make it another field, so that quarantined tiles can be retried.
    """
    digest = hashlib.sha256()
    for name in ("zarr.json", "image/zarr.json", ".zattrs", "image/.zarray"):
        with suppress(NotFoundError):
            digest.update(storage.read_start(storage.join(url, name), MAX_DOCUMENT_BYTES, options))
    return digest.hexdigest()


def _circle(field: Field) -> tuple[np.ndarray, float]:
    """Return a circle that holds the field: its centre's direction, its radius in arcsec."""
    height, width = field.shape_yx
    corners = [(-0.5, -0.5), (-0.5, width - 0.5), (height - 0.5, -0.5), (height - 0.5, width - 0.5)]
    points = np.array([((height - 1) / 2, (width - 1) / 2), *corners])
    radec = field.pixel_to_world(points)
    vectors = unit_vectors(radec[:, 0], radec[:, 1])
    centre = np.broadcast_to(vectors[0], vectors[1:].shape)
    return vectors[0], float(separations_arcsec(centre, vectors[1:]).max())


def _overlap(
    first: tuple[np.ndarray, float], second: tuple[np.ndarray, float], margin_arcsec: float
) -> bool:
    distance = separations_arcsec(first[0][None], second[0][None])[0]
    return bool(distance <= first[1] + second[1] + margin_arcsec)
