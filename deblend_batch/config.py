"""The run config: YAML in, one frozen record out; nothing else of the package reads user settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from deblend_batch import storage
from deblend_batch.errors import ConfigError
from deblend_batch.settings import Section, checked, read_mapping
from deblend_batch.surveys.shipped import load_survey
from deblend_batch.surveys.tables import table_of
from deblend_batch.table_columns import Columns
from deblend_batch.text import has_secret, redacted

DEFAULT_MODEL = "profile-fit"


_FAR_SECONDS = 1e12  # no deadline is in thirty thousand years


class DetectionsConfig(Section):
    """A detection table, and how it is to be read."""

    table: str | None = None
    """URL of the table; of one of several in a FITS file or VOTable ``FILE[NAME]`` or ``FILE[NUMBER]``."""
    survey: str | None = None
    """A survey, or the file of its record: what the other keys do not say is as its catalogues have it."""
    band: str | None = None
    """Which band of the survey's catalogue gives magnitudes."""
    columns: Columns | None = None
    """Names of its columns; those that the config gives at its top if absent."""
    where: str | None = None
    """Condition of the rows that count."""
    origin: Literal[0, 1, "parent"] | None = None
    """What the first pixel is called in pixel positions: 0, or 1 as in FITS and SExtractor; ``parent`` where
    they count in the larger frame (tract, mosaic) that the image was cut from."""
    carry: list[str] = Field(default_factory=list)
    """Columns that go through to the catalogue."""


class PairsConfig(Section):
    """Where pairs come from: a search radius, or a table of pre-detected pairs."""

    max_separation: float = Field(2.0, gt=0, le=3600)
    """Largest separation of a pair, arcsec."""
    table: str | None = None
    """URL of a table of pre-detected pairs; without it pairs are found."""
    columns: Columns = Field(default_factory=dict)
    """Names in the pairs table of ``central_id`` and ``companion_id``."""


class BlendsConfig(Section):
    """What a blend is, for models that take any number of members."""

    link: float | None = Field(None, gt=0, le=3600)
    """Sources this near, in arcsec, are fitted together; ``pairs.max_separation`` if absent."""
    max_members: int = Field(8, ge=1, le=32)
    """Most members of a blend; a larger group is divided, each source beside its nearest neighbours."""


class OverlapsConfig(Section):
    """How fields of a survey that overlap share their sources."""

    match: float = Field(0.5, gt=0, le=60)
    """Sources of two detection tables are one where they are this near on the sky, in arcsec, and each the
    nearest to the other."""


class TilesConfig(Section):
    """How a field is divided."""

    size: int = Field(2048, ge=64, le=65536)
    """Edge of a tile's core, px."""
    max_pairs: int = Field(4096, ge=16)
    """Pairs, or blends, of one unit of work: a tile that holds more is divided, each part with a shard."""


class EngineConfig(Section):
    """How the work is spread; nothing here changes a result."""

    feed: Literal["auto", "fused"] = "auto"
    """Both mean the same: an actor cuts its own stamps (docs/decisions/002-object-store.md)."""
    where: Literal["auto", "ray", "local"] = "auto"
    """``local``: workers are processes of this machine; ``ray``: actors of the cluster that ``RAY_ADDRESS``
    names, or of one that is raised here; ``auto``: Ray where a cluster is named or the work is long."""
    actors: int | None = Field(None, ge=1)
    """Number of model actors; one per GPU, or per CPU where there is no GPU."""
    gpus_per_actor: float = Field(1.0, ge=0)
    """GPUs of one actor; 0 keeps the models on CPUs."""
    autoscale: bool = False
    """Ask for all ``actors`` although the cluster cannot hold them yet: its autoscaler brings nodes."""
    batch_size: int | None = Field(None, ge=1)
    """Stamps in a batch; if absent 64 on a CPU, and on a GPU what its memory holds."""
    tiles_in_flight: int = Field(3, ge=1, le=64)
    """Tiles that one actor holds at a time: measured, being cut, and waiting; up to four times as many where
    its model would wait for a remote store, as far as memory allows."""
    attempts: int = Field(4, ge=1)
    """How often a tile is tried when workers die or a store stumbles."""
    max_failures: int = Field(10, ge=1)
    """Quarantined tiles in a row after which the run stops."""
    deadline: float | datetime | None = None
    """When the run should be done, a time with its zone or seconds after its start; metrics alone tell it."""

    @field_validator("feed", mode="before")
    @classmethod
    def check_feed(cls, feed: Any) -> Any:
        """Refuse the feed that is no more, with what does its work."""
        if feed == "split":
            raise ValueError(
                "'split' is no more: actors cut their own stamps; leave it out, and where one process cannot "
                "feed a GPU give engine.gpus_per_actor: 0.25, for four actors on each"
            )
        return feed

    @field_validator("deadline", mode="before")
    @classmethod
    def check_deadline(cls, deadline: Any) -> Any:
        """Refuse what is neither a time that means the same everywhere nor a number of seconds."""
        if isinstance(deadline, str):
            with suppress(ValueError):
                deadline = datetime.fromisoformat(deadline)
        if isinstance(deadline, datetime) and deadline.tzinfo is not None:
            return deadline
        is_number = isinstance(deadline, int | float) and not isinstance(deadline, bool)
        if is_number and 0 < deadline < _FAR_SECONDS:
            return float(deadline)
        if deadline is None:
            return None
        raise ValueError(
            "must be a time with its zone, such as 2026-12-01T06:00:00Z, or seconds after the start"
        )


class SurveyField(Section):
    """One field of a survey, with its own detection table where it has one."""

    field: str
    detections: str | DetectionsConfig | None = None


class RunConfig(Section):
    """Everything that decides a run.

    Raises
    ------
    pydantic.ValidationError
        If a value is out of range or a key is unknown; :func:`load_config` turns it into one line.
    """

    field: str | None = None
    """URL of one field; or give ``survey``."""
    survey: str | list[str | SurveyField] | None = None
    """A glob of fields, or a list of fields (each with its own ``detections`` or not)."""
    detections: str | DetectionsConfig | None = None
    """URL of the detection table, or a section; in a survey the default for fields without their own."""
    columns: Columns = Field(default_factory=dict)
    """Names in the detection table of ``id``, ``ra``, ``dec``, ``x``, ``y``, ``mag``, ``radius``."""
    where: str | None = None
    """Condition of the rows of the detection table that count."""
    origin: Literal[0, 1, "parent"] | None = None
    """What the first pixel is called in pixel positions: 0, or 1 as in FITS and SExtractor; ``parent`` where
    they count in the larger frame (tract, mosaic) that the image was cut from."""
    carry: list[str] = Field(default_factory=list, max_length=64)
    """Columns of the detection table that go through to the catalogue, by their names there."""
    output: str
    """URL of the output folder."""
    model: str = DEFAULT_MODEL
    """Name of a shipped model, or URL of a weights file."""
    model_sha256: str | None = Field(None, pattern="^[0-9a-fA-F]{64}$")
    """Digest that the weights must have; a run with others is refused before they are parsed."""
    masks: bool = False
    """Whether to write each pair's masks beside the shards, for models that have them."""
    sources: Literal["all", "blended"] = "all"
    """Whether isolated sources are measured, too, by models that take any number of members."""
    meant: list[Literal["positions", "magnitudes", "mask"]] = Field(default_factory=list)
    """Comparisons of the detections with the pixels that must not stop the run."""
    pairs: PairsConfig = PairsConfig()
    blends: BlendsConfig = BlendsConfig()
    tiles: TilesConfig = TilesConfig()
    overlaps: OverlapsConfig = OverlapsConfig()
    engine: EngineConfig = EngineConfig()
    storage_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """fsspec options of the remote stores; never written to an output."""

    @field_validator("survey", mode="before")
    @classmethod
    def check_survey(cls, survey: Any) -> Any:
        """Refuse what is neither a glob nor a list of fields, in fewer words than a union of types."""
        if survey is None or isinstance(survey, str):
            return survey
        if not isinstance(survey, list) or not survey:
            raise ValueError("must be a glob, or a list of one or more fields")
        if not all(isinstance(entry, str | Mapping | SurveyField) for entry in survey):
            raise ValueError("must list URLs, or sections of 'field' and 'detections'")
        return survey

    @model_validator(mode="after")
    def check_inputs(self) -> RunConfig:
        """Refuse a config without exactly one kind of input, or with a field that has no detections."""
        if (self.field is None) == (self.survey is None):
            raise ValueError("give exactly one of 'field' and 'survey'")
        if self.field is not None and "*" in self.field:
            raise ValueError(f"field: names one field; of several give 'survey: {self.field}'")
        survey = self.survey if isinstance(self.survey, list) else [self.survey or ""]
        own = [entry.detections if isinstance(entry, SurveyField) else None for entry in survey]
        if not all(self.reading(detections).table for detections in own):
            raise ValueError("'detections' is missing: give the URL of a detection table")
        return self

    @model_validator(mode="after")
    def check_urls(self) -> RunConfig:
        """Refuse a URL that holds a secret: ``run.json`` keeps it, for ``retry`` and ``verify``."""
        given = [("field", self.field), ("output", self.output)]
        given += [("detections", self.reading(None).table)]
        given += [("model", self.model), ("pairs.table", self.pairs.table)]
        for entry in [self.survey] if isinstance(self.survey, str) else self.survey or []:
            own = entry if isinstance(entry, SurveyField) else SurveyField(field=entry)
            given += [("survey", own.field), ("survey", self.reading(own.detections).table)]
        for key, url in given:
            if url is not None and has_secret(url):
                raise ValueError(
                    f"{key}: {redacted(url)} holds a secret, which run.json would keep; give it in "
                    "storage_options or in the environment, or copy the file"
                )
        return self

    def reading(self, own: str | DetectionsConfig | None) -> DetectionsConfig:
        """Return how a field's detections are read.

        Parameters
        ----------
        own : str or DetectionsConfig, optional
            What the field says itself; where it says nothing, what stands at the top of the config counts.
        """
        shared = _section(self.detections)
        if isinstance(own, DetectionsConfig):
            reading = own if own.table else own.model_copy(update={"table": shared.table})
        else:
            reading = shared if own is None else shared.model_copy(update={"table": own})
        top = {
            key: getattr(self, key)
            for key in ("columns", "where", "origin", "carry")
            if key not in reading.model_fields_set
        }
        return reading.model_copy(update=top)

    def with_surveys(self) -> RunConfig:
        """Return the config with what surveys' records say in the place of their names.

        So ``run.json`` holds all that decides a run, whatever becomes of a record.

        Raises
        ------
        ConfigError
            If there is no such survey, or its record tells nothing of a catalogue.
        """
        update: dict[str, Any] = {"detections": self._spelt_out(self.detections)}
        if isinstance(self.survey, list):
            update["survey"] = [
                entry
                if isinstance(entry, str)
                else entry.model_copy(update={"detections": self._spelt_out(entry.detections)})
                for entry in self.survey
            ]
        return self.model_copy(update=update)

    def _spelt_out(
        self, detections: str | DetectionsConfig | None
    ) -> str | DetectionsConfig | None:
        if not isinstance(detections, DetectionsConfig):
            return detections
        if detections.survey is None:
            if detections.band is not None:
                raise ConfigError(
                    "detections.band: is that of a survey; give detections.survey too"
                )
            return detections
        record = load_survey(detections.survey, self.storage_options, "detections.survey")
        usual = table_of(record, detections.band)
        own = detections.columns if detections.columns is not None else self.columns
        update: dict[str, Any] = {"survey": None, "band": None}
        update["columns"] = {**_of_one_kind(usual.columns, own), **own}
        for key in ("where", "origin"):
            if key not in detections.model_fields_set:
                top = getattr(self, key)
                update[key] = getattr(usual, key) if top is None else top
        return detections.model_copy(update=update)

    def with_absolute_paths(self) -> RunConfig:
        """Return the config with its local paths made absolute, so that every worker sees the same files.

        Raises
        ------
        ConfigError
            If a path is relative inside a Ray job, whose working directory is a temporary copy.
        """
        update: dict[str, Any] = {
            "field": _absolute("field", self.field),
            "detections": _absolute_table("detections", self.detections),
            "output": _absolute("output", self.output),
            "pairs": self.pairs.model_copy(
                update={"table": _absolute("pairs.table", self.pairs.table)}
            ),
        }
        if self.model.endswith(".safetensors"):
            update["model"] = _absolute("model", self.model)
        if isinstance(self.survey, str):
            update["survey"] = _absolute("survey", self.survey)
        elif self.survey is not None:
            update["survey"] = [_absolute_entry(entry) for entry in self.survey]
        return self.model_copy(update=update)

    def public(self) -> dict[str, Any]:
        """Return the config as JSON-able values, without anything that may hold a secret."""
        return self.model_dump(mode="json", exclude={"storage_options"})


def _of_one_kind(usual: Columns, own: Columns) -> Columns:
    """Return the usual columns that go with the user's: one kind of position counts."""
    if {"x", "y"} <= own.keys() and not {"ra", "dec"} & own.keys():
        return {key: column for key, column in usual.items() if key not in {"ra", "dec"}}
    return usual


def _absolute_entry(entry: str | SurveyField) -> str | SurveyField | None:
    if isinstance(entry, str):
        return _absolute("survey", entry)
    return SurveyField(
        field=_absolute("survey", entry.field) or entry.field,
        detections=_absolute_table("survey", entry.detections),
    )


def _section(detections: str | DetectionsConfig | None) -> DetectionsConfig:
    if isinstance(detections, DetectionsConfig):
        return detections
    return DetectionsConfig(table=detections)


def _absolute_table(
    key: str, detections: str | DetectionsConfig | None
) -> str | DetectionsConfig | None:
    if isinstance(detections, DetectionsConfig):
        return detections.model_copy(update={"table": _absolute(key, detections.table)})
    return _absolute(key, detections)


def _absolute(key: str, url: str | None) -> str | None:
    return None if url is None else absolute_url(key, url)


def absolute_url(key: str, url: str) -> str:
    """Make a local path absolute, so that every worker sees the same file; leave other URLs alone.

    Parameters
    ----------
    key : str
        What the path is, for the message.
    url : str
        Path or URL.

    Returns
    -------
    str
        Absolute path or URL.

    Raises
    ------
    ConfigError
        If it is empty, or a relative path inside a Ray job, whose working directory is a temporary copy.
    """
    if not storage.is_local(url):
        return url
    if not url:
        raise ConfigError(f"{key}: is empty; give a path or a URL")
    path = storage.local_path(url)
    if os.path.isabs(path):
        return path
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise ConfigError(
            f"{key}: {url!r} is a relative path, and a Ray job runs in a temporary copy of its working "
            "directory; give an absolute path or a URL that every node sees"
        )
    return os.path.abspath(os.path.expanduser(path))


def load_config(
    url: str,
    overrides: Mapping[str, Any] | None = None,
    options: storage.Options | None = None,
) -> RunConfig:
    """Read a config file.

    Parameters
    ----------
    url : str
        Path or URL of a YAML file.
    overrides : mapping, optional
        Dotted keys (``"tiles.size"``) and the values that replace the file's; None values are ignored.
    options : mapping, optional
        fsspec ``storage_options``: the file is read with them, and they replace its own.

    Returns
    -------
    RunConfig
        The config, local paths made absolute.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ConfigError
        If it is not YAML, has an unknown key (the nearest known one is named) or a wrong value.
    """
    given = {**(overrides or {}), "storage_options": options}
    values = read_mapping(url, options)
    if isinstance(values.get("detections"), Mapping):  # another table is read in the same way
        given["detections.table"] = given.pop("detections", None)
    return make_config(values, given, where=url)


def make_config(
    values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, where: str = "config"
) -> RunConfig:
    """Build a config from a mapping, as :func:`load_config` does from a file.

    Parameters
    ----------
    values : mapping
        Keys and values, as in the file.
    overrides : mapping, optional
        Dotted keys and the values that replace them; None values are ignored.
    where : str
        What to call the mapping in messages.

    Returns
    -------
    RunConfig
        The config, local paths made absolute.

    Raises
    ------
    ConfigError
        If a key is unknown (the nearest known one is named) or a value is wrong.
    """
    return checked(RunConfig, values, overrides, where).with_surveys().with_absolute_paths()
