"""How a survey's catalogue is read, for one of its bands (pure)."""

from __future__ import annotations

from collections.abc import Callable

from deblend_batch.errors import ConfigError
from deblend_batch.surveys.record import SurveyRecord, TableConfig
from deblend_batch.table_columns import Column, ColumnConfig


def table_of(record: SurveyRecord, band: str | None) -> TableConfig:
    """Return how a survey's catalogue is read, with the band in the names of its columns.

    Parameters
    ----------
    record : SurveyRecord
        The survey's.
    band : str, optional
        Name of the band, as the catalogue writes it; the record's usual one if absent.

    Raises
    ------
    ConfigError
        If the record tells nothing of a catalogue, or no band where one is asked for.
    """
    table = record.detections
    if table is None:
        raise ConfigError(
            f"detections.survey: the record of {record.name} tells nothing of a catalogue; give 'columns'"
        )
    chosen = band or table.band

    def filled(text: str) -> str:
        if chosen is None and ("{band}" in text or "{BAND}" in text):
            raise ConfigError(f"detections.band: {record.name} has {text!r}; give the band")
        known = chosen or ""
        return text.replace("{band}", known).replace("{BAND}", known.upper())

    columns = {key: _column(column, filled) for key, column in table.columns.items()}
    where = None if table.where is None else filled(table.where)
    return table.model_copy(update={"columns": columns, "where": where})


def _column(column: Column, filled: Callable[[str], str]) -> Column:
    if isinstance(column, str):
        return filled(column)
    if isinstance(column, ColumnConfig):
        names = {
            key: name and filled(name)
            for key, name in (("column", column.column), ("flux", column.flux))
        }
        return column.model_copy(update=names)
    return [filled(name) for name in column]
