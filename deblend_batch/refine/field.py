"""The refinement of a detection: its fits run where they are fast, its result is two tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from deblend_batch.cluster.naming import is_named
from deblend_batch.cluster.workers import open_workers
from deblend_batch.detect.extract import ExtractParams
from deblend_batch.detect.field import Columns, Finished, band_number
from deblend_batch.field.layout import Field
from deblend_batch.field.photometry import magnitude, magnitude_error
from deblend_batch.progress import telling
from deblend_batch.refine.fits import Fits
from deblend_batch.refine.provenance import counts_of, provenance_of
from deblend_batch.refine.rounds import refine
from deblend_batch.refine.rules import FROM_SPACE, THROUGH_SEEING, RefineRules, TrialRules
from deblend_batch.refine.sources import Sources
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.grouping import BlendRules
from deblend_batch.tiling.tile import compact_order, halves

CANDIDATES = ExtractParams(peak_sigma=4.0, prominence_sigma=2.0, contrast=0.05, above_halo=0.0)
"""What a detection finds that is to be refined: more peaks than are sources."""

_PART_BLENDS = 512
"""Blends of a task: their pixels are read at once."""
_ALONE_SOURCES = 1000
"""Sources that are fitted without Ray, unless a cluster is named: its start takes longer."""


def how_to_detect(
    opened: Field, band: str | None, *, refine: bool
) -> tuple[ExtractParams, Refinement | None]:
    """Say with what settings to detect, and whether to refine.

    Parameters
    ----------
    opened : Field
        The field.
    band : str, optional
        The band to detect in; the first if None.
    refine : bool
        Whether the user wishes it.
    """
    if not refine:
        return ExtractParams(), None
    if opened.is_from_space(band_number(opened, band)):
        return ExtractParams(), Refinement(FROM_SPACE)
    return CANDIDATES, Refinement(THROUGH_SEEING)


@dataclass(frozen=True)
class Refinement:
    """Refines what a detection found; see :func:`deblend_batch.refine.rounds.refine`.

    Parameters
    ----------
    rules : RefineRules
        What a source must show.
    links : BlendRules
        What a blend is.
    """

    rules: RefineRules = field(default_factory=RefineRules)
    links: BlendRules = field(default_factory=BlendRules)

    def __call__(self, found: Columns, opened: Field, band: int) -> Finished:
        """Return the table of the sources that stand, and that of what became of all."""
        from deblend_batch.refine.fitting import Survey, fit_part  # torch

        noise = () if opened.variance is not None else tuple(map(float, opened.measure_noise()))
        survey = Survey(opened.url, band, noise, opened.options)
        few = len(found["id"]) <= _ALONE_SOURCES and not is_named()
        with open_workers(1 if few else None) as workers, telling("blends") as progress:

            def fit_all(blends: Blends, trial: TrialRules) -> Fits:
                parts, done = [], 0
                for fits in workers.map(fit_part, _compact(blends), survey, trial):
                    parts.append(fits)
                    done += len(fits.peak_sn)
                    progress("fitting", done, len(blends))
                return Fits.joined(parts)

            sources, dropped = refine(
                Sources.detected(found), opened, fit_all, self.links, self.rules
            )
        provenance = provenance_of(found["id"], sources, dropped, opened)
        return Finished(_table(sources, found, opened), provenance, counts_of(provenance))


def _compact(blends: Blends) -> Iterator[Blends]:
    """Divide blends so that those of each part are near to each other."""
    order = compact_order(blends.centre_yx, _PART_BLENDS)
    for start, stop in halves(len(blends), _PART_BLENDS):
        yield blends[order[start:stop]]


def _table(sources: Sources, found: Columns, opened: Field) -> Columns:
    """Return the columns of the detection, with what the fits say; NaN where an added source has nothing."""
    radec = opened.pixel_to_world(sources.yx)
    order = np.argsort(found["id"], kind="stable")
    place = np.searchsorted(found["id"][order], sources.id[~sources.is_added])
    columns = {}
    for name, values in found.items():
        nothing = np.nan if values.dtype.kind == "f" else 0
        columns[name] = np.full(len(sources), nothing, values.dtype)
        columns[name][~sources.is_added] = values[order[place]]
    with np.errstate(invalid="ignore"):
        fitted = {
            "ra": radec[:, 0] % 360,
            "dec": radec[:, 1],
            "x": sources.yx[:, 1],
            "y": sources.yx[:, 0],
            "x_err": sources.yx_err[:, 1],
            "y_err": sources.yx_err[:, 0],
            "mag": magnitude(sources.flux),
            "mag_err": magnitude_error(sources.flux, sources.flux_err),
            "radius": sources.radius_arcsec,
            "flux": sources.flux,
            "flux_err": sources.flux_err,
            "snr": sources.flux / sources.flux_err,
        }
    known = {name: values.astype(found[name].dtype) for name, values in fitted.items()}
    return columns | {"id": sources.id, "flags": sources.flags} | known
