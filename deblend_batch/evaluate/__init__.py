"""Metrics, baselines and reports: how good the fluxes are, against truth and against other ways.

The package is callable: ``deblend_batch.evaluate(...)`` is
:func:`deblend_batch.evaluate.evaluate.evaluate`, whichever was imported first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deblend_batch.evaluate.evaluation import Evaluation


class _CallablePackage(ModuleType):
    """Lets the package and its one public function share a name."""

    def __call__(self, **kwargs: Any) -> Evaluation:
        from deblend_batch.evaluate.evaluate import evaluate

        return evaluate(**kwargs)


sys.modules[__name__].__class__ = _CallablePackage
