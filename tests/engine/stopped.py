"""A user who presses Ctrl-C."""

from __future__ import annotations

from deblend_batch.progress import ProgressMeter


class StoppedMeter(ProgressMeter):
    """A meter in whose third tile the user presses Ctrl-C."""

    def advance(self, items: int, prefix: str) -> None:
        if prefix.startswith("tiles 3/"):
            raise KeyboardInterrupt
        super().advance(items, prefix)
