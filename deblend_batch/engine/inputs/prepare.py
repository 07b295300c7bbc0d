"""Preparing a run: its inputs are opened and described, once and in one order, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deblend_batch.catalog.ledger import fingerprint
from deblend_batch.catalog.output import Output
from deblend_batch.config import RunConfig
from deblend_batch.engine.inputs.access import check_places, check_tables
from deblend_batch.engine.inputs.fingerprint import fingerprint_parts
from deblend_batch.engine.inputs.index.carried import check_names
from deblend_batch.engine.inputs.index.file import FieldIndex
from deblend_batch.engine.inputs.index.task import IndexTask, index_tasks
from deblend_batch.engine.inputs.index.view import FIELD
from deblend_batch.engine.inputs.survey import SurveyEntry, check_reachable, open_fields, tables_of
from deblend_batch.engine.inputs.weights import find_run_card
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.inputs.workload import FieldTiles
from deblend_batch.field.layout import Field
from deblend_batch.logs import chosen_format
from deblend_batch.models import ModelCard
from deblend_batch.tiling.tile import TileGrid


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs have been looked at.

    Parameters
    ----------
    config : RunConfig
        Its config.
    entries : tuple of SurveyEntry
        Its fields.
    fields : tuple of Field
        The same, opened.
    grids : tuple of TileGrid
        How each is divided into tiles.
    card : ModelCard
        Of its model.
    fingerprint_parts : dict
        What decides its rows.
    context : RunContext
        What its workers must know.
    """

    config: RunConfig
    entries: tuple[SurveyEntry, ...]
    fields: tuple[Field, ...]
    grids: tuple[TileGrid, ...]
    card: ModelCard
    fingerprint_parts: dict[str, Any]
    context: RunContext

    @property
    def output(self) -> Output:
        """Its output folder."""
        return self.context.output

    def index_tasks(self) -> list[IndexTask]:
        """Describe the indexing of each field."""
        return index_tasks(self.config, self.output, self.entries, self.card)

    def tiles(self, indexes: Sequence[FieldIndex]) -> list[FieldTiles]:
        """Return the tiles of each field, whose indexes are given in the same order."""
        return [
            FieldTiles(field.url, index, grid)
            for field, index, grid in zip(self.fields, indexes, self.grids, strict=True)
        ]


def prepare(config: RunConfig) -> Prepared:
    """Open and describe the inputs of a run. Writes nothing, and does not look at the output."""
    check_reachable(config)
    opened = open_fields(config)
    entries, fields = (tuple(each) for each in zip(*opened, strict=True))
    check_places(config, entries, fields)
    tables = tables_of(config, [entry.detections_url for entry in entries])
    check_tables(tables, config.storage_options)
    card = find_run_card(config)
    for entry, field in opened:
        several = () if entry.alone else (FIELD,)
        check_names(entry.reading, field.meta.bands, several, fitted=not card.takes_pairs)
    parts = fingerprint_parts(config, entries, fields, card)
    return Prepared(
        config=config,
        entries=entries,
        fields=fields,
        grids=tuple(TileGrid(field.shape_yx, config.tiles.size) for field in fields),
        card=card,
        fingerprint_parts=parts,
        context=RunContext(
            output=Output(config.output, config.storage_options),
            model=config.model,
            model_name=card.name,
            batch_size=config.engine.batch_size,
            masks=config.masks,
            fingerprint=fingerprint(parts),
            model_sha256=card.sha256,
            takes_pairs=card.takes_pairs,
            log_format=chosen_format(),
        ),
    )
