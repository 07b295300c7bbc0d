"""What has become of the blends and tiles of a run, as numbers; who only looks at a run imports no more."""

from __future__ import annotations

from dataclasses import dataclass

from deblend_batch.catalog.records import Counts


@dataclass
class Count:
    """Blends, or tiles, by what has become of them."""

    expected: int = 0
    written: int = 0
    quarantined: int = 0

    @property
    def pending(self) -> int:
        """Those that are neither written nor in quarantine; 0 at the end of a run."""
        return self.expected - self.written - self.quarantined

    def __add__(self, other: Count) -> Count:
        return Count(
            self.expected + other.expected,
            self.written + other.written,
            self.quarantined + other.quarantined,
        )

    def to_dict(self) -> Counts:
        """Return the counts as JSON-able values; ``expected`` is the sum of the others."""
        return {
            "expected": self.expected,
            "written": self.written,
            "quarantined": self.quarantined,
            "pending": self.pending,
        }


def count_held(n_blends: int, listed: int, *, written: bool) -> int:
    """Count the blends of a tile that stand in quarantine."""
    return listed if (listed == n_blends) != written else 0
