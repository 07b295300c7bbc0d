"""Whether fields that overlap agree on their sources: what one leaves to another, that one measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.parts import prefix_of
from deblend_batch.catalog.tables import read_table
from deblend_batch.engine.inputs.index.deferred import read_deferred
from deblend_batch.engine.inputs.index.file import FieldIndex, read_index
from deblend_batch.engine.inputs.index.view import NOTHING_DEFERRED, Deferred
from deblend_batch.errors import CatalogError, NotFoundError

_KEPT = 32
"""Fields whose lists are held at a time: a field has some eight neighbours."""
_MEND = "remove index/ and run again with the same config, which makes it anew"

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class _Lists:
    """What the index of each field says, a few fields at a time."""

    output: Output
    indexes: Mapping[str, FieldIndex]

    def __post_init__(self) -> None:
        for name in ("deferred", "measured"):
            object.__setattr__(self, name, lru_cache(maxsize=_KEPT)(getattr(self, name)))

    def deferred(self, field: str) -> Deferred:
        """Return the sources that a field leaves to others."""
        index = self.indexes[field]
        return read_deferred(self.output, index.name) if index.deferred else NOTHING_DEFERRED

    def measured(self, field: str) -> Ids:
        """Return the sources that a field measures."""
        with self.output.open_read(self.indexes[field].url) as file:
            table = read_table(file, columns=["source_id", "is_measured"])
        ids, measured = (
            table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for name in ("source_id", "is_measured")
        )
        return np.asarray(ids[measured], np.int64)


def check_overlaps(output: Output, urls: Sequence[str]) -> list[str]:
    """Compare what the fields of a run leave to each other.

    Parameters
    ----------
    output : Output
        The run.
    urls : sequence of str
        Of the indexes of its fields.
    """
    runs: dict[str, list[FieldIndex]] = {}
    for url in urls:  # of each part of a merged catalogue those of its own
        runs.setdefault(prefix_of(storage.name_of(url)), []).append(read_index(output, url))
    return [problem for indexes in runs.values() for problem in _check_run(output, indexes)]


def _check_run(output: Output, found: Sequence[FieldIndex]) -> list[str]:
    indexes = {index.field: index for index in found}
    lists, problems = _Lists(output, indexes), []
    for field, index in indexes.items():
        if index.complete and len(lists.measured(field)) != index.detections["used"]:
            problems.append(f"index of {field}: does not measure each source once; {_MEND}")
        try:
            problems += _check_field(field, lists) if index.deferred else []
        except (CatalogError, NotFoundError) as error:
            problems.append(str(error))
    return problems


def _check_field(field: str, lists: _Lists) -> list[str]:
    deferred, counts = lists.deferred(field), lists.indexes[field].deferred
    if deferred.counts() != counts:
        return [f"index of {field}: its list of deferred sources is another's; {_MEND}"]
    problems, to = [], np.array(deferred.field, object)
    for other in counts:
        if other not in lists.indexes:
            problems.append(f"index of {field}: leaves sources to {other}, no field of the run")
            continue
        left = deferred.field_source_id[to == other]
        lost = np.isin(left, lists.deferred(other).source_id)
        if lists.indexes[other].complete:
            lost |= ~np.isin(left, lists.measured(other))
        if lost.any():
            problems.append(
                f"index of {field}: leaves {lost.sum():,} sources to {other}, which does not measure them "
                f"(the first is {left[lost][0]}); {_MEND}"
            )
    return problems
