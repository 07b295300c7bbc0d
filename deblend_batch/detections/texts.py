"""Columns of texts, whoever wrote them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from deblend_batch.detections.columns import shown
from deblend_batch.errors import DetectionsError


def trimmed(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Return texts without the blanks round them; bytes that are no text are refused."""
    try:
        return pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DetectionsError(
            f"{where}: column {shown(name)!r} holds bytes that are no text; write texts as UTF-8, "
            "or ids as integers"
        ) from error
