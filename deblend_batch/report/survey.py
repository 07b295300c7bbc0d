"""What a report shows of a catalogue, gathered shard by shard in bounded memory."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.records import Receipt
from deblend_batch.catalog.schema import bands_of
from deblend_batch.errors import CatalogError, TooLargeError
from deblend_batch.parquet.file import BoundedParquet

MAG_EDGES = np.linspace(14, 30, 65)
_SAMPLE = 20_000
_EXAMPLES = 12


@dataclass
class CatalogSurvey:
    """Histograms and samples of a catalogue.

    Parameters
    ----------
    bands : list of str
        Bands of all fields, those of the first shard first.
    rows : int
        Rows seen.
    mags : dict
        Band and role to a histogram of magnitudes over :data:`MAG_EDGES`.
    sample : list of pyarrow.Table
        Rows for the scatter plots: all of a small catalogue, every n-th blend of a large one. Fluxes are of
        the first band, null in fields that do not have it.
    receipts : list of Receipt
        Of every tile.
    """

    bands: list[str]
    rows: int = 0
    mags: dict[tuple[str, str], NDArray[np.int64]] = field(default_factory=dict)
    sample: list[pa.Table] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)

    def sampled(self) -> pa.Table:
        """Return the sampled rows as one table."""
        return pa.concat_tables(self.sample)


def survey_catalog(ledger: Ledger) -> CatalogSurvey | None:
    """Read a run's shards once.

    Returns
    -------
    CatalogSurvey or None
        None where the run has no shard.
    """
    tiles = sorted(ledger.finished())
    found: CatalogSurvey | None = None
    receipts = list(ledger.read_receipts(tiles))
    step = max(1, sum(receipt.rows for receipt in receipts) // (2 * _SAMPLE))
    for receipt in receipts:
        rows = _read(ledger, receipt)
        found = found or CatalogSurvey([])
        _add(found, rows, step)
        found.receipts.append(receipt)
    return found


def _read(ledger: Ledger, receipt: Receipt) -> pa.Table:
    """Read a shard, if it has the rows that its receipt says."""
    (content,) = ledger.read_shards([receipt])
    with suppress(pa.ArrowException, OSError, TooLargeError):
        if isinstance(content, bytes) and len(content) == receipt.bytes:
            opened = BoundedParquet(io.BytesIO(content))
            if opened.n_rows == receipt.rows:
                return opened.read()
    url, output = ledger.output.shard_url(receipt.tile), ledger.output
    raise CatalogError(f"{url}: damaged; see deblend-batch verify {output}")


def _add(found: CatalogSurvey, rows: pa.Table, step: int) -> None:
    found.rows += len(rows)
    roles = np.asarray(rows["role"].to_pylist())
    bands = bands_of(rows.schema)
    found.bands += [band for band in bands if band not in found.bands]
    for band in bands:
        mag = rows[f"mag_{band}"].to_numpy()
        for role in ("central", "companion"):
            counts, _ = np.histogram(mag[(roles == role) & np.isfinite(mag)], MAG_EDGES)
            key = (band, role)
            found.mags[key] = found.mags.get(key, np.zeros(len(MAG_EDGES) - 1, np.int64)) + counts
    columns = ["ra", "dec", "x", "y", "role", "separation", "flags", "tile"]
    columns += ["blend_id", "source_id", "neighbour_id"]
    columns += [f"{kind}_{found.bands[0]}" for kind in ("flux", "flux_err", "mag")]
    which = np.cumsum(np.diff(rows["blend_id"].to_numpy(), prepend=-1) != 0) - 1
    wanted = np.flatnonzero(which % step == 0)
    taken, unknown = rows.take(pa.array(wanted)), pa.nulls(len(wanted), pa.float32())
    known = set(rows.schema.names)
    sample = {name: taken[name] if name in known else unknown for name in columns}
    found.sample.append(pa.table(sample))


def beside(rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find companions, and their nearest neighbours in the same blend.

    Returns
    -------
    tuple of two ndarray of int64, shape (k,)
        Their rows; companions whose neighbour has no row in the blend are left out.
    """
    names = ("blend_id", "source_id", "neighbour_id")
    blend, source, neighbour = (rows[name].to_numpy().tolist() for name in names)
    place = {key: row for row, key in enumerate(zip(blend, source, strict=True))}
    companions = np.flatnonzero(np.asarray(rows["role"].to_pylist()) == "companion")
    found = [place.get((blend[row], neighbour[row]), -1) for row in companions.tolist()]
    others = np.array(found, np.int64)
    return companions[others >= 0], others[others >= 0]


def choose_examples(rows: pa.Table, count: int = _EXAMPLES) -> list[dict[str, Any]]:
    """Choose blends to show: evenly spread in separation, brighter than the median, the same every time.

    Returns
    -------
    list of dict
        For each blend of k sources, 2 at least: ``tile``, ``blend_id``, ``yx`` (k, 2), ``mag`` (k,),
        ``separation``.
    """
    band = next(name for name in rows.schema.names if name.startswith("mag_"))
    mag, blends = rows[band].to_numpy(), rows["blend_id"].to_numpy()
    starts = np.flatnonzero(np.diff(blends, prepend=-1) != 0)
    sizes = np.diff(starts, append=len(blends))
    separation = rows["separation"].to_numpy()[starts]
    yx = np.stack([rows["y"].to_numpy(), rows["x"].to_numpy()], axis=-1)
    total = np.add.reduceat(mag, starts) / sizes if len(starts) else np.empty(0)
    total = np.where(np.isfinite(total) & (sizes > 1), total, np.inf)
    known = np.isfinite(total)
    if not known.any():
        return []
    bright = np.flatnonzero(total <= np.median(total[known]))
    order = bright[np.argsort(separation[bright], kind="stable")]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, count).astype(int))]
    tiles = rows["tile"].to_pylist()
    return [
        {
            "tile": tiles[starts[i]],
            "blend_id": int(blends[starts[i]]),
            "yx": yx[starts[i] : starts[i] + sizes[i]],
            "mag": mag[starts[i] : starts[i] + sizes[i]],
            "separation": float(separation[i]),
        }
        for i in chosen.tolist()
    ]
