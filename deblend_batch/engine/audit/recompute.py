"""Measuring a few pairs of a finished run again, to compare them with its shards. Needs no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.catalog.compare import CUDA_TOLERANCE, differences, tolerance_of
from deblend_batch.catalog.ledger import Ledger, differing, fingerprint
from deblend_batch.catalog.records import RunFile
from deblend_batch.catalog.shard import make_rows
from deblend_batch.catalog.tables import read_table
from deblend_batch.config import RunConfig, make_config
from deblend_batch.engine.inputs.fingerprint import fingerprint_parts, versions
from deblend_batch.engine.inputs.index import read_index
from deblend_batch.engine.inputs.survey import SurveyEntry, open_fields
from deblend_batch.engine.inputs.weights import find_run_card
from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_pairs, open_field
from deblend_batch.engine.inputs.workload import FieldTiles
from deblend_batch.engine.worker.actor import load_run_model
from deblend_batch.engine.worker.batcher import Batcher
from deblend_batch.engine.worker.measurer import Measurer
from deblend_batch.errors import CatalogError, DeblendError
from deblend_batch.field.layout import Field
from deblend_batch.models import ModelCard
from deblend_batch.tiling.tile import TileGrid

Rows = NDArray[np.int64]


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
    ledger: Ledger, run: RunFile, written: Mapping[str, int], n_pairs: int, seed: int
) -> Recomputation:
    """Measure a random sample of the pairs of a run again, and compare the rows with its shards.

    Rows made on CPUs must be the same to the bit. Of those made on a GPU, fluxes may differ by
    :data:`~deblend_batch.catalog.compare.CUDA_TOLERANCE`, since there the network runs in bfloat16; what no
    model touches may not differ.

    Parameters
    ----------
    ledger : Ledger
        Of the run.
    run : RunFile
        Its ``run.json``.
    written : mapping of str to int
        Pairs in the shard of each sound tile.
    n_pairs : int
        Size of the sample.
    seed : int
        Of the sample.

    Returns
    -------
    Recomputation
        What was found; where inputs cannot be read, or are not those of the run, a note says so.
    """
    chosen = choose(written, n_pairs, seed)
    if not chosen:
        return Recomputation()
    try:
        with _one_thread():
            return _compare_all(ledger, run, chosen)
    except DeblendError as error:
        return Recomputation(notes=(f"not recomputed: {error}",))


def choose(written: Mapping[str, int], n_pairs: int, seed: int) -> dict[str, Rows]:
    """Draw pairs of a run at random, each with the same chance.

    Parameters
    ----------
    written : mapping of str to int
        Pairs of each tile.
    n_pairs : int
        How many to draw; all, where there are fewer.
    seed : int
        Of the draw.

    Returns
    -------
    dict of str to ndarray of int64
        For each tile that is met the numbers of its pairs, ascending.

    Examples
    --------
    >>> choose({"a": 1, "b": 0, "c": 1}, 5, 0)
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute as an actor does; other numbers of threads may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compare_all(ledger: Ledger, run: RunFile, chosen: Mapping[str, Rows]) -> Recomputation:
    config = make_config(
        {**run["config"], "output": ledger.output, "storage_options": ledger.options}
    )
    opened = open_fields(config)
    card = find_run_card(config)
    _check_unchanged(config, opened, card, run)
    context = _context(config, card, run["fingerprint"])
    model = load_run_model(context, "cpu")
    batcher = Batcher(model, context.batch_size or int(model.default_batch_size))
    measurer = Measurer(context, batcher, model.card.domain)
    problems, tolerant = [], False
    with closing(batcher):
        for spec in _specs(config, opened):
            if spec.name not in chosen:
                continue
            shard, again = _both(ledger, spec, chosen[spec.name], measurer, context)
            device = str(ledger.read_receipt(spec.name).worker.get("device", ""))
            tolerance = tolerance_of(device)
            tolerant |= tolerance > 0
            different = differences(shard, again, tolerance)
            if different:
                problems.append(_problem(spec.name, len(shard) // 2, different, run))
    notes = (f"fluxes of GPUs compared within {CUDA_TOLERANCE:.0%}",) if tolerant else ()
    return Recomputation(sum(map(len, chosen.values())), tuple(problems), notes)


def _check_unchanged(
    config: RunConfig,
    opened: Sequence[tuple[SurveyEntry, Field]],
    card: ModelCard,
    run: RunFile,
) -> None:
    parts = fingerprint_parts(config, [entry for entry, _ in opened], card.sha256)
    if fingerprint(parts) != run["fingerprint"]:
        changed = differing(run["fingerprint_of"], parts)
        raise CatalogError(f"{', '.join(changed) or 'fingerprint'} changed since the run")


def _context(config: RunConfig, card: ModelCard, run_fingerprint: str) -> RunContext:
    return RunContext(
        output=config.output,
        model=config.model,
        stamp_size=card.stamp_size,
        batch_size=config.engine.batch_size,
        masks=False,
        fingerprint=run_fingerprint,
        model_sha256=card.sha256,
        options=config.storage_options,
    )


def _specs(config: RunConfig, opened: Sequence[tuple[SurveyEntry, Field]]) -> Iterator[TileSpec]:
    def of_field(entry: SurveyEntry, field: Field) -> Iterator[TileSpec]:
        url = storage.join(config.output, "index", f"{entry.index_name()}.parquet")
        grid = TileGrid(field.shape_yx, config.tiles.size)
        index = read_index(url, config.storage_options)
        return FieldTiles(field.url, index, grid, field.n_bands).specs()

    return chain.from_iterable(of_field(entry, field) for entry, field in opened)


def _both(
    ledger: Ledger, spec: TileSpec, numbers: Rows, measurer: Measurer, context: RunContext
) -> tuple[pa.Table, pa.Table]:
    """Return rows of a tile's shard, and the same rows made again."""
    url = ledger.shard_url(spec.name)
    with storage.open_read(url, ledger.options, within=ledger.output) as file:
        whole = read_table(file)
    shard = whole.take(np.stack([2 * numbers, 2 * numbers + 1], axis=1).ravel())
    pairs = load_pairs(spec, context)
    pairs = pairs[np.flatnonzero(np.isin(pairs.blend_id, shard["blend_id"].to_numpy()))]
    meta = open_field(spec.field_url, context).meta
    found = measurer.measure(spec, pairs).measurement
    return shard, make_rows(spec.name, pairs, found, meta.bands, meta.zero_point)


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
