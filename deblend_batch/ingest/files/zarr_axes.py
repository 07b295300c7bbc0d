"""Which axes of a stranger's array are y and x, and which counts the bands (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Y = frozenset(
    {"y", "yc", "ypix", "y_pixel", "row", "rows", "dec", "decl", "declination", "lat", "latitude", "j", "m"}
)  # fmt: skip
_X = frozenset(
    {"x", "xc", "xpix", "x_pixel", "col", "cols", "column", "columns", "ra", "right_ascension", "lon",
     "longitude", "i", "l"}
)  # fmt: skip
"""Names of axes; l and m are the direction cosines of radio images."""
_MOST_BANDS = 1000
_FEW = 16
_NAMES = "in dimension_names, or the attribute _ARRAY_DIMENSIONS"


@dataclass(frozen=True)
class Axes:
    """The axes of an image.

    Parameters
    ----------
    n : int
        How many there are; what is none of the three has one element.
    y, x : int
        Their numbers.
    band : int, optional
        Number of the axis of bands; None where there is one band.
    """

    n: int
    y: int
    x: int
    band: int | None = None

    @classmethod
    def of(cls, shape: Sequence[int], names: Sequence[str | None]) -> Axes:
        """Find the axes of an array.

        Parameters
        ----------
        shape : sequence of int
            Of the array.
        names : sequence of str or None
            Of its axes, as the array calls them; none if empty.

        Raises
        ------
        ValueError
            If the array is no image, or nobody can tell which axes are which; the message ends a sentence
            that names the array.
        """
        n = len(shape)
        if n < 2 or 0 in shape:
            raise ValueError(f"has shape {tuple(shape)}; it must be (y, x) or (band, y, x)")
        y, x = _places(n, names)
        others = [axis for axis in range(n) if axis not in {y, x} and shape[axis] > 1]
        if len(others) > 1 or any(shape[axis] > _MOST_BANDS for axis in others):
            raise ValueError(f"has shape {tuple(shape)}; it must be (y, x) or (band, y, x)")
        if others and not _known(names) and shape[-1] <= _FEW < shape[others[0]]:
            raise ValueError(
                f"has shape {tuple(shape)}, which seems to be (y, x, band); store it as (band, y, x), or "
                f"name its axes {_NAMES}"
            )
        return cls(n, y, x, others[0] if others else None)

    @property
    def is_field_s(self) -> bool:
        """Whether they are those of a field: (y, x) or (band, y, x)."""
        return self.n in {2, 3} and (self.y, self.x) == (self.n - 2, self.n - 1)

    def n_bands(self, shape: Sequence[int]) -> int:
        """Return the number of bands."""
        return 1 if self.band is None else int(shape[self.band])

    def key(self, band: int, rows: slice, columns: slice) -> tuple[int | slice, ...]:
        """Return the index of a window of a band."""
        index: list[int | slice] = [0] * self.n
        index[self.y], index[self.x] = rows, columns
        if self.band is not None:
            index[self.band] = band
        return tuple(index)

    def as_image(self, window: NDArray[Any]) -> NDArray[Any]:
        """Return what an index gave as (y, x)."""
        return window.T if self.y > self.x else window


def _known(names: Sequence[str | None]) -> bool:
    """Tell whether both y and x are among the names."""
    return _numbers(names, _Y) != [] and _numbers(names, _X) != []


def _numbers(names: Sequence[str | None], meaning: frozenset[str]) -> list[int]:
    return [axis for axis, name in enumerate(names) if name and name.strip().lower() in meaning]


def _places(n: int, names: Sequence[str | None]) -> tuple[int, int]:
    """Return the numbers of y and x: by name, else the last two."""
    y, x = (_numbers(names, meaning) for meaning in (_Y, _X))
    if len(names) == n and len(y) == len(x) == 1:
        return y[0], x[0]
    usual = n - 2, n - 1
    if len(names) not in {0, n} or not set(y) <= {usual[0]} or not set(x) <= {usual[1]}:
        raise ValueError(
            f"calls its axes {', '.join(map(str, names))[:80]}, and which are y and x nobody can tell; call "
            f"two of them y and x {_NAMES}"
        )
    return usual


def without_numbers(window: NDArray[Any], numbers: Sequence[float]) -> NDArray[Any]:
    """Return a window of floats with NaN for numbers that say "no data"."""
    if not numbers:
        return window
    return np.where(
        np.isin(window, np.array(numbers, window.dtype)), window.dtype.type(np.nan), window
    )
