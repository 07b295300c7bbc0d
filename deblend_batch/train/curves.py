"""Learning curves as a picture."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FormatStrFormatter, MaxNLocator

from deblend_batch.train.checkpoint import Progress

_FLUX = {
    "flux_mape": "pooled",
    "flux_mape_central": "central",
    "flux_mape_companion": "companion",
}
_PLAIN = FormatStrFormatter("%.3g")


def learning_curves(progress: Progress, title: str) -> bytes:
    """Draw the training loss and the validation metrics against the step.

    Returns
    -------
    bytes
        A PNG image.
    """
    steps = [entry["step"] for entry in progress.validations]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, progress.losses, color="#444444")
    left.set(xlabel="step", ylabel="training loss", yscale="log", title=title)
    for (key, label), colour in zip(_FLUX.items(), ("#000000", "#0072b2", "#d55e00"), strict=True):
        values = [100 * entry[key] for entry in progress.validations]
        right.plot(steps, values, color=colour, label=label)
    right.set(xlabel="step", ylabel="flux MAPE, unseen galaxies (%)", yscale="log")
    if "iou" in progress.validations[0]:
        masks = right.twinx()
        masks.plot(steps, [entry["iou"] for entry in progress.validations], "--", color="#009e73")
        masks.set_ylabel("mask IoU (dashed)")
    right.axvline(steps[progress.best], color="#bbbbbb", linewidth=1, zorder=0)
    right.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3)
    for axes in (left, right):
        axes.grid(visible=True, which="both", color="#eeeeee")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(_PLAIN)
        axes.yaxis.set_minor_formatter(_PLAIN)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
