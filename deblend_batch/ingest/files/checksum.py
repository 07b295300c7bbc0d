"""``DATASUM``, the sum that a FITS file states of an HDU's data: whether they are still what was written."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from deblend_batch.errors import FieldError
from deblend_batch.fits_structure import Unit

_PIECE_BYTES = 1 << 22
_WORD = (1 << 32) - 1


def check_datasum(file: BinaryIO, unit: Unit, stated: object, label: str) -> None:
    """Refuse data that do not fit the sum which their header states; one that is no number states nothing.

    Parameters
    ----------
    file : file object
        Seekable.
    unit : Unit
        The HDU.
    stated : object
        Its ``DATASUM``.
    label : str
        The HDU, for the message.
    """
    text = str(stated).strip()
    if not text.isdecimal():
        return
    found = _datasum(file, unit)
    if found != int(text):
        raise FieldError(
            f"{label}: its data do not fit its DATASUM ({text}, found {found}): they were damaged, or "
            "changed without the sum; fetch the file again, or say that it is meant with --ignore-checksum"
        )


def _datasum(file: BinaryIO, unit: Unit) -> int:
    """Return the ones' complement sum of the data's words of 32 bits; a block's fill is part of them."""
    file.seek(unit.data_start)
    left, total = unit.stop - unit.data_start, 0
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        left -= len(piece)
        total += int(np.frombuffer(piece + bytes(-len(piece) % 4), ">u4").sum(dtype=np.uint64))
    while total > _WORD:
        total = (total & _WORD) + (total >> 32)
    return total
