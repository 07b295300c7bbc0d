"""HATS catalogues and collections, by the properties in their folders: which table is meant, what it holds.

A collection has its catalogue's margin caches, in which rows of neighbouring partitions stand again, and its
indexes beside it: the catalogue alone is the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from deblend_batch import storage
from deblend_batch.errors import DetectionsError, TooLargeError
from deblend_batch.storage import Options
from deblend_batch.text import shown

_COLLECTION = "collection.properties"
_CATALOGUE = ("hats.properties", "properties")
"""Names of the properties of a catalogue, of this and of earlier releases."""
_TABLES = frozenset({"", "object", "source", "nested"})
"""Kinds of catalogues whose rows are sources, each once."""
_MAX_BYTES = 1 << 16


def is_catalogue(names: Iterable[str]) -> bool:
    """Tell whether a folder with these names is a catalogue."""
    return not set(_CATALOGUE).isdisjoint(names)


def primary_table(url: str, options: Options | None) -> str:
    """Return the folder of a collection's catalogue; any other folder is itself."""
    names = storage.list_names(url, options)
    if _COLLECTION in names:
        primary = _read(url, _COLLECTION, options).get("hats_primary_table_url")
        if primary is None:
            raise DetectionsError(
                f"{url}: {_COLLECTION} names no hats_primary_table_url; give its catalogue's folder"
            )
        return storage.member(url, primary)
    kind = _of_catalogue(url, names, options).get("dataproduct_type", "")
    if kind not in _TABLES:
        raise DetectionsError(
            f"{url}: is the {shown(kind)} of a catalogue, in which rows stand twice or not at all; give the "
            "catalogue"
        )
    return url


def sky_columns(url: str, options: Options | None) -> dict[str, str]:
    """Return the columns of right ascension and declination that a catalogue states; else none.

    By HATS' definition they are ICRS degrees.
    """
    root = primary_table(url, options)
    said = _of_catalogue(root, storage.list_names(root, options), options)
    ra, dec = said.get("hats_col_ra"), said.get("hats_col_dec")
    return {"ra": ra, "dec": dec} if ra and dec else {}


def check_no_catalogues(names: Sequence[str], url: str) -> None:
    """Refuse a folder in which catalogues lie: one may be the margin of another."""
    folders = [name.rpartition("/")[0] for name in names if name.endswith(f"/{_CATALOGUE[0]}")]
    if folders:
        raise DetectionsError(
            f"{url}: holds HATS catalogues ({', '.join(sorted(folders)[:4])}); give the one that is the table"
        )


def _of_catalogue(url: str, names: Iterable[str], options: Options | None) -> Mapping[str, str]:
    name = next((each for each in _CATALOGUE if each in set(names)), None)
    return {} if name is None else _read(url, name, options)


def _read(url: str, name: str, options: Options | None) -> dict[str, str]:
    """Read a file of properties."""
    place = storage.join(url, name)
    start = storage.read_start(place, _MAX_BYTES + 1, options)
    if len(start) > _MAX_BYTES:
        raise TooLargeError(f"{place}: more than {_MAX_BYTES:,} bytes; give its catalogue's folder")
    lines = (line.partition("=") for line in start.decode(errors="replace").splitlines())
    return {key.strip(): value.strip() for key, equals, value in lines if equals}
