"""What all YAML settings share: how they are read and checked, and how a mistake is said in one line."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from deblend_batch import storage, yaml_text
from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.text import shown

_DOC = "docs/config.md"
_MAX_KEY = 60


class Section(BaseModel):
    """A frozen record of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    doc: ClassVar[str] = _DOC
    """Which document says what they mean, for messages."""

    @field_validator("*", mode="before")
    @classmethod
    def check_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse yes and no (also YAML's ``on``, ``off``) where a number is meant: pydantic takes 1 or 0."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if _holds_bool(value) and not (_takes(annotation, bool) or any(_records_in(annotation))):
            raise ValueError(f"is {_shown(value)}: yes or no, where a number or a text is meant")
        return value


S = TypeVar("S", bound=Section)


def read_mapping(
    url: str, options: storage.Options | None = None, doc: str = _DOC
) -> dict[Any, Any]:
    """Read a YAML file that holds keys and values.

    Parameters
    ----------
    url : str
        Path or URL.
    options : mapping, optional
        fsspec ``storage_options`` to read it with.
    doc : str
        Which document says what it holds, for messages.
    """
    try:
        values = yaml_text.parse(storage.read_start(url, yaml_text.MAX_BYTES + 1, options))
    except yaml_text.ExtentError as error:
        raise ConfigError(f"{url}: {error}, more than settings need; see {doc}") from error
    except yaml_text.RepeatedKeyError as error:
        raise ConfigError(f"{url}: {error}; keep one of them") from error
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise ConfigError(f"{url}: not a text file; give a YAML file, see {doc}") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{url}:{line} not valid YAML; see {doc}") from error
    if values is None:
        raise ConfigError(f"{url}: the file is empty; write keys and values, see {doc}")
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else "a single value"
        raise ConfigError(f"{url}: holds {kind}, not keys and values; see {doc}")
    return values


def load_storage_options(url: str) -> dict[str, Any]:
    """Read storage options from a YAML file."""
    try:
        values = read_mapping(url)
    except NotFoundError:
        if "=" in url or "{" in url:
            raise ConfigError(
                "storage options come from a YAML file, not from the command line, which every user "
                "of the machine can see: give the path of the file"
            ) from None
        raise
    except ConfigError as error:
        raise ConfigError(f"storage options: {error}") from error
    if not all(isinstance(key, str) for key in values):
        raise ConfigError(f"storage options: {url}: a key is not text; put it in quotes")
    return values


def checked(
    kind: type[S], values: Mapping[Any, Any], overrides: Mapping[str, Any] | None, where: str
) -> S:
    """Turn a mapping into settings.

    Parameters
    ----------
    kind : type
        The settings' class.
    values : mapping
        As a file holds them.
    overrides : mapping, optional
        Dotted keys (``"tiles.size"``) and the values that replace the file's; None values are ignored.
    where : str
        What the values come from, for messages.
    """
    merged = _merge(values, overrides or {})
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_describe(error, kind, merged)}") from None


def _merge(values: Mapping[Any, Any], overrides: Mapping[str, Any]) -> dict[Any, Any]:
    merged = dict(values)
    for dotted, value in overrides.items():
        section, _, key = dotted.rpartition(".")
        if value is None:
            continue
        if not section:
            merged[key] = value
        elif isinstance(inside := merged.get(section, {}), Mapping):
            merged[section] = {**inside, key: value}
        # What is no section stays, so that checking finds it.
    return merged


def _describe(error: ValidationError, kind: type[Section], values: Mapping[Any, Any]) -> str:
    """Say the likeliest cause, an unknown key before a value, the most specific first, and the remedy."""
    found = max(
        error.errors(),
        key=lambda each: (
            each["type"] == "extra_forbidden",
            len(each["loc"]),
            each["type"] == "value_error",
        ),
    )
    location, value = found["loc"], found["input"]
    path = _path(location, values)
    if found["type"] == "extra_forbidden":
        return f"unknown key {path!r}; {_hint(path, kind)}"
    if found["type"] == "missing":
        return f"key '{f'{path}.' if path else ''}{location[-1]}' is missing"
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "value_error":
        return f"{path} {message}" if path else message
    # Some options are secrets, and a mistyped one may be shown to others.
    got = "" if _is_secret(location, kind) else f", not {_shown(value)}"
    if found["type"] in {"model_type", "dict_type"}:
        return f"{path} must be a section of keys{got}"
    if found["type"] == "invalid_key" or location[-1] == "[key]":
        return f"{path or 'keys'} must be text{got}; put it in quotes"
    wanted = message.removeprefix("Input should be ").split(", unable to")[0].split(", got")[0]
    return f"{path} must be {wanted}{got}"


def _path(location: tuple[int | str, ...], values: Mapping[Any, Any]) -> str:
    """Return the dotted key that a user wrote, without what pydantic adds of its own."""
    parts: list[str] = []
    here: Any = values
    for part in location:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            continue
        name = str(part)
        parts.append(name if len(name) <= _MAX_KEY else f"{name[: _MAX_KEY - 3]}...")
    return ".".join(parts)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shown(value)


def _is_secret(location: tuple[int | str, ...], kind: type[Section]) -> bool:
    field = kind.model_fields.get(str(location[0])) if location else None
    return field is not None and not field.repr


def _hint(path: str, kind: type[Section]) -> str:
    """Name the nearest known key, or say where the known ones are."""
    *parents, leaf = [part for part in path.split(".") if not part.isdecimal()]
    sections = dict(_sections(kind))
    own = list(sections[parents[0]].model_fields) if parents and parents[0] in sections else []
    if close := difflib.get_close_matches(leaf, own, n=1):
        return f"did you mean '{parents[0]}.{close[0]}'?"
    known = {name: name for name in kind.model_fields}
    for name, section in sections.items():
        for key in section.model_fields:
            known[f"{name}.{key}"] = f"{name}.{key}"
            known.setdefault(key, f"{name}.{key}")
    if close := difflib.get_close_matches(leaf, known, n=1):
        return f"did you mean {known[close[0]]!r}?"
    if own:
        return f"{parents[0]!r} has the keys: {', '.join(own)}"
    named = [name for name in sections if isinstance(kind.model_fields[name].annotation, type)]
    return f"{kind.doc} lists the keys; the sections are {', '.join(named)}"


def _holds_bool(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(_holds_bool, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool)


def _takes(annotation: Any, wanted: type) -> bool:
    """Tell whether a type of a setting is, or contains, another."""
    return annotation in {wanted, Any} or any(
        _takes(each, wanted) for each in typing.get_args(annotation)
    )


def _sections(kind: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    for name, field in kind.model_fields.items():
        for section in _records_in(field.annotation):
            yield name, section


def _records_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _records_in(argument)
