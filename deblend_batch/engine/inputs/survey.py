"""The fields of a run: what each is called, which table it reads, and which others are near it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from deblend_batch import storage
from deblend_batch.arrays.bounds import MAX_DOCUMENT_BYTES
from deblend_batch.catalog.schema import check_bands
from deblend_batch.config import DetectionsConfig, RunConfig, SurveyField
from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors

_STAMP_PX = 520
"""A little more than half of the largest stamp that a model may have."""
_BORDER = 9
_WIDER = 1.01
"""By how much a circle through points of an image's border is drawn too wide, since borders may be curved."""


@dataclass(frozen=True)
class Place:
    """A field of a survey, as the others know it.

    Parameters
    ----------
    name : str
        What it is called in the run, unique there.
    number : int
        Its number in the order of names, which decides between equal claims to a source.
    table : str
        The name of its table: of the fields that use the table the first in the order of names.
    index : str
        Name of its index.
    field : Field
        The field.
    """

    name: str
    number: int
    table: str
    index: str
    field: Field


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
    several_tables : bool
        Whether the survey has more than one detection table: ids of two may then be the same.
    place : Place, optional
        The field as the others know it; None where it is no part of a survey.
    neighbours : tuple of Place
        Other fields that may cover part of its sky, or so near that their sources matter here.
    """

    prefix: str
    field_url: str
    reading: DetectionsConfig
    shared_table: bool
    first_of_table: bool = True
    several_tables: bool = False
    place: Place | None = None
    neighbours: tuple[Place, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether it is the only field; else what no field can place is known at the end of them all."""
        return self.place is None

    @property
    def detections_url(self) -> str:
        """URL of its detection table."""
        return str(self.reading.table)

    @property
    def same_table(self) -> tuple[Place, ...]:
        """Neighbours that use the same table."""
        own = self.place
        return tuple(each for each in self.neighbours if own and each.table == own.table)

    @property
    def other_tables(self) -> tuple[Place, ...]:
        """Neighbours that use another one."""
        own = self.place
        return tuple(each for each in self.neighbours if own and each.table != own.table)

    def index_name(self) -> str:
        """Return the name of the field's pair index."""
        return _index_name(self.prefix)


def _index_name(prefix: str) -> str:
    return f"{prefix or 'field'}".rstrip("-")


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
    opened = [Field.open(url, config.storage_options) for url, _ in pairs]
    for each in opened:
        check_bands(each.meta.bands, each.url)
    is_part = _is_part(config)
    if len(pairs) == 1 and not is_part:
        ((url, table),) = pairs
        return [(SurveyEntry("", url, table, shared_table=False), opened[0])]
    tables = _numbered([table for _, table in pairs])
    places = _places(opened, tables)
    beside = find_neighbours(opened, 2 * (_apart_arcsec(config) + config.overlaps.match))
    n_fields, firsts = Counter(tables), {table: tables.index(table) for table in set(tables)}
    entries = [
        SurveyEntry(
            prefix=_prefix(number),
            field_url=url,
            reading=reading,
            shared_table=n_fields[tables[number]] > 1,
            first_of_table=firsts[tables[number]] == number,
            several_tables=len(firsts) > 1 or (is_part and len(pairs) == 1),
            place=places[number],
            neighbours=tuple(places[other] for other in beside[number]),
        )
        for number, (url, reading) in enumerate(pairs)
    ]
    return list(zip(entries, opened, strict=True))


def _is_part(config: RunConfig) -> bool:
    """Tell whether a survey gives its only field a table of its own: other parts may number theirs alike."""
    match config.survey:
        case [SurveyField(detections=table)]:
            return table is not None
        case _:
            return False


def _apart_arcsec(config: RunConfig) -> float:
    """Return how far apart two sources may be that a model is given together."""
    return max(config.pairs.max_separation, config.blends.link or 0.0)


def _prefix(number: int) -> str:
    return f"f{number:04d}-"


def _numbered(readings: Sequence[DetectionsConfig]) -> list[int]:
    """Give each table of the fields a number; those are the same that are read in the same way."""
    known: dict[str, int] = {}
    return [known.setdefault(each.model_dump_json(), len(known)) for each in readings]


def _places(opened: Sequence[Field], tables: Sequence[int]) -> list[Place]:
    names = name_fields([(each.meta.name, each.url) for each in opened])
    order = {name: number for number, name in enumerate(sorted(names))}
    first: dict[int, str] = {}
    for name, table in zip(names, tables, strict=True):
        first[table] = min(name, first.get(table, name))
    return [
        Place(name, order[name], first[table], _index_name(_prefix(number)), field)
        for number, (name, table, field) in enumerate(zip(names, tables, opened, strict=True))
    ]


def name_fields(fields: Sequence[tuple[str, str]]) -> list[str]:
    """Return what the fields of a survey are called: their names, if those tell them apart.

    Else the last parts of their URLs, and where those are not enough, the URLs.

    Examples
    --------
    >>> name_fields([("cosmos", "/a.zarr"), ("cosmos", "/b.zarr")])
    ['a', 'b']
    """
    urls = [url.rstrip("/") for _, url in fields]
    choices = (
        [name for name, _ in fields],
        [storage.name_of(url).removesuffix(".zarr") for url in urls],
    )
    return next((names for names in choices if len(set(names)) == len(names)), urls)


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


def find_neighbours(fields: Sequence[Field], margin_arcsec: float) -> list[list[int]]:
    """Find for each field the others that are near, on the sphere and without looking at every two.

    Parameters
    ----------
    fields : sequence of Field
        The fields of a survey.
    margin_arcsec : float
        How far apart two images may be, beside what stamps reach beyond them.

    Returns
    -------
    list of list of int
        For each field the numbers of others, ascending; those whose images overlap are among them.
    """
    circles = [_circle(field) for field in fields]
    centres = np.array([centre for centre, _ in circles])
    reach = np.array([radius for _, radius in circles])
    reach += margin_arcsec + _STAMP_PX * np.array([field.pixel_scale_arcsec for field in fields])
    furthest = np.minimum(reach + reach.max(), 180 * 3600)
    chords = 2 * np.sin(np.radians(furthest / 3600) / 2) * (1 + 1e-9)
    near = cKDTree(centres).query_ball_point(centres, chords)
    found = []
    for number, close in enumerate(near):
        others = np.array(sorted(set(close) - {number}), np.int64)
        apart = separations_arcsec(centres[others], centres[[number]])
        found.append(others[apart <= reach[others] + reach[number]].tolist())
    return found


def _circle(field: Field) -> tuple[np.ndarray, float]:
    """Return a circle that holds the field: its centre's direction, its radius in arcsec."""
    rows, columns = (np.linspace(-0.5, edge - 0.5, _BORDER) for edge in field.shape_yx)
    border = [(y, x) for y in rows for x in (columns[0], columns[-1])]
    border += [(y, x) for x in columns for y in (rows[0], rows[-1])]
    middle = tuple((edge - 1) / 2 for edge in field.shape_yx)
    radec = field.pixel_to_world(np.array([middle, *border]))
    vectors = unit_vectors(radec[:, 0], radec[:, 1])
    if not np.isfinite(vectors).all():  # such an image may show any part of the sky
        return np.array([1.0, 0.0, 0.0]), 180 * 3600.0
    return vectors[0], _WIDER * float(separations_arcsec(vectors[1:], vectors[:1]).max())
