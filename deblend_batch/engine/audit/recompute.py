"""Measuring a few pairs of a finished run again, to compare them with its shards. Needs no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.catalog.compare import CUDA_TOLERANCE, differences, tolerance_of
from deblend_batch.catalog.ledger import Ledger, differing
from deblend_batch.catalog.records import RunFile
from deblend_batch.catalog.shard import make_rows
from deblend_batch.catalog.tables import read_table
from deblend_batch.engine.account.record import config_of
from deblend_batch.engine.batching.batcher import Batcher
from deblend_batch.engine.inputs.fingerprint import versions
from deblend_batch.engine.inputs.index.file import read_index
from deblend_batch.engine.inputs.prepare import Prepared, prepare
from deblend_batch.engine.inputs.work import (
    RunContext,
    TileSpec,
    load_blends,
    load_carried,
    open_field,
)
from deblend_batch.engine.methods.choice import method_of
from deblend_batch.engine.worker.exchange import load_run_model
from deblend_batch.engine.worker.measurer import Measurer
from deblend_batch.errors import CatalogError, DeblendError
from deblend_batch.models.device import one_thread
from deblend_batch.progress import Progress, silent

Numbers = NDArray[np.int64]
"""Numbers of pairs in a shard, in its order."""


@dataclass(frozen=True)
class Recomputation:
    """What measuring pairs again showed.

    Parameters
    ----------
    pairs : int
        Pairs that were measured again.
    problems : tuple of str
        One line a tile whose shard holds something else.
    notes : tuple of str
        Why pairs could not be measured again; what was compared less strictly.
    """

    pairs: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recompute(
    ledger: Ledger,
    run: RunFile,
    written: Mapping[str, int],
    n_pairs: int,
    seed: int,
    progress: Progress = silent,
) -> Recomputation:
    """Measure a random sample of the pairs of a run again, and compare the rows with its shards.

    Rows made on CPUs must be the same to the bit. Of those made on a GPU, fluxes may differ by
    :data:`~deblend_batch.catalog.compare.CUDA_TOLERANCE`, since there the network runs in bfloat16; what no
    model touches may not differ.
    """
    chosen = draw_pairs(written, n_pairs, seed)
    if not chosen:
        return Recomputation()
    try:
        with one_thread():
            return _compare_all(ledger, run, chosen, progress)
    except DeblendError as error:
        return Recomputation(notes=(f"not recomputed: {error}",))


def draw_pairs(written: Mapping[str, int], n_pairs: int, seed: int) -> dict[str, Numbers]:
    """Draw pairs of a run at random, each with the same chance.

    Returns
    -------
    dict of str to ndarray of int64
        For each tile that is met the numbers of its pairs, ascending.

    Examples
    --------
    >>> draw_pairs({"a": 1, "b": 0, "c": 1}, 5, 0)
    {'a': array([0]), 'c': array([0])}
    """
    names = sorted(written)
    ends = np.cumsum([written[name] for name in names])
    total = int(ends[-1]) if names else 0
    drawn = np.sort(np.random.default_rng(seed).choice(total, min(n_pairs, total), replace=False))
    tiles = np.searchsorted(ends, drawn, side="right")
    return {
        names[tile]: drawn[tiles == tile] - (ends[tile] - written[names[tile]])
        for tile in np.unique(tiles).tolist()
    }


def _compare_all(
    ledger: Ledger, run: RunFile, chosen: Mapping[str, Numbers], progress: Progress
) -> Recomputation:
    prepared = prepare(config_of(ledger.output, run))
    _check_unchanged(prepared, run)
    context = replace(prepared.context, masks=False)
    model = load_run_model(context, "cpu")
    method = method_of(model)
    batcher = Batcher(method, context.batch_size or method.default_rows, 1 + method.batches)
    measurer = Measurer(context, batcher, method)
    problems, tolerant = [], False
    with closing(batcher):
        specs = (spec for spec in _specs(prepared) if spec.name in chosen)
        for done, spec in enumerate(specs, 1):
            shard, again = _both(ledger, spec, chosen[spec.name], measurer, context)
            device = str(ledger.read_receipt(spec.name).worker.get("device", ""))
            tolerance = tolerance_of(device)
            tolerant |= tolerance > 0
            different = differences(shard, again, tolerance)
            if different:
                problems.append(_problem(spec.name, len(chosen[spec.name]), different, run))
            progress("measuring again", done, len(chosen))
    notes = (f"fluxes of GPUs compared within {CUDA_TOLERANCE:.0%}",) if tolerant else ()
    return Recomputation(sum(map(len, chosen.values())), tuple(problems), notes)


def _check_unchanged(prepared: Prepared, run: RunFile) -> None:
    if prepared.context.fingerprint != run["fingerprint"]:
        changed = differing(run["fingerprint_of"], prepared.fingerprint_parts)
        raise CatalogError(f"{', '.join(changed) or 'fingerprint'} changed since the run")


def _specs(prepared: Prepared) -> Iterator[TileSpec]:
    output = prepared.output
    urls = [output.index_url(entry.index_name()) for entry in prepared.entries]
    fields = prepared.tiles([read_index(output, url) for url in urls])
    return chain.from_iterable(field.specs() for field in fields)


def _both(
    ledger: Ledger, spec: TileSpec, numbers: Numbers, measurer: Measurer, context: RunContext
) -> tuple[pa.Table, pa.Table]:
    """Return rows of a tile's shard, and the same rows made again."""
    with ledger.output.open_read(ledger.output.shard_url(spec.name)) as file:
        whole = read_table(file)
    ids = whole["blend_id"].to_numpy()
    wanted = np.unique(ids)[numbers]  # a shard's rows are sorted by them
    shard = whole.filter(pa.array(np.isin(ids, wanted)))
    blends = load_blends(spec, context)
    rows = np.flatnonzero(np.isin(blends.blend_id, wanted))
    blends = blends[rows]
    opened = open_field(spec.field_url, context)
    found = measurer.measure(spec, blends).measurement
    name, scale = context.model_name, opened.pixel_scale_arcsec
    carried = load_carried(spec, context, rows, blends)
    return shard, make_rows(spec.name, blends, found, opened.meta, name, scale, carried)


def _problem(tile: str, n_pairs: int, different: list[str], run: RunFile) -> str:
    here, there = versions(), run["versions"]
    others = [
        f"{name} {there[name]}, here {here[name]}"
        for name in there
        if there[name] != here.get(name)
    ]
    made_with = f" (made with {'; '.join(others)})" if others else ""
    return (
        f"shard {tile}: {', '.join(different)} of {n_pairs} recomputed pairs differ{made_with}; "
        "the field's pixels or this machine's arithmetic are not those of the run"
    )
