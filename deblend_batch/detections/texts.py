"""Columns of texts, whoever wrote them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from deblend_batch.detections.columns import shown
from deblend_batch.errors import DetectionsError

NOTHING = (
    "", "NaN", "nan", "NAN", "NULL", "null", "N/A", "n/a", "NA", "<NA>", "--", "-", "...", "None", "none",
    "\\N", "INDEF", "masked",
)  # fmt: skip
"""What stands in a text for no value."""

_NUMBER = r"^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$"
_MOST_DIGITS = 40
_FORTRAN = r"^([-+]?[0-9.]+)[dD]([-+]?[0-9]+)$"
_NONE = r"^([*]+|[-+]?inf(inity)?)$"
"""What Fortran writes where a number does not fit, and C where there is none."""


def as_numbers(texts: pa.ChunkedArray) -> tuple[pa.ChunkedArray, str | None]:
    """Return the numbers that texts are, null where there is none, and the first text that is no number.

    Parameters
    ----------
    texts : pyarrow.ChunkedArray of string
        Without blanks round them.
    """
    none = pc.or_kleene(
        pc.is_in(texts, pa.array(NOTHING)), pc.match_substring_regex(texts, _NONE, ignore_case=True)
    )
    known = pc.if_else(none, pa.scalar(None, pa.string()), texts)
    known = pc.replace_substring(known, "\N{MINUS SIGN}", "-")
    known = pc.replace_substring_regex(known, _FORTRAN, r"\1E\2")
    long = pc.greater(pc.utf8_length(known), _MOST_DIGITS)
    wrong = pc.or_(long, pc.invert(pc.match_substring_regex(known, _NUMBER)))
    if pc.any(wrong).as_py():
        return texts, str(texts.filter(pc.fill_null(wrong, False))[0].as_py())
    return pc.cast(pc.utf8_ltrim(known, "+"), pa.float64()), None


def trimmed(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Return texts without the blanks round them; bytes that are no text are refused."""
    try:
        return pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DetectionsError(
            f"{where}: column {shown(name)!r} holds bytes that are no text; write texts as UTF-8, "
            "or ids as integers"
        ) from error
