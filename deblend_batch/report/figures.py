"""The report's figures; each function returns a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from deblend_batch.catalog.records import Receipt
from deblend_batch.pages.plotting import PALETTE, png, style
from deblend_batch.report.survey import MAG_EDGES, CatalogSurvey, beside

CENTRAL, COMPANION, OTHER = PALETTE[:3]


def _axes(width: float = 5.6, height: float = 3.8) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _magnitude_label(band: str) -> str:
    """Name a magnitude axis; a dollar sign in a band's name is no mathematics."""
    return f"magnitude in {band} [AB]".replace("$", r"\$")


def sky_map(rows: pa.Table) -> bytes:
    """Draw where the pairs are.

    Returns
    -------
    bytes
        PNG.
    """
    with style():
        figure, axes = _axes()
        ra, dec = rows["ra"].to_numpy()[::2], rows["dec"].to_numpy()[::2]
        flagged = rows["flags"].to_numpy()[::2] != 0
        size = float(np.clip(4000 / max(len(ra), 1), 1, 14))
        axes.scatter(ra[~flagged], dec[~flagged], s=size, c=CENTRAL, lw=0, label="no flag")
        axes.scatter(ra[flagged], dec[flagged], s=size, c=COMPANION, lw=0, label="flagged")
        axes.invert_xaxis()
        axes.set(xlabel="right ascension [deg]", ylabel="declination [deg]")
        axes.set_aspect(1 / max(np.cos(np.radians(np.median(dec))), 0.05), adjustable="datalim")
        axes.ticklabel_format(useOffset=False)
        axes.tick_params(axis="x", rotation=20)
        axes.legend(loc="upper right", markerscale=2)
        return png(figure)


def magnitude_counts(survey: CatalogSurvey, band: str) -> bytes:
    """Draw the magnitudes of centrals and companions in a band.

    Returns
    -------
    bytes
        PNG.
    """
    with style():
        figure, axes = _axes()
        counts = [survey.mags[band, role] for role in ("central", "companion")]
        for values, role, colour in zip(
            counts, ("central", "companion"), (CENTRAL, COMPANION), strict=True
        ):
            axes.stairs(values, MAG_EDGES, color=colour, lw=1.8, label=role)
        used = np.flatnonzero(sum(counts))
        if len(used):
            axes.set_xlim(MAG_EDGES[used[0]] - 0.25, MAG_EDGES[used[-1] + 1] + 0.25)
        axes.set(xlabel=_magnitude_label(band), ylabel="members per 0.25 mag")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        return png(figure)


def separation_against_contrast(rows: pa.Table, band: str) -> bytes:
    """Draw how the members' magnitudes differ against their separation.

    Returns
    -------
    bytes
        PNG.
    """
    with style():
        figure, axes = _axes()
        mag = rows[f"mag_{band}"].to_numpy()
        companion, neighbour = beside(rows)
        separation = rows["separation"].to_numpy()[companion]
        size = float(np.clip(6000 / max(len(companion), 1), 2, 14))
        contrast = mag[neighbour] - mag[companion]
        axes.scatter(separation, contrast, s=size, c=OTHER, lw=0, alpha=0.7)
        axes.axhline(0, color="#888", lw=0.8)
        axes.set(xlabel="separation [arcsec]", ylabel="neighbour − companion [mag]")
        return png(figure)


def signal_to_noise(rows: pa.Table, band: str) -> bytes:
    """Draw the relative uncertainty against magnitude.

    Returns
    -------
    bytes
        PNG.
    """
    with style(), np.errstate(all="ignore"):
        figure, axes = _axes()
        mag = rows[f"mag_{band}"].to_numpy()
        relative = rows[f"flux_err_{band}"].to_numpy() / rows[f"flux_{band}"].to_numpy()
        role = np.asarray(rows["role"].to_pylist())
        size = float(np.clip(6000 / max(len(mag), 1), 2, 14))
        for name, colour in (("central", CENTRAL), ("companion", COMPANION)):
            of_role = role == name
            axes.scatter(
                mag[of_role], relative[of_role], s=size, c=colour, lw=0, alpha=0.7, label=name
            )
        if (relative[np.isfinite(mag)] > 0).any():
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(_some_minor))
            axes.tick_params(axis="y", which="minor", labelsize=10)
        axes.set(xlabel=_magnitude_label(band), ylabel="flux error / flux")
        axes.legend(markerscale=2)
        return png(figure)


def _some_minor(value: float, _: int) -> str:
    """Label 2 and 5 of each decade."""
    return f"{value:g}" if f"{value:.0e}"[0] in "25" else ""


def tile_times(receipts: Sequence[Receipt]) -> bytes:
    """Draw the pairs per second of each tile.

    Returns
    -------
    bytes
        PNG.
    """
    with style():
        figure, axes = _axes()
        pairs = np.array([receipt.pairs for receipt in receipts])
        seconds = np.array([sum(receipt.seconds.values()) for receipt in receipts])
        axes.scatter(pairs, seconds, s=14, c=CENTRAL, lw=0)
        axes.set(xlabel="pairs in the tile", ylabel="time in the actor [s]")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        return png(figure)


def examples(stamps: Sequence[NDArray[np.float32]], pairs: Sequence[dict[str, Any]]) -> bytes:
    """Draw stamps of some pairs with their members and magnitudes.

    Parameters
    ----------
    stamps : sequence of ndarray of float32, shape (y, x)
        Pixels round each central, which is at the centre; NaN outside the image.
    pairs : sequence of dict
        As :func:`deblend_batch.report.survey.choose_examples` returns them.

    Returns
    -------
    bytes
        PNG.
    """
    columns = min(4, len(stamps))
    lines = -(-len(stamps) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.9 * lines), layout="constrained")
    for number, (stamp, pair) in enumerate(zip(stamps, pairs, strict=True)):
        axes = figure.add_subplot(lines, columns, number + 1)
        noise = float(np.nanmedian(np.abs(stamp - np.nanmedian(stamp)))) * 1.4826 or 1.0
        axes.imshow(np.arcsinh(stamp / (2 * noise)), origin="lower", cmap="gray_r")
        centre = np.array(stamp.shape) // 2
        yx = pair["yx"] - np.floor(pair["yx"][0] + 0.5) + centre
        for member, (y, x) in enumerate(yx):
            name, colour = ("c", COMPANION) if member else ("C", CENTRAL)
            axes.plot(x, y, "+", color=colour, ms=9, mew=1.6)
            text = f"{name} {pair['mag'][member]:.2f}"
            place = (0.03, 0.97 - 0.11 * member)
            axes.text(*place, text, color=colour, transform=axes.transAxes, va="top", fontsize=9)
        axes.set_title(f"{pair['separation']:.2f}″  {pair['tile']}", fontsize=8)
        axes.set(
            xticks=[],
            yticks=[],
            xlim=(-0.5, stamp.shape[1] - 0.5),
            ylim=(-0.5, stamp.shape[0] - 0.5),
        )
    return png(figure, full_colour=True)
