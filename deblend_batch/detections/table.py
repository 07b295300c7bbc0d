"""Detections: the sources of a field, one row each, whatever the table they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detections import columns as cols
from deblend_batch.detections.formats import scan_table
from deblend_batch.detections.unique import Repeated, find_repeated
from deblend_batch.errors import DetectionsError
from deblend_batch.storage import Options


@dataclass(frozen=True)
class Detections:
    """Sources as columns; row ``i`` of each array is source ``i``.

    Parameters
    ----------
    id : ndarray of int64, shape (n,)
        Unique in the whole table.
    ra, dec : ndarray of float64, shape (n,)
        ICRS degrees; NaN where unknown.
    yx : ndarray of float64, shape (n, 2), or None
        Pixel positions (y, x), 0-based pixel centres; None where the table gives sky positions.
    mag : ndarray of float32, shape (n,)
        AB magnitude; NaN where unknown.
    radius_arcsec : ndarray of float32, shape (n,)
        Half-light radius; NaN where unknown.
    """

    id: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    yx: NDArray[np.float64] | None
    mag: NDArray[np.float32]
    radius_arcsec: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Detections:
        return Detections(
            id=self.id[rows],
            ra=self.ra[rows],
            dec=self.dec[rows],
            yx=None if self.yx is None else self.yx[rows],
            mag=self.mag[rows],
            radius_arcsec=self.radius_arcsec[rows],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """Join parts of one table.

        Parameters
        ----------
        parts : sequence of Detections
            All with pixel positions, or none.
        """
        if not parts:
            nothing = np.empty(0)
            small = np.empty(0, np.float32)
            return cls(np.empty(0, np.int64), nothing, nothing, None, small, small)

        def joined(name: str) -> NDArray[np.generic]:
            return np.concatenate([getattr(part, name) for part in parts])

        columns = {f.name: joined(f.name) for f in fields(cls) if f.name != "yx"}
        yx = None if parts[0].yx is None else joined("yx")
        return cls(yx=yx, **columns)  # type: ignore[arg-type]  # each as its field says


def read_detections(
    url: str, columns: Mapping[str, str] | None = None, options: Options | None = None
) -> Iterator[Detections]:
    """Read a detection table, part by part.

    Parameters
    ----------
    url : str
        Any table that :func:`deblend_batch.detections.formats.scan_table` reads.
    columns : mapping, optional
        Names in the table of ``id``, ``ra``, ``dec``, ``x``, ``y``, ``mag``, ``radius``; those not
        named are looked for under these names, upper or lower case.
    options : mapping, optional
        fsspec storage options.

    Yields
    ------
    Detections
        At least one, which may be empty. Where the table has sky and pixel positions the sky
        counts, unless ``columns`` names ``x`` and ``y`` alone. Masked and null values are NaN;
        units are converted where the table states them.
    """
    mapping = columns or {}
    cols.check_mapping(mapping, cols.DETECTION_COLUMNS, url)
    found: dict[str, str] = {}

    def choose(names: Sequence[str]) -> list[str]:
        found.clear()  # each file of a folder has its own names
        found.update(cols.resolve_detections(names, mapping, url))
        return list(dict.fromkeys(found.values()))

    for part in scan_table(url, choose, options):
        ids = cols.integers(part, found["id"], "id", url)
        numbers = {
            ours: cols.floats(part, theirs, ours, url)
            for ours, theirs in found.items()
            if ours != "id"
        }
        yield _detections(ids, numbers)


def read_pairs_table(
    url: str, columns: Mapping[str, str] | None = None, options: Options | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Read a table of pre-detected pairs, part by part.

    Parameters
    ----------
    url : str
        Any table that :func:`deblend_batch.detections.formats.scan_table` reads.
    columns : mapping, optional
        Names in the table of ``central_id`` and ``companion_id``.
    options : mapping, optional
        fsspec storage options.

    Yields
    ------
    central_id, companion_id : ndarray of int64, shape (n,)
        Detection ids; at least once, which may be of no pair.
    """
    mapping = columns or {}
    cols.check_mapping(mapping, cols.PAIR_COLUMNS, url)
    found: dict[str, str] = {}

    def choose(names: Sequence[str]) -> list[str]:
        for ours in cols.PAIR_COLUMNS:
            theirs = cols.find_column(names, ours, mapping, url)
            if theirs is None:
                raise cols.missing_column(names, ours, url)
            found[ours] = theirs
        return list(found.values())

    for part in scan_table(url, choose, options):
        central, companion = (
            cols.integers(part, found[ours], ours, url) for ours in cols.PAIR_COLUMNS
        )
        _check_pairs(central, companion, url)
        yield central, companion


def check_unique(ids: NDArray[np.int64], url: str) -> None:
    """Refuse a table whose ids repeat.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
        All ids of the table.
    url : str
        The table, for the message.
    """
    if (found := find_repeated(ids)) is not None:
        raise repeated_ids(found, url)


def repeated_ids(found: Repeated, url: str) -> DetectionsError:
    """Return the error for a table whose ids repeat."""
    n = f"{found.n}" if found.all_counted else f"at least {found.n}"
    return DetectionsError(
        f"{url}: {n} values of column 'id' occur more than once, the first is {found.first}; "
        "give every source its own id"
    )


def repeated_pairs(n: int, first: tuple[int, int], url: str) -> DetectionsError:
    """Return the error for a table whose pairs repeat."""
    return DetectionsError(
        f"{url}: {n} pairs occur more than once, the first is {first}; keep one row of each"
    )


def _detections(ids: NDArray[np.int64], numbers: Mapping[str, NDArray[np.float64]]) -> Detections:
    unknown = np.full(len(ids), np.nan)
    return Detections(
        id=ids,
        ra=numbers.get("ra", unknown),
        dec=numbers.get("dec", unknown),
        yx=np.stack([numbers["y"], numbers["x"]], axis=1) if "x" in numbers else None,
        mag=numbers.get("mag", unknown).astype(np.float32),
        radius_arcsec=numbers.get("radius", unknown).astype(np.float32),
    )


def _check_pairs(central: NDArray[np.int64], companion: NDArray[np.int64], url: str) -> None:
    same = central == companion
    if same.any():
        raise DetectionsError(
            f"{url}: {int(same.sum())} pairs join a source with itself, the first is "
            f"{central[same.argmax()]}; remove them"
        )
    low, high = np.minimum(central, companion), np.maximum(central, companion)
    order = np.lexsort((high, low))
    ordered = np.stack([low[order], high[order]], axis=1)
    same_as_before = (ordered[1:] == ordered[:-1]).all(axis=1)
    repeated = np.unique(ordered[1:][same_as_before], axis=0)
    if len(repeated):
        first, second = repeated[0].tolist()
        raise repeated_pairs(len(repeated), (first, second), url)
