"""Scales, ticks and legends that the evaluation's figures share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

_MEDIAN_TICKS = (-3.0, -1.0, -0.3, -0.1, -0.05, 0.0, 0.05, 0.1, 0.3, 1.0, 3.0)
_LINEAR_MAG = 0.1
_TICKS_BY_DECADES = (
    (0.8, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)),
    (2.3, (1.0, 2.0, 5.0)),
    (3.2, (1.0, 3.0)),
    (np.inf, (1.0,)),
)


def drawn_values(axes: Any) -> NDArray[np.float64]:
    """Return the finite y values of all lines of a panel, shape (n,)."""
    values: NDArray[np.float64] = np.concatenate(
        [np.empty(0), *(np.asarray(line.get_ydata(), np.float64) for line in axes.get_lines())]
    )
    return values[np.isfinite(values)]


def scale_medians(labelled: Sequence[Any], sharing: Iterable[Any]) -> None:
    """Make y axes linear near zero and logarithmic beyond."""
    reach = 1.1 * _LINEAR_MAG
    for axes in sharing:
        reach = max(reach, 1.25 * float(np.abs(drawn_values(axes)).max(initial=0.0)))
        axes.axhline(0, color="#1b2430", lw=0.9, zorder=1)
    for axes in labelled:
        axes.set_yscale("symlog", linthresh=_LINEAR_MAG, linscale=1.0)
        axes.set_yticks([tick for tick in _MEDIAN_TICKS if abs(tick) <= reach])
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:+.2g}".replace("-", "−") if value else "0")
        )
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(ylim=(-reach, reach), ylabel="median dmag (mag)")


def scale_log(labelled: Sequence[Any], sharing: Iterable[Any]) -> None:
    """Make y axes logarithmic with readable ticks, where they show anything positive."""
    values = np.concatenate([np.empty(0), *(drawn_values(axes) for axes in sharing)])
    values = values[values > 0]
    if len(values) == 0:
        return
    low, high = float(values.min()) / 1.25, float(values.max()) * 1.25
    ticks = _log_ticks(low, high)
    for axes in labelled:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round values in a range: the more, the shorter it is."""
    decades = np.log10(high / low)
    digits = next(digits for most, digits in _TICKS_BY_DECADES if decades < most)
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [digit * 10.0**exponent for exponent in exponents for digit in digits]
    return [tick for tick in ticks if low <= tick <= high]


def legend_above(figure: Any, axes: Any) -> None:
    """Name a panel's lines above the figure, off the data."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
