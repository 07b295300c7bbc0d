"""One pair to look at: image, masks, truth, residual."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deblend_batch.evaluation.pairsets import Example
from deblend_batch.pages.plotting import CENTRAL_COLOUR, COMPANION_COLOUR, png, style

_COLOURS = (CENTRAL_COLOUR, COMPANION_COLOUR)
_RESIDUAL_SIGMA = 5.0


def draw_example(example: Example) -> bytes:
    """Draw a pair in four panels.

    Parameters
    ----------
    example : Example
        The pair.

    Returns
    -------
    bytes
        PNG: the image; the predicted masks (filled) over the true ones (lines), where there are
        masks; the noise-free truth; the residual in units of the noise.
    """
    with style():
        figure = Figure(figsize=(4.8, 5.0), layout="constrained")
        image, masks, truth, residual = figure.subplots(2, 2).flat
        _show(image, _stretch(example.stamp, example.sigma), "image", cmap="gray")
        _show(truth, _stretch(example.truth.sum(axis=0), example.sigma), "truth", cmap="gray")
        _show_masks(masks, example)
        _show(
            residual,
            residual_sigma(example),
            f"residual (±{_RESIDUAL_SIGMA:.0f} sigma)",
            cmap="RdBu_r",
            vmin=-_RESIDUAL_SIGMA,
            vmax=_RESIDUAL_SIGMA,
        )
        for axes in (image, truth):
            for (y, x), colour in zip(example.yx, _COLOURS, strict=True):
                axes.plot(x, y, marker="+", ms=9, mew=1.6, color=colour)
        return png(figure)


def example_caption(example: Example) -> str:
    """Say how good the pair is and what its fluxes are."""
    error = 100 * (example.flux / example.true_flux - 1)
    fluxes = ", ".join(
        f"{role} {flux:.4g} for {true:.4g} ({e:+.1f} %)"
        for role, flux, true, e in zip(
            ("central", "companion"), example.flux, example.true_flux, error, strict=True
        )
    )
    return f"{100 * example.rank:.0f} % of pairs do better. Recovered flux: {fluxes}."


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


def _stretch(image: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
    """Compress the range so that wings and cores are seen at once."""
    stretched: NDArray[np.float64] = np.arcsinh(np.asarray(image, np.float64) / (3 * sigma))
    return stretched


def _show(axes: Any, image: NDArray[np.float64], title: str, **kwargs: Any) -> None:
    axes.imshow(image, origin="lower", interpolation="nearest", **kwargs)
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)


def _show_masks(axes: Any, example: Example) -> None:
    has_masks = example.masks is not None
    title = "masks (lines: true)" if has_masks else "true masks"
    blank = np.ones((*example.stamp.shape, 3))
    for member, colour in enumerate(_COLOURS):
        if example.masks is not None:
            weight = 0.75 * (example.masks[member] > 0.5)[..., None]
            blank = blank * (1 - weight) + weight * _rgb(colour)
    _show(axes, blank, title)
    for member, colour in enumerate(("#8a5f00", "#0b5d8a")):
        if example.true_masks[member].any():
            axes.contour(example.true_masks[member], levels=[0.5], colors=colour, linewidths=1.4)


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
