"""One pair to look at: image, truth, masks, residual."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import AsinhNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from deblend_batch.evaluation.pairsets import Example
from deblend_batch.pages.plotting import CENTRAL_COLOUR, COMPANION_COLOUR, png, style

RESIDUAL_SIGMA = 5.0
"""The residual's colours end here, in units of the noise."""

SOFTENING_SIGMA = 3.0
"""The image's stretch is linear below and logarithmic above this, in units of the noise."""

_COLOURS = (CENTRAL_COLOUR, COMPANION_COLOUR)
_OUTLINES = ("#8a5f00", "#0b5d8a")
_LEVELS = (-3, 0, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


def draw_example(example: Example) -> bytes:
    """Draw a pair in four panels.

    Parameters
    ----------
    example : Example
        The pair.

    Returns
    -------
    bytes
        PNG: the image and the noise-free truth on the same scale; the predicted masks (filled) and the
        true ones (lines); the residual. Brightness is in units of the noise.
    """
    with style():
        figure = Figure(figsize=(5.2, 5.6), layout="constrained")
        (image, truth), (masks, residual) = figure.subplots(2, 2)
        peak = max(float(np.max(example.stamp) / example.sigma), 10.0)
        scale = AsinhNorm(SOFTENING_SIGMA, vmin=-SOFTENING_SIGMA, vmax=peak)
        _show(image, example.stamp / example.sigma, "image", scale, "gray")
        shown = _show(truth, example.truth.sum(axis=0) / example.sigma, "truth", scale, "gray")
        _add_bar(figure, shown, [image, truth], [v for v in _LEVELS if v <= peak])
        _show_masks(masks, example)
        ends = Normalize(-RESIDUAL_SIGMA, RESIDUAL_SIGMA)
        shown = _show(residual, residual_sigma(example), "residual", ends, "RdBu_r")
        _add_bar(figure, shown, [masks, residual], [-5, -3, 0, 3, 5])
        for axes in (image, truth):
            for (y, x), colour in zip(example.yx, _COLOURS, strict=True):
                axes.plot(x, y, marker="+", ms=9, mew=1.6, color=colour)
        figure.legend(handles=_key(), loc="outside lower center", ncols=2)
        return png(figure, full_colour=True)


def _key() -> list[Any]:
    crosses = [
        Line2D([], [], ls="none", marker="+", ms=9, mew=1.8, color=colour, label=role)
        for role, colour in zip(("central", "companion"), _COLOURS, strict=True)
    ]
    filled = Patch(facecolor=_COLOURS[0], alpha=0.75, label="predicted mask")
    return [*crosses, filled, Line2D([], [], color=_OUTLINES[0], label="true mask")]


def example_caption(example: Example) -> str:
    """Say how good the pair is and what its fluxes are."""
    error = 100 * (example.flux / example.true_flux - 1)
    fluxes = ", ".join(
        f"{role} {flux:.4g} of {true:.4g} ({e:+.1f} %)"
        for role, flux, true, e in zip(
            ("central", "companion"), example.flux, example.true_flux, error, strict=True
        )
    )
    rank = f"{100 * example.rank:.0f} % of the pairs have a smaller flux error."
    return f"{rank} Recovered of the true flux: {fluxes}."


def residual_sigma(example: Example) -> NDArray[np.float64]:
    """Return the image minus the true members at their recovered fluxes, in units of the noise.

    Parameters
    ----------
    example : Example
        The pair; a member without a flux is left in.

    Returns
    -------
    ndarray of float64, shape (y, x)
        The residual.
    """
    scale = np.nan_to_num(example.flux / example.true_flux)
    model = np.tensordot(scale, example.truth, axes=1)
    residual: NDArray[np.float64] = (example.stamp - model) / example.sigma
    return residual


def _show(axes: Any, image: NDArray[Any], title: str, scale: Normalize, colours: str) -> Any:
    shown = axes.imshow(image, origin="lower", interpolation="nearest", norm=scale, cmap=colours)
    _frame(axes, title, image.shape[0])
    return shown


def _frame(axes: Any, title: str, size: int) -> None:
    ticks = [0, size // 2, size - 1]
    axes.set_title(title)
    axes.set(xticks=ticks, yticks=ticks, xlim=(-0.5, size - 0.5), ylim=(-0.5, size - 0.5))
    axes.tick_params(labelsize=8.5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)


def _add_bar(figure: Figure, shown: Any, panels: list[Any], ticks: list[int]) -> None:
    bar = figure.colorbar(shown, ax=panels, aspect=18, pad=0.02)
    bar.set_ticks(ticks)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    bar.ax.tick_params(labelsize=9)
    bar.set_label("sigma of the noise", fontsize=9.5)


def _show_masks(axes: Any, example: Example) -> None:
    canvas = np.ones((*example.stamp.shape, 3))
    for member, colour in enumerate(_COLOURS):
        if example.masks is not None:
            weight = 0.75 * (example.masks[member] > 0.5)[..., None]
            canvas = canvas * (1 - weight) + weight * np.array(to_rgb(colour))
    axes.imshow(canvas, origin="lower", interpolation="nearest")
    _frame(axes, "masks" if example.masks is not None else "true masks", len(canvas))
    for member, colour in enumerate(_OUTLINES):
        if example.true_masks[member].any():
            axes.contour(example.true_masks[member], levels=[0.5], colors=colour, linewidths=1.4)
