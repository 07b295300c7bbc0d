"""Surveys of overlapping fields for tests: images without pixels, one table for all or one each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch.cluster.workers import ALONE
from deblend_batch.config import make_config
from deblend_batch.engine.inputs.index.carried import rows_of
from deblend_batch.engine.inputs.index.file import IndexReader
from deblend_batch.engine.inputs.prepare import Prepared, prepare
from deblend_batch.engine.needs.admission import Examined, examine
from deblend_batch.field.footprint import Footprint
from deblend_batch.field.layout import Field, create_field, finish_field
from tests.support import PIXEL_SCALE_ARCSEC, make_meta

SHAPE_YX = (120, 140)
OFFSETS_YX = ((0.0, 0.0), (10.3, 100.4), (85.6, 40.1), (300.0, 300.0))
"""Where the fields' first pixels lie on a common grid: three that overlap, resampled, and one far off."""
CENTRES = ((150.0, 2.0), (0.0, -30.0), (10.0, 89.999), (77.0, -90.0))
"""Of that grid on the sky: an easy one, RA 0 = 360, and both poles."""


@dataclass(frozen=True)
class Bricks:
    """Fields, the true sky, and what each table calls a source of it.

    Parameters
    ----------
    urls : tuple of str
        The fields.
    tables : tuple of str
        Of each field.
    radec : ndarray of float64, shape (n, 2)
        True positions.
    truth : dict
        From a field's name and an id of its table to the true source.
    """

    urls: tuple[str, ...]
    tables: tuple[str, ...]
    radec: NDArray[np.float64]
    truth: dict[tuple[str, int], int]

    def held(self, within_px: float = 0.0) -> set[int]:
        """Return the true sources that lie in an image, so far within its edges at least."""
        found: set[int] = set()
        for url in self.urls:
            yx = Field.open(url).world_to_pixel(*self.radec.T)
            far = np.array(SHAPE_YX) - 0.5 - within_px
            inside = ((yx >= within_px - 0.5) & (yx < far)).all(axis=1)
            found |= set(np.flatnonzero(inside).tolist())
        return found


def write_bricks(
    folder: Path,
    yx: NDArray[np.float64],
    *,
    centre: tuple[float, float] = CENTRES[0],
    sharing: int = 0,
    jitter_px: float = 0.0,
    footprints: Sequence[Footprint | None] = (None,) * len(OFFSETS_YX),
) -> Bricks:
    """Write fields and tables; ``yx`` are the true positions on the common grid.

    The first ``sharing`` fields have one table, the others one each.
    """
    rng = np.random.default_rng(5)
    names = [f"b{number}" for number in range(len(OFFSETS_YX))]
    urls = tuple(
        _write_field(folder, name, offset, centre, footprint)
        for name, offset, footprint in zip(names, OFFSETS_YX, footprints, strict=True)
    )
    radec = Field.open(urls[0]).pixel_to_world(yx)
    mag = rng.uniform(18, 24, len(yx)).astype(np.float32)
    tables: list[str] = []
    truth: dict[tuple[str, int], int] = {}
    for name, url in zip(names, urls, strict=True):
        opened = Field.open(url)
        near = opened.world_to_pixel(*radec.T)
        own = np.flatnonzero(((near > -9) & (near < np.array(SHAPE_YX) + 8)).all(axis=1))
        shift = rng.uniform(-jitter_px, jitter_px, (len(own), 2))
        place = opened.pixel_to_world(near[own] + shift)
        numbers = (
            rng.permutation(len(own)) + 1
        )  # those of two tables are the same, of other sources
        shares = name in names[:sharing]
        if shares:
            own, place, numbers = np.arange(len(yx)), radec, np.arange(len(yx)) + 1
        table = str(folder / ("all.parquet" if shares else f"{name}.parquet"))
        columns = {"id": numbers, "ra": place[:, 0], "dec": place[:, 1], "mag": mag[own]}
        pq.write_table(pa.table(columns), table)
        tables.append(table)
        truth |= {(name, int(n)): int(o) for n, o in zip(numbers, own, strict=True)}
    return Bricks(urls, tuple(tables), radec, truth)


def _write_field(
    folder: Path,
    name: str,
    offset: tuple[float, float],
    centre: tuple[float, float],
    footprint: Footprint | None,
) -> str:
    cards = make_meta().wcs_cards
    place = {
        "CRVAL1": centre[0],
        "CRVAL2": centre[1],
        "CRPIX1": 120.5 - offset[1],
        "CRPIX2": 110.5 - offset[0],
    }
    meta = make_meta(name=name, wcs_cards={**cards, **place}, footprint=footprint)
    url = str(folder / f"{name}.zarr")
    finish_field(create_field(url, meta, SHAPE_YX, with_variance=False), meta)
    return url


def prepared_survey(bricks: Bricks, folder: Path, order: Sequence[int], **changes: Any) -> Prepared:
    """Prepare a run of the fields, in some order."""
    survey = [{"field": bricks.urls[n], "detections": bricks.tables[n]} for n in order]
    values = {
        "survey": survey,
        "output": str(folder),
        "model": "profile-fit",
        "blends": {"link": 0.7},
        "tiles": {"size": 64},
        "overlaps": {"match": 3 * PIXEL_SCALE_ARCSEC},
    }
    return prepare(make_config({**values, **changes}))


def examined_survey(prepared: Prepared) -> Examined:
    """Index all fields of a survey, here."""
    return examine(prepared.index_tasks(), ALONE)


def rows_in(prepared: Prepared, examined: Examined) -> list[tuple[str, int, int, bool]]:
    """Return the rows that the catalogue will have: field and id of the source, blend, whether primary."""
    found = []
    for index in examined.indexes:
        if not index.n_blends:
            continue
        reader = IndexReader(prepared.output, index.url)
        blends = reader.read(0, index.n_blends)
        carried = rows_of(reader.read_beside(0, index.n_blends), blends)
        assert carried is not None
        measured = blends.is_measured
        ids = blends.source_id[measured].tolist()
        blend = np.repeat(blends.blend_id, measured.sum(axis=1)).tolist()
        primary = blends.is_primary[measured].tolist()
        found += list(zip(carried["field"].to_pylist(), ids, blend, primary, strict=True))
    return found
