"""How a config names the columns of a table: a name, several, or a name with its unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from deblend_batch.settings import Section


class ColumnConfig(Section):
    """A column of a table that its name alone does not explain."""

    column: str | None = None
    """Its name."""
    flux: str | None = None
    """Its name, where it is a flux that a magnitude is to come from."""
    unit: str | None = None
    """Its unit; the table's own word counts if absent."""
    zero_point: float | None = Field(None, ge=-60, le=60)
    """AB magnitude of one unit of the flux, where that is no flux density."""

    @model_validator(mode="after")
    def check_names(self) -> ColumnConfig:
        """Refuse a column without a name, or with two."""
        if (self.column is None) == (self.flux is None):
            raise ValueError("give exactly one of 'column' and 'flux'")
        if self.zero_point is not None and (self.flux is None or self.unit is not None):
            raise ValueError("'zero_point' goes with 'flux', and in the place of 'unit'")
        return self


Column = str | list[str] | ColumnConfig
"""Which column, or columns, of a table are one of ours."""


def _check_columns(columns: Any) -> Any:
    """Refuse what is no mapping of columns, in fewer words than a union of types."""
    if not isinstance(columns, Mapping):
        return columns
    for key, column in columns.items():
        several = isinstance(column, list) and column
        if several and all(isinstance(name, str) for name in column):
            continue
        if not isinstance(column, str | Mapping | ColumnConfig):
            raise ValueError(  # noqa: TRY004  # pydantic takes no other
                f"must name a column for {key!r}: NAME, a list of names, or "
                "{column: NAME, unit: UNIT} ({flux: NAME, unit: UNIT} of mag)"
            )
    return columns


Columns = Annotated[dict[str, Column], BeforeValidator(_check_columns)]
