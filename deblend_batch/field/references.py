"""Members of a field that lie elsewhere: arrays in someone's Zarr, of which the field holds the place alone.

A field can be a stranger's, and its user's rights are the user's own. So a reference leads to the folder that
the field lies in, or below it, by a relative path without links out of it; or to another store that the user
has named in the storage options, never to a path of this machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zarr

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.errors import ConfigError, FieldError, NotFoundError
from deblend_batch.storage import Options
from deblend_batch.text import shown

ATTRIBUTE = "references"
MEMBERS = ("image", "variance", "mask")

_MOST_TEXT = 4096
_AGAIN = "ingest it again by reference"


@dataclass(frozen=True)
class Reference:
    """Where a member lies.

    Parameters
    ----------
    place : str
        A path from the folder that the field lies in, or a URL of another store.
    stamp : str
        What changes when the array does (:func:`deblend_batch.storage.stamp`).
    """

    place: str
    stamp: str

    @classmethod
    def to(cls, array_url: str, field_url: str, options: Options | None) -> Reference:
        """Refer to an array from a field that is to be written."""
        reference = cls(_place(array_url, field_url), storage.stamp(array_url, options))
        reference.url(field_url, options)
        return reference

    def url(self, field_url: str, options: Options | None) -> str:
        """Return where the array is, if a field may refer to that place."""
        if "://" in self.place:
            return _elsewhere(self.place, field_url, options)
        folder = url = _folder(field_url)
        for part in self.place.split("/"):
            url = storage.member(url, part)
        if storage.is_local(url):
            root, path = (os.path.realpath(storage.local_path(each)) for each in (folder, url))
            if os.path.commonpath([root, path]) != root:
                raise FieldError(
                    f"{field_url}: refers to {self.place}, a link out of {folder}; put the array itself there"
                )
        return url

    def check(self, url: str, field_url: str, options: Options | None) -> None:
        """Refuse an array that is not as it was."""
        try:
            found = storage.stamp(url, options)
        except NotFoundError as error:
            raise _gone(field_url, url) from error
        if found != self.stamp:
            raise FieldError(
                f"{field_url}: {url}, to which it refers, has changed since; {_AGAIN}, and give the run "
                "another output"
            )


def references_of(attributes: Mapping[str, Any], url: str) -> dict[str, Reference]:
    """Read the references of a field from its attributes; none where its members are its own."""
    given = attributes.get(ATTRIBUTE)
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not set(given) <= set(MEMBERS):
        raise FieldError(
            f"{url}: attribute '{ATTRIBUTE}' is {shown(given)}; it must map {', '.join(MEMBERS)} to places"
        )
    found = {}
    for name, each in given.items():
        place, stamp = (_text(each, key) for key in ("place", "stamp"))
        if not place or not stamp:
            raise FieldError(
                f"{url}: attribute '{ATTRIBUTE}' says {shown(each)} of {name}; it must have texts 'place' "
                "and 'stamp'"
            )
        found[name] = Reference(place, stamp)
    return found


def _text(section: object, key: str) -> str:
    text = section.get(key) if isinstance(section, Mapping) else None
    return text if isinstance(text, str) and len(text) <= _MOST_TEXT else ""


def open_member(
    group: zarr.Group,
    url: str,
    options: Options | None,
    name: str,
    references: Mapping[str, Reference],
) -> zarr.Array[Any] | None:
    """Open a member of a field, wherever it lies; None where there is none."""
    reference = references.get(name)
    if reference is None:
        return stores.open_member(group, url, name)
    place = reference.url(url, options)
    try:
        return stores.open_array(place, options)
    except NotFoundError as error:
        raise _gone(url, place) from error


def _gone(field_url: str, url: str) -> NotFoundError:
    return NotFoundError(
        f"{field_url}: {url}, to which it refers, has gone; bring it back, or {_AGAIN}"
    )


def _elsewhere(place: str, field_url: str, options: Options | None) -> str:
    if storage.is_local(place) or not storage.sections_of(place, options):
        store = "/".join(place.split("/")[:3])
        raise FieldError(
            f"{field_url}: refers to {place}; if you trust it, name that store in your storage options, as a "
            f"section '{store}'"
        )
    return place


def _place(array_url: str, field_url: str) -> str:
    """Say where an array is as seen from a field."""
    folder = _folder(field_url)
    if storage.is_local(array_url) and storage.is_local(field_url):
        root, path = (os.path.realpath(storage.local_path(each)) for each in (folder, array_url))
        if os.path.commonpath([root, path]) == root and root != path:
            return os.path.relpath(path, root)
        raise ConfigError(
            f"{field_url}: a field refers to arrays beside or below it only; write it into "
            f"{storage.parent(array_url)}, or a folder above"
        )
    if storage.is_local(array_url):
        raise ConfigError(
            f"{field_url}: cannot refer to {array_url}, a path of this machine; write it on this machine"
        )
    inside = array_url.rstrip("/").removeprefix(f"{folder}/")
    return inside if inside != array_url.rstrip("/") else array_url.rstrip("/")


def _folder(field_url: str) -> str:
    """Return the folder that a field lies in."""
    if storage.is_local(field_url):
        return os.path.dirname(os.path.abspath(storage.local_path(field_url.rstrip("/"))))
    return storage.parent(field_url)
