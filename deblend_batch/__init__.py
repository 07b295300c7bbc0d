"""Survey-scale separation of overlapping galaxies.

Dask tiles survey images stored in Zarr into stamps of pre-detected pairs; Ray actors run torch models on
them; catalogue shards come out. See ``docs/architecture.md``.
"""

from __future__ import annotations

from deblend_batch.version import __version__

# Nothing of the standard library: `python -m deblend_batch` comes here with the working folder on its path,
# where a file may be called typing.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from deblend_batch.engine.run import process_field
    from deblend_batch.evaluation.evaluate import evaluate
    from deblend_batch.models import load_model

__all__ = ["__version__", "evaluate", "load_model", "process_field"]

_HOMES = {
    "evaluate": "deblend_batch.evaluation.evaluate",
    "load_model": "deblend_batch.models",
    "process_field": "deblend_batch.engine.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
