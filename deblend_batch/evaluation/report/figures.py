"""The figures of the seed work: each function returns a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from deblend_batch.evaluation.curves import Curve
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.metrics import OUTLIER_MAG, Metrics, magnitude_offset
from deblend_batch.evaluation.report.axes import legend_above, scale_log, scale_medians
from deblend_batch.evaluation.report.styles import MethodStyle
from deblend_batch.evaluation.scores import IOU_BINS, Score
from deblend_batch.evaluation.tables import magnitudes, percent
from deblend_batch.pages.plotting import png, style

LEAST_IN_BIN = 5
"""Bins with fewer members are not drawn."""

Styles = Mapping[str, MethodStyle]

_DIFFERENCE_LABEL = "true mag central − mag companion"
_CELLS = 80
_FULL_CELL = 10  # members that make a cell darkest, where none has more


def recovered_against_true(
    members: Members, recovered: Recovered, metrics: Metrics, look: MethodStyle
) -> bytes:
    """Draw recovered against true magnitude, with the numbers in the corner.

    Returns
    -------
    bytes
        PNG. Points beyond the axes are drawn at their edge.
    """
    role = "central" if members.is_central.all() else "companion"
    mag = members.mag + magnitude_offset(recovered.flux, members.flux)
    low, high = np.floor(members.mag.min()) - 0.5, np.ceil(members.mag.max()) + 1.0
    with style():
        figure = Figure(figsize=(5.0, 4.3), layout="constrained")
        axes = figure.add_subplot(title=f"{recovered.method}, {role}")
        known, extent = np.isfinite(mag), (low, high, low, high)
        if known.any():
            _density(axes, members.mag[known], np.clip(mag[known], low, high), look, extent)
        line = np.array([low, high])
        axes.plot(line, line, color="#1b2430", lw=0.9)
        for side in (-OUTLIER_MAG, OUTLIER_MAG):
            axes.plot(line, line + side, color="#5a6675", lw=0.8, ls=(0, (4, 3)))
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set(xlabel="true magnitude (AB)", ylabel="recovered magnitude (AB)")
        # Flux is lost rather than gained by magnitudes: few points come to this corner.
        box: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "bottom"}
        axes.text(0.98, 0.03, _summary(metrics), fontsize=9.5, bbox=box, **place)
        return png(figure)


def _density(axes: Any, x: Any, y: Any, look: MethodStyle, extent: tuple[float, ...]) -> None:
    shades = [_tint(look.colour), look.colour, "#10151c"]
    colours = LinearSegmentedColormap.from_list("method", shades)
    cells = axes.hexbin(x, y, gridsize=_CELLS, mincnt=1, cmap=colours, extent=extent, lw=0.1)
    most = max(_FULL_CELL, int(np.max(cells.get_array())))
    cells.set_norm(LogNorm(vmin=1, vmax=most))
    bar = axes.figure.colorbar(cells, ax=axes, shrink=0.6, aspect=22, pad=0.02)
    bar.set_label("members per cell", fontsize=9.5)
    bar.set_ticks([count for count in (1, 3, 10, 30, 100, 300, 1000, 10_000) if count <= most])
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:.0f}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _tint(colour: str) -> str:
    """Return a colour that is half way to white."""
    return to_hex([0.5 + 0.5 * part for part in to_rgb(colour)])


def _summary(metrics: Metrics) -> str:
    lines = [
        f"bias {magnitudes(metrics.bias, signed=True)} mag",
        f"sigma {magnitudes(metrics.sigma)} mag",
        f"outliers {percent(metrics.outlier_fraction)}",
        f"flux MAPE {percent(metrics.flux_mape)}",
        f"undetected {percent(metrics.undetected_fraction)}",
    ]
    return "\n".join(lines)


def curves_of_methods(scores: Sequence[Score], role: str, styles: Styles) -> bytes:
    """Draw median and scatter of dmag against the difference of magnitudes, all types together.

    Returns
    -------
    bytes
        PNG of two panels, (median above, scatter below).
    """
    with style():
        figure = Figure(figsize=(4.8, 5.6), layout="constrained")
        median, sigma = figure.subplots(2, 1, sharex=True)
        median.set_title(f"{role}, all types")
        for score in scores:
            look = styles[score.method]
            _curve(median, score.curves[role]["all"], "median", look, score.method)
            _curve(sigma, score.curves[role]["all"], "sigma", look, score.method)
        scale_medians([median], [median])
        scale_log([sigma], [sigma])
        sigma.set_ylabel("sigma of dmag (mag)")
        sigma.set_xlabel(_DIFFERENCE_LABEL)
        legend_above(figure, median)
        return png(figure)


def curves_by_type(scores: Sequence[Score], role: str, quantity: str, styles: Styles) -> bytes:
    """Draw one quantity against the difference of magnitudes, a panel for each type.

    Parameters
    ----------
    scores : sequence of Score
        The methods.
    role : str
        ``"central"`` or ``"companion"``.
    quantity : str
        ``"median"`` or ``"sigma"``.
    styles : mapping of str to MethodStyle
        Of each method.

    Returns
    -------
    bytes
        PNG.
    """
    kinds = [kind for kind in scores[0].curves[role] if kind != "all"]
    rows = -(-len(kinds) // 2)
    with style():
        figure = Figure(figsize=(5.2, 0.9 + 2.4 * rows), layout="constrained")
        grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
        for axes, kind in zip(grid.flat, kinds, strict=False):
            axes.set_title(f"{role}, {kind}")
            for score in scores:
                look = styles[score.method]
                _curve(axes, score.curves[role][kind], quantity, look, score.method)
        for axes in grid.flat[len(kinds) :]:
            axes.set_visible(False)
        first = list(grid[:, 0])
        (scale_medians if quantity == "median" else scale_log)(first, list(grid.flat))
        if quantity == "sigma":
            for axes in first:
                axes.set_ylabel("sigma of dmag (mag)")
        figure.supxlabel(_DIFFERENCE_LABEL, fontsize=11)
        legend_above(figure, grid[0, 0])
        return png(figure)


def _curve(axes: Any, curve: Curve, quantity: str, look: MethodStyle, label: str) -> None:
    values = np.where(curve.n >= LEAST_IN_BIN, getattr(curve, quantity), np.nan)
    axes.plot(
        curve.centres, values, color=look.colour, marker=look.marker, ls=look.line, label=label
    )
    axes.set(xlim=(curve.edges[0], curve.edges[-1]), xticks=(-1, 0, 1))


def iou_histogram(scores: Sequence[Score], role: str, styles: Styles) -> bytes:
    """Draw the distribution of the masks' intersection over union.

    Returns
    -------
    bytes
        PNG.
    """
    edges = np.linspace(0, 1, IOU_BINS + 1)
    with style():
        figure = Figure(figsize=(4.8, 3.8), layout="constrained")
        axes = figure.add_subplot(title=role)
        for rank, score in enumerate(each for each in scores if each.iou is not None):
            if score.iou is None:
                continue
            look, mean = styles[score.method], getattr(score.iou, role)
            counts = score.iou.histograms[role]
            label = f"{score.method}, mean {mean:.3f}"
            # The first is filled, so that a histogram that is nearly the same is seen on top of it.
            if rank == 0:
                axes.stairs(
                    100 * counts / counts.sum(), edges, color=look.colour, fill=True, alpha=0.3
                )
            axes.stairs(100 * counts / counts.sum(), edges, color=look.colour, lw=1.8, label=label)
            axes.axvline(mean, color=look.colour, lw=1.2, ls=(3 * rank, (3, 3)))
        axes.set(xlabel="IoU of a member's mask", ylabel="members (%)", xlim=(0, 1), ylim=(0, None))
        axes.legend(loc="upper left")
        return png(figure)
