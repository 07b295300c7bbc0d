"""The error of an evaluation that cannot be made."""

from __future__ import annotations

from deblend_batch.errors import UserError


class EvaluationError(UserError, ValueError):
    """A table, data set or option that an evaluation cannot use."""
