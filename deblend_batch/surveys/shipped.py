"""The records that come with the package, and those that users write."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources

from deblend_batch import yaml_text
from deblend_batch.errors import ConfigError
from deblend_batch.settings import checked, read_mapping
from deblend_batch.storage import Options
from deblend_batch.surveys.record import SurveyRecord

_SUFFIXES = (".yaml", ".yml")


@cache
def shipped_surveys() -> dict[str, SurveyRecord]:
    """Return the records that come with the package, by name."""
    folder = resources.files("deblend_batch.surveys") / "records"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if file.name.endswith(".yaml"):
            record = checked(
                SurveyRecord, yaml_text.parse(file.read_bytes()), None, f"survey {file.name}"
            )
            found[record.name] = record
    return found


def is_record_file(name: str) -> bool:
    """Tell whether ``--survey`` names a file, and no survey that comes with the package."""
    return name.lower().endswith(_SUFFIXES)


def load_survey(name: str, options: Options | None = None, key: str = "--survey") -> SurveyRecord:
    """Return a survey's record.

    Parameters
    ----------
    name : str
        Name of one that comes with the package, or path or URL of a YAML file.
    options : mapping, optional
        fsspec storage options, for a file.
    key : str
        What the name was given as, for messages.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ConfigError
        If there is no such survey, or the file is no such record; the nearest known word is named.
    """
    if is_record_file(name):
        return checked(SurveyRecord, read_mapping(name, options, SurveyRecord.doc), None, name)
    known = shipped_surveys()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{key}: no survey {name!r}; {hint}known are {', '.join(known)}, or give a record of your own, "
            "FILE.yaml"
        )
    return known[name]
