"""Keys of a table of any length, of which none may repeat: found with a bounded amount of memory.

Up to :data:`HELD` keys are kept as they come. Of more, that many at a time go sorted to a temporary file, as
the differences of neighbours, packed: eight bytes a key at the most, next to nothing for keys that count up.
At the end these runs are read side by side.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch import storage

HELD = 1 << 23
"""Keys that are kept in memory: 64 MiB, three times that while they are sorted."""
_FRAME = 1 << 15
"""Keys of each run that are in memory while the runs are read side by side."""
_CODEC = "zstd"

Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Repeated:
    """Keys that occur more than once: how many there are, one of them, and whether all have been counted."""

    n: int
    first: int
    all_counted: bool = True


def find_repeated(keys: Keys, *, all_counted: bool = True) -> Repeated | None:
    """Find the keys of an array that occur more than once, and the first of them in its order."""
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return None
    return Repeated(len(repeated), int(keys[np.isin(keys, repeated).argmax()]), all_counted)


@dataclass(frozen=True)
class _Frame:
    """Some keys of a run: where they stand in the file, their bytes there, their number."""

    start: int
    size: int
    n: int


class UniqueKeys:
    """Takes the keys of a table part by part, and finds those that repeat."""

    def __init__(self) -> None:
        self._parts: list[Keys] = []
        self._runs: list[list[_Frame]] = []
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()

    def add(self, keys: Keys) -> Repeated | None:
        """Take the keys of the next part; return what repeats in the one before, or among many parts."""
        found = find_repeated(self._parts[-1], all_counted=False) if self._parts else None
        self._parts.append(keys)
        if found is None and sum(map(len, self._parts)) >= HELD:
            found = self._spill()
        return found

    def finish(self) -> Repeated | None:
        """Return what repeats in all parts."""
        if self._file is None:
            return find_repeated(self._joined())
        if (found := self._spill()) is not None:
            return found
        n, first = 0, 0
        for keys in self._merged(self._file):
            repeated = keys[1:][keys[1:] == keys[:-1]]
            if n == 0 and len(repeated):
                first = int(repeated[0])
            n += len(np.unique(repeated))
        return Repeated(n, first) if n else None

    def _joined(self) -> Keys:
        return np.concatenate([np.empty(0, np.int64), *self._parts])

    def _spill(self) -> Repeated | None:
        """Put what is held into a run of its own, if nothing in it repeats."""
        held = self._joined()
        self._parts = []
        held.sort()
        if (held[1:] == held[:-1]).any():
            return find_repeated(held, all_counted=False)
        try:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115  # closed at the exit
            self._runs.append([self._write(self._file, frame) for frame in _frames(held)])
        except OSError as error:
            raise storage.translate(tempfile.gettempdir(), error, writing=True) from error
        return None

    @staticmethod
    def _write(file: BinaryIO, keys: Keys) -> _Frame:
        """Write sorted keys behind all others."""
        steps = np.diff(keys.view(np.uint64), prepend=np.uint64(0))  # wraps, and back again
        packed = pa.compress(steps.tobytes(), _CODEC, asbytes=True)
        start = file.seek(0, os.SEEK_END)
        file.write(packed)
        return _Frame(start, len(packed), len(keys))

    @staticmethod
    def _read(file: BinaryIO, run: list[_Frame]) -> Iterator[Keys]:
        for frame in run:
            file.seek(frame.start)
            packed = file.read(frame.size)
            steps = np.frombuffer(
                pa.decompress(packed, 8 * frame.n, _CODEC, asbytes=True), np.uint64
            )
            yield np.cumsum(steps, dtype=np.uint64).view(np.int64)

    def _merged(self, file: BinaryIO) -> Iterator[Keys]:
        """Yield all keys sorted, so that equal ones come together."""
        runs = [self._read(file, run) for run in self._runs if run]
        heads = [next(run) for run in runs]
        while heads:
            limit = min(keys[-1] for keys in heads)
            stops = [int(np.searchsorted(keys, limit, "right")) for keys in heads]
            yield np.sort(
                np.concatenate([keys[:stop] for keys, stop in zip(heads, stops, strict=True)])
            )
            left = [keys[stop:] for keys, stop in zip(heads, stops, strict=True)]
            refilled = [
                (keys if len(keys) else next(run, None), run)
                for keys, run in zip(left, runs, strict=True)
            ]
            heads = [keys for keys, _ in refilled if keys is not None]
            runs = [run for keys, run in refilled if keys is not None]


def _frames(keys: Keys) -> Iterator[Keys]:
    return (keys[start : start + _FRAME] for start in range(0, len(keys), _FRAME))
