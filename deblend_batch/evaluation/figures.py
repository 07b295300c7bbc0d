"""The figures of an evaluation: each function returns a PNG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from deblend_batch.evaluation.curves import Curve
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.metrics import OUTLIER_MAG, Metrics, magnitude_error
from deblend_batch.evaluation.scores import IOU_BINS, Score
from deblend_batch.evaluation.tables import magnitudes, percent
from deblend_batch.pages.plotting import MARKERS, PALETTE, png, style

_LEAST_IN_BIN = 5
_MEDIAN_TICKS = (-1.0, -0.3, -0.1, -0.05, 0.0, 0.05, 0.1, 0.3, 1.0)
_LINEAR_MAG = 0.1
_DIFFERENCE_LABEL = "mag central − mag companion"


def recovered_against_true(
    members: Members, recovered: Recovered, metrics: Metrics, index: int
) -> bytes:
    """Draw recovered against true magnitude, with the numbers in the corner.

    Parameters
    ----------
    members : Members
        The truth of one role.
    recovered : Recovered
        The same rows of one method.
    metrics : Metrics
        Of these rows.
    index : int
        Place of the method in the evaluation: decides its colour.

    Returns
    -------
    bytes
        PNG. Points beyond the axes are drawn at their edge.
    """
    role = "central" if members.is_central.all() else "companion"
    mag = members.mag + magnitude_error(recovered.flux, members.flux)
    low, high = np.floor(members.mag.min()) - 0.5, np.ceil(members.mag.max()) + 1.0
    with style():
        figure = Figure(figsize=(4.8, 4.3), layout="constrained")
        axes = figure.add_subplot(title=f"{recovered.method}, {role}")
        known, extent = np.isfinite(mag), (low, high, low, high)
        if known.any():
            _density(axes, members.mag[known], np.clip(mag[known], low, high), index, extent)
        line = np.array([low, high])
        axes.plot(line, line, color="#1b2430", lw=0.9)
        for side in (-OUTLIER_MAG, OUTLIER_MAG):
            axes.plot(line, line + side, color="#5a6675", lw=0.8, ls=(0, (4, 3)))
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set(xlabel="true magnitude (AB)", ylabel="recovered magnitude (AB)")
        axes.text(0.04, 0.96, _summary(metrics), transform=axes.transAxes, va="top", fontsize=9.5)
        return png(figure)


def _density(axes: Any, x: Any, y: Any, index: int, extent: tuple[float, ...]) -> None:
    colour = PALETTE[index % len(PALETTE)]
    colours = LinearSegmentedColormap.from_list("method", [_tint(colour), colour, "#10151c"])
    axes.hexbin(
        x, y, gridsize=80, mincnt=1, norm=LogNorm(vmin=1), cmap=colours, extent=extent, lw=0.1
    )


def _tint(colour: str) -> str:
    """Return a colour that is half way to white."""
    return to_hex([0.5 + 0.5 * part for part in to_rgb(colour)])


def _summary(metrics: Metrics) -> str:
    lines = [
        f"bias {magnitudes(metrics.bias, signed=True)} mag",
        f"sigma {magnitudes(metrics.sigma)} mag",
        f"outliers {percent(metrics.outlier_fraction)}",
        f"flux MAPE {percent(metrics.flux_mape)}",
    ]
    if metrics.n_undetected:
        lines.append(f"undetected {percent(metrics.undetected_fraction)}")
    return "\n".join(lines)


def curves_of_methods(scores: Sequence[Score], role: str) -> bytes:
    """Draw median and scatter of dmag against the difference of magnitudes, all types together.

    Parameters
    ----------
    scores : sequence of Score
        The methods.
    role : str
        ``"central"`` or ``"companion"``.

    Returns
    -------
    bytes
        PNG of two panels, (median above, scatter below).
    """
    with style():
        figure = Figure(figsize=(4.8, 5.6), layout="constrained")
        median, sigma = figure.subplots(2, 1, sharex=True)
        median.set_title(f"{role}, all types")
        for index, score in enumerate(scores):
            _curve(median, score.curves[role]["all"], "median", index, score.method)
            _curve(sigma, score.curves[role]["all"], "sigma", index, score.method)
        _median_axes([median])
        _sigma_axes([sigma])
        sigma.set_xlabel(_DIFFERENCE_LABEL)
        _legend_above(figure, median)
        return png(figure)


def curves_by_type(scores: Sequence[Score], role: str, quantity: str) -> bytes:
    """Draw one quantity against the difference of magnitudes, a panel for each type.

    Parameters
    ----------
    scores : sequence of Score
        The methods.
    role : str
        ``"central"`` or ``"companion"``.
    quantity : str
        ``"median"`` or ``"sigma"``.

    Returns
    -------
    bytes
        PNG.
    """
    kinds = [kind for kind in scores[0].curves[role] if kind != "all"]
    rows = -(-len(kinds) // 2)
    with style():
        figure = Figure(figsize=(5.2, 0.8 + 2.2 * rows), layout="constrained")
        grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
        for axes, kind in zip(grid.flat, kinds, strict=False):
            axes.set_title(f"{role}, {kind}")
            for index, score in enumerate(scores):
                _curve(axes, score.curves[role][kind], quantity, index, score.method)
        for axes in grid.flat[len(kinds) :]:
            axes.set_visible(False)
        (_median_axes if quantity == "median" else _sigma_axes)(list(grid[:, 0]), grid.flat)
        figure.supxlabel(_DIFFERENCE_LABEL, fontsize=11)
        _legend_above(figure, grid[0, 0])
        return png(figure)


def _curve(axes: Any, curve: Curve, quantity: str, index: int, label: str) -> None:
    values = np.where(curve.n >= _LEAST_IN_BIN, getattr(curve, quantity), np.nan)
    colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
    axes.plot(curve.centres, values, color=colour, marker=marker, label=label)


def _median_axes(labelled: Sequence[Any], sharing: Iterable[Any] | None = None) -> None:
    """Scale the axes of medians: linear near zero, logarithmic beyond; all that share the scale."""
    reach = _LINEAR_MAG
    for axes in labelled if sharing is None else sharing:
        values = _drawn(axes)
        reach = max(reach, 1.3 * float(np.abs(values).max(initial=0.0)))
        axes.axhline(0, color="#1b2430", lw=0.9)
    for axes in labelled:
        axes.set_yscale("symlog", linthresh=_LINEAR_MAG, linscale=1.5)
        axes.set_yticks(_MEDIAN_TICKS)
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:+.2g}" if value else "0")
        )
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(ylim=(-reach, reach), ylabel="median dmag (mag)")


def _sigma_axes(labelled: Sequence[Any], _: object = None) -> None:
    for axes in labelled:
        _log_axis(axes)
        axes.set_ylabel("sigma of dmag (mag)")


def _drawn(axes: Any) -> NDArray[np.float64]:
    """Return the finite y values of all lines."""
    values: NDArray[np.float64] = np.concatenate(
        [np.empty(0), *(line.get_ydata() for line in axes.get_lines())]
    )
    return values[np.isfinite(values)]


def _log_axis(axes: Any) -> None:
    """Scale an axis logarithmically, where it shows anything positive."""
    if not (_drawn(axes) > 0).any():
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(_some_minor))
    axes.tick_params(axis="y", which="minor", labelsize=9)


def _some_minor(value: float, _: int) -> str:
    """Label 2 and 5 of each decade."""
    leading = f"{value:.0e}"[0]
    return f"{value:g}" if leading in "25" else ""


def _legend_above(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)


def error_by_group(scores: Sequence[Score], by: str, xlabel: str) -> bytes:
    """Draw the flux error of each method over groups of members.

    Parameters
    ----------
    scores : sequence of Score
        The methods.
    by : str
        A key of :attr:`Score.groups`.
    xlabel : str
        What the groups are, with unit.

    Returns
    -------
    bytes
        PNG.
    """
    labels = list(dict.fromkeys(label for score in scores for label in score.groups[by]))
    with style():
        figure = Figure(figsize=(4.8, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for index, score in enumerate(scores):
            groups = score.groups[by]
            values = [
                100 * groups[label].flux_mape if label in groups else np.nan for label in labels
            ]
            colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
            line = "none" if by == "type" else "-"
            axes.plot(labels, values, ls=line, color=colour, marker=marker, label=score.method)
        _log_axis(axes)
        axes.tick_params(axis="x", labelrotation=30)
        axes.set(xlabel=xlabel, ylabel="flux MAPE (%)")
        _legend_above(figure, axes)
        return png(figure)


def iou_histogram(scores: Sequence[Score]) -> bytes:
    """Draw the distribution of the masks' intersection over union.

    Parameters
    ----------
    scores : sequence of Score
        The methods; those without masks are left out.

    Returns
    -------
    bytes
        PNG.
    """
    edges = np.linspace(0, 1, IOU_BINS + 1)
    with style():
        figure = Figure(figsize=(4.8, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for index, score in enumerate(scores):
            if score.iou is None:
                continue
            colour = PALETTE[index % len(PALETTE)]
            share = 100 * score.iou.histogram / score.iou.n
            label = f"{score.method}, mean {score.iou.mean:.3f}"
            axes.stairs(share, edges, color=colour, lw=1.8, label=label)
            axes.axvline(score.iou.mean, color=colour, lw=1, ls=(0, (4, 3)))
        axes.set(xlabel="IoU of a member's mask", ylabel="members (%)", xlim=(0, 1), ylim=(0, None))
        axes.legend(loc="upper left")
        return png(figure)
