"""From what was measured of a tile's blends to their rows of the catalogue."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.catalog.shard import Measurement, make_rows
from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_carried, open_field
from deblend_batch.tiling.blends import Blends


def catalogue_rows(
    spec: TileSpec,
    blends: Blends,
    chosen: NDArray[np.int64],
    measurement: Measurement,
    context: RunContext,
) -> pa.Table:
    """Make the rows of some of a tile's blends, in their order; the measurement is of these."""
    opened, some = open_field(spec.field_url, context), blends[chosen]
    carried = load_carried(spec, blends.width, context)
    return make_rows(
        spec.name,
        some,
        measurement,
        opened.meta,
        context.model_name,
        opened.pixel_scale_arcsec,
        None if carried is None else carried.measured(chosen, some.is_measured),
    )
