"""One target's fuzzing, in a process of its own: ``python -m tests.fuzz.worker NAME SECONDS SEED FOLDER``.

Before each execution the content stands in the folder, so that whoever watches the process knows what it was
doing when it grew too large, or did not come back.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
import warnings
from pathlib import Path
from types import FrameType

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.mutations import altered
from tests.fuzz.targets import TARGETS, execute

MOST_SECONDS = 10
MOST_BYTES = 400_000_000
"""What one execution may add to the memory of the process."""
_EXAMPLES = 100


class TooSlowError(AssertionError):
    """An execution that takes longer than any small file may."""


class _Fuzzing:
    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir(parents=True)
        self.seeds = TARGETS[name].seeds(self.scratch)
        self.executions = self.accepted = 0
        self.last = b""

    def once(self, content: bytes) -> None:
        """Read one content, under limits of time and memory."""
        self.last = content
        (self.folder / "doing").write_bytes(content)
        self.executions += 1
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        signal.alarm(MOST_SECONDS)
        try:
            self.accepted += execute(self.name, content, self.scratch)
        finally:
            signal.alarm(0)
        grew = _resident("VmHWM") - before
        assert grew < MOST_BYTES, f"took {grew:,} bytes for a file of {len(content):,}"

    def rounds(self, seconds: float, seed: int) -> None:
        """Go on until the time is over, or something is found."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            seed += 1

            @hypothesis.seed(seed)
            @settings(
                max_examples=_EXAMPLES,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            )
            @given(altered(self.seeds, TARGETS[self.name].alterations))
            def some(content: bytes) -> None:
                if time.monotonic() < ends:
                    self.once(content)

            some()


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"took more than {MOST_SECONDS} s")


def main() -> None:
    """Fuzz one target; report what was done and found in ``report.json`` of the folder."""
    name, seconds, seed, folder = (
        sys.argv[1],
        float(sys.argv[2]),
        int(sys.argv[3]),
        Path(sys.argv[4]),
    )
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _too_slow)
    fuzzing = _Fuzzing(name, folder)
    found = ""
    try:
        for content in fuzzing.seeds:
            fuzzing.once(content)
        assert fuzzing.accepted == len(fuzzing.seeds), "a valid file is refused"
        fuzzing.rounds(seconds, seed)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
        found = f"{type(error).__name__}: {error}"[:2000]
        (folder / "finding").write_bytes(fuzzing.last)
    report = {"executions": fuzzing.executions, "accepted": fuzzing.accepted, "found": found}
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
