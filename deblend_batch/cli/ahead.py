"""What a run needs first, started before the command line is read (imports next to nothing).

Workers without Ray are forked from a process that imports for seconds: it does so while this one imports what
the command line and the driver need.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from deblend_batch.cluster.naming import is_named
from deblend_batch.engine.crew.fork_server import FORK_SERVER

_NO_RUN = {"--help", "--dry-run"}


class Ahead:
    """Whether something was started, which then lives to the end of this process."""

    def __init__(self) -> None:
        self._held = False

    def start(self, words: Sequence[str]) -> None:
        """Start what workers are forked from, if these words may be a run that needs it."""
        if (
            not self._held
            and words[:1] == ["run"]
            and not _NO_RUN & set(words)
            and not on_ray(words)
        ):
            self._held = True
            FORK_SERVER.hold()

    def end(self) -> None:
        """End it: the run is on Ray, and it would stay beside the driver for hours."""
        if self._held:
            self._held = False
            FORK_SERVER.release()


def on_ray(words: Sequence[str]) -> bool:
    """Tell whether these words or the environment name Ray; a config may still do so."""
    named = "--where=ray" in words or ("--where", "ray") in pairwise(words)
    return named or is_named()


AHEAD = Ahead()
"""Of this process."""
