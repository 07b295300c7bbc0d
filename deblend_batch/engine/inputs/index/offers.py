"""What a field offers to neighbours with other tables: its sources near them, in a file beside its index."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch.catalog.output import Output
from deblend_batch.catalog.tables import read_table
from deblend_batch.detections.table import Detections
from deblend_batch.engine.inputs.index.near import Near, read_near
from deblend_batch.engine.inputs.index.task import IndexTask
from deblend_batch.engine.inputs.survey import Place, SurveyEntry
from deblend_batch.errors import CatalogError
from deblend_batch.field.layout import Field
from deblend_batch.text import cause
from deblend_batch.tiling.ownership import Claims, claims_of

_NUMBERS = ("id", "ra", "dec", "mag", "radius_arcsec")
_CLAIMS = ("rank", "edge_mas", "field")
_PSF = "psf_fwhm_arcsec"
_CARRIED = "carried_"
_WRONG = (pa.ArrowException, OSError, ValueError, LookupError, TypeError)


def offer_field(task: IndexTask) -> None:
    """Write what a field offers, if it has neighbours with other tables, and unless it is there."""
    url = task.output.offers_url(task.entry.index_name())
    if not task.entry.other_tables or task.output.exists(url):
        return
    opened = Field.reopen(task.entry.field_url, task.options)
    near = read_near(replace(task, keep_unused=False), opened)
    rows = np.zeros(len(near.detections), bool)
    for other in task.entry.other_tables:
        rows |= is_near(near.detections, other.field, task.reach_px(other.field))
    claims = best_claims(task.entry, near)[rows]
    write_offers(task.output, url, near.detections[rows], claims)


def is_near(detections: Detections, field: Field, reach_px: float) -> NDArray[np.bool_]:
    """Tell which detections lie in an image or so near it, px."""
    yx = field.world_to_pixel(detections.ra, detections.dec)
    far = np.array(field.shape_yx) - 1 + reach_px
    return np.asarray(((yx > -reach_px) & (yx < far)).all(axis=1))


def best_claims(entry: SurveyEntry, near: Near) -> Claims:
    """Return for each row of a field's table the best claim of the fields that use the table."""
    assert entry.place is not None
    radec = np.stack([near.detections.ra, near.detections.dec], axis=-1)
    found = claims_of(entry.place.field, entry.place.number, radec, near.yx)
    for other in entry.same_table:
        found = found.or_better(claims_of(other.field, other.number, radec))
    return found


def write_offers(output: Output, url: str, detections: Detections, claims: Claims) -> None:
    """Write a file of offers."""
    columns = {name: pa.array(getattr(detections, name)) for name in _NUMBERS}
    columns |= {name: pa.array(getattr(claims, name)) for name in _CLAIMS}
    widths = detections.psf_fwhm_arcsec
    if widths is not None:
        flat = pa.array(np.ascontiguousarray(widths).ravel())
        columns[_PSF] = pa.FixedSizeListArray.from_arrays(flat, widths.shape[1])
    table = pa.table(columns)
    carried = detections.carried
    if carried is not None:
        for field in carried.schema:
            named = field.with_name(f"{_CARRIED}{field.name}")
            table = table.append_column(named, carried[field.name])
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    output.write(url, sink.getvalue())


def read_offers(output: Output, url: str) -> tuple[Detections, Claims]:
    """Read a file of offers."""
    try:
        with output.open_read(url) as file:
            table = read_table(file)
        columns = {name: table[name].to_numpy() for name in (*_NUMBERS, *_CLAIMS)}
        widths = None
        if _PSF in table.column_names:
            lists = table[_PSF].combine_chunks()
            widths = lists.flatten().to_numpy().reshape(len(table), lists.type.list_size)
    except _WRONG as error:
        raise CatalogError(f"{url}: damaged ({cause(error)}); remove it and run again") from error
    detections = Detections(
        **{name: columns[name] for name in _NUMBERS},
        yx=None,
        carried=_carried(table),
        psf_fwhm_arcsec=widths,
    )
    return detections, Claims(*(columns[name] for name in _CLAIMS))


def _carried(table: pa.Table) -> pa.Table | None:
    fields = [each for each in table.schema if each.name.startswith(_CARRIED)]
    if not fields:
        return None
    names = [each.with_name(each.name.removeprefix(_CARRIED)) for each in fields]
    return pa.table([table[each.name] for each in fields], schema=pa.schema(names))


def read_neighbours(task: IndexTask, opened: Field) -> Iterable[tuple[Place, Detections, Claims]]:
    """Read what the neighbours with other tables offer in or near an image."""
    for other in task.entry.other_tables:
        detections, claims = read_offers(task.output, task.output.offers_url(other.index))
        rows = is_near(detections, opened, task.reach_px(opened))
        yield other, detections[rows], claims[rows]
