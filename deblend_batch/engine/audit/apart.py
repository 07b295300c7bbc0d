"""Whether outputs that are to be merged measured the same sources: by name, and by place on the sky.

All shards are read once, for their names in bounded memory and for a circle that holds each. Only where
circles of two outputs touch are shards read again, two at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.catalog.tables import read_table
from deblend_batch.detections.unique import UniqueKeys
from deblend_batch.engine.audit.combining import Part
from deblend_batch.engine.inputs.index.view import FIELD
from deblend_batch.errors import CatalogError
from deblend_batch.progress import Progress
from deblend_batch.tiling.member_hash import hash_members, hash_text
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors

_MOVED_ARCSEC = 5.0
"""How far apart fits may have put one row of a table."""
_COLUMNS = ["source_id", "is_primary", "ra", "dec"]


@dataclass(frozen=True)
class _Circle:
    """A circle on the sky that holds the rows of a shard."""

    part: int
    tile: str
    centre: NDArray[np.float64]
    radius_arcsec: float


def check_apart(parts: Sequence[Part], match_arcsec: float, progress: Progress) -> None:
    """Refuse outputs that measured a source twice.

    Parameters
    ----------
    parts : sequence of Part
        The outputs.
    match_arcsec : float
        How near on the sky sources of two tables are that are one.
    progress : callable
        Told of the shards read.
    """
    circles: list[_Circle] = []
    with UniqueKeys() as keys:
        for number, part in enumerate(parts):
            for tile, rows in _shards(part):
                found = keys.add(_keys(rows))
                if found is not None:
                    raise _same_name(parts, found.first)
                circles.append(_circle(number, tile, rows))
                progress("comparing", len(circles), None)
        if (found := keys.finish()) is not None:
            raise _same_name(parts, found.first)
    for one, other in _touching(circles, max(match_arcsec, _MOVED_ARCSEC)):
        _check_two(parts, one, other, match_arcsec)


def _shards(part: Part) -> Iterator[tuple[str, pa.Table]]:
    return ((tile, _primary(part, tile)) for tile in part.output.shards())


def _primary(part: Part, tile: str) -> pa.Table:
    """Read the rows of a shard that are the ones to use."""
    with part.output.open_read(part.output.shard_url(tile)) as file:
        table = read_table(file)
    names = [*_COLUMNS, *([FIELD] if _has_field(part) and FIELD in table.column_names else [])]
    return table.select(names).filter(pc.field("is_primary"))


def _has_field(part: Part) -> bool:
    """Tell whether rows carry the field that they belong to, as those of a survey do, or of a part of one."""
    return any(
        len(each["fingerprint_of"]["fields"]) > 1 or each["config"].get("field") is None
        for each in part.runs
    )


def _keys(rows: pa.Table) -> NDArray[np.int64]:
    """Return what tells sources of all outputs apart: their ids and, where they have some, their fields."""
    ids = rows["source_id"].to_numpy()
    if FIELD not in rows.column_names:
        return hash_members(np.stack([ids, np.zeros(len(ids), np.int64)], axis=1))
    names = rows[FIELD].combine_chunks().dictionary_encode()
    salts = np.array([hash_text(name) for name in names.dictionary.to_pylist()] or [0], np.int64)
    return hash_members(np.stack([ids, salts[names.indices.to_numpy()]], axis=1))


def _same_name(parts: Sequence[Part], key: int) -> CatalogError:
    """Say of which source two outputs have a row."""
    holders, source = [], 0
    for part in parts:
        for _, rows in _shards(part):
            same = np.flatnonzero(_keys(rows) == key)
            if len(same):
                holders.append(str(part.output))
                source = rows["source_id"][int(same[0])].as_py()
    return CatalogError(
        f"{' and '.join(dict.fromkeys(holders))}: both hold source {source}; measure a source in one part of "
        "a survey alone, or, where the tables number different sources alike, run each as a part of a survey "
        "('survey: [{field: FIELD, detections: TABLE}]'), or with ids of its own ('columns: {id: [NAME, "
        "NAME]}')"
    )


def _circle(part: int, tile: str, rows: pa.Table) -> _Circle:
    vectors = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    if not len(vectors):
        return _Circle(part, tile, np.array([1.0, 0.0, 0.0]), -np.inf)
    middle = vectors.mean(axis=0)
    centre = middle / max(float(np.linalg.norm(middle)), 1e-9)
    return _Circle(part, tile, centre, float(separations_arcsec(vectors, centre[None]).max()))


def _touching(
    circles: Sequence[_Circle], margin_arcsec: float
) -> Iterator[tuple[_Circle, _Circle]]:
    """Find circles of different outputs that touch, without looking at every two."""
    circles = [each for each in circles if each.radius_arcsec >= 0]
    if not circles:
        return
    centres = np.array([each.centre for each in circles])
    reach = np.array([each.radius_arcsec for each in circles])
    furthest = np.minimum(reach + reach.max() + margin_arcsec, 180 * 3600)
    chords = 2 * np.sin(np.radians(furthest / 3600) / 2) * (1 + 1e-9)
    tree = cKDTree(centres)
    for one, chord in zip(circles, chords.tolist(), strict=True):
        for number in tree.query_ball_point(one.centre, chord):
            other = circles[number]
            near = one.radius_arcsec + other.radius_arcsec + margin_arcsec
            apart = separations_arcsec(one.centre[None], other.centre[None])[0]
            if one.part < other.part and apart <= near:
                yield one, other


def _check_two(parts: Sequence[Part], one: _Circle, other: _Circle, match_arcsec: float) -> None:
    first, second = parts[one.part], parts[other.part]
    shared = _tables(first) & _tables(second)
    tables = [_primary(first, one.tile), _primary(second, other.tile)]
    vectors = [unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy()) for rows in tables]
    ids = [rows["source_id"].to_numpy() for rows in tables]
    radius = _MOVED_ARCSEC if shared else match_arcsec
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    near = cKDTree(vectors[0]).sparse_distance_matrix(
        cKDTree(vectors[1]), chord, output_type="ndarray"
    )
    # Two rows of one table are one source only where they are the same row.
    same = ids[0][near["i"]] == ids[1][near["j"]] if shared else np.ones(len(near), bool)
    if same.any():
        i = int(near["i"][same][0])
        ra, dec = (tables[0][name][i].as_py() for name in ("ra", "dec"))
        raise CatalogError(
            f"{first.output} and {second.output}: both measured the source at {ra:.6f}, {dec:+.6f} "
            f"(and {same.sum() - 1:,} more of {one.tile} and {other.tile}); run fields that overlap in one "
            "survey, which measures each source once"
        )


def _tables(part: Part) -> set[str]:
    """Return the detection table of a run that has only one."""
    tables = part.run["fingerprint_of"]["detections"]
    return set(tables) if len(tables) == 1 else set()
