"""The look that all figures of the package's reports share."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
"""Colours that colour-blind readers tell apart (Okabe & Ito 2008), by order of use."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Markers in the same order: no line is known by its colour alone."""

CENTRAL_COLOUR, COMPANION_COLOUR = "#E69F00", "#56B4E9"

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.labelcolor": "#1b2430",
    "axes.edgecolor": "#5a6675",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8ee",
    "grid.linewidth": 0.7,
    "xtick.color": "#5a6675",
    "ytick.color": "#5a6675",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}

_DPI = 190


@contextmanager
def style() -> Iterator[None]:
    """Draw in the package's style inside this context, and leave the user's settings alone."""
    with mpl.rc_context(_STYLE):
        yield


def png(figure: Figure, *, full_colour: bool = False) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to draw.
    full_colour : bool
        For images: without it the 256 colours that fit best, in a third of the bytes, since a page
        carries dozens of figures.

    Returns
    -------
    bytes
        PNG.
    """
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    if not full_colour:
        picture = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    sink = io.BytesIO()
    picture.save(sink, format="png", optimize=True)
    return sink.getvalue()
