"""What became of every source that ever was, as a table and in numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detect.field import Columns
from deblend_batch.detections import counted
from deblend_batch.field.layout import Field
from deblend_batch.refine.rounds import Dropped
from deblend_batch.refine.sources import Sources


def provenance_of(
    found: NDArray[np.int64], sources: Sources, dropped: Sequence[Dropped], opened: Field
) -> Columns:
    """Say of every source that ever was where it came from and what became of it at last.

    Parameters
    ----------
    found : ndarray of int64, shape (n,)
        Ids of what was detected.
    sources : Sources
        Those that stand.
    dropped : sequence of Dropped
        Those that do not, round by round.
    opened : Field
        Their field.

    Returns
    -------
    dict of ndarray
        Columns of a table with a row for each id, in their order.
    """
    # A place that was given up may become a source again: what was last said of it stands first.
    last_first = [Dropped(sources, *_no_reason(len(sources))), *reversed(dropped)]
    ids = np.concatenate([each.sources.id for each in last_first])  # ``joined`` orders them
    _, rows = np.unique(ids, return_index=True)
    joined = Sources.joined([each.sources for each in last_first])
    one_each = joined[np.unique(joined.id, return_index=True)[1]]
    is_kept = rows < len(sources)
    radec = opened.pixel_to_world(one_each.yx)
    return {
        "id": one_each.id,
        "ra": radec[:, 0] % 360,
        "dec": radec[:, 1],
        "x": one_each.yx[:, 1],
        "y": one_each.yx[:, 0],
        "flux": one_each.flux.astype(np.float32),
        "flux_err": one_each.flux_err.astype(np.float32),
        "origin": np.where(np.isin(one_each.id, found), "detected", "added"),
        "fate": np.where(is_kept, "kept", "dropped"),
        "reason": np.concatenate([each.reason for each in last_first])[rows].astype("<U48"),
        "beside": np.concatenate([each.into for each in last_first])[rows],
        "round": one_each.round,
    }


def _no_reason(n: int) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    return np.full(n, ""), np.full(n, -1)


def counts_of(provenance: Columns) -> dict[str, int]:
    """Count sources by where they came from and what became of them: of a table of :func:`provenance_of`."""
    origin, fate, reason = (provenance[name] for name in ("origin", "fate", "reason"))
    why = dict(zip(*(each.tolist() for each in np.unique(reason, return_counts=True)), strict=True))
    return {
        "detected": int((origin == "detected").sum()),
        "added": int((origin == "added").sum()),
        "kept": int((fate == "kept").sum()),
        **{counted.dropped(each): n for each, n in why.items() if each},
    }
