"""A survey field with known truth: drawn tile by tile, so that it may be larger than memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.cluster.workers import Workers, open_workers
from deblend_batch.errors import ConfigError
from deblend_batch.field.create import create_field, finish_field
from deblend_batch.field.layout import Field
from deblend_batch.field.meta import FieldMeta
from deblend_batch.field.psf.varying import FieldPsf, PsfKernels, square_grid
from deblend_batch.progress import Progress, silent
from deblend_batch.simulate.fields.canvas import Corner, noise_plane, paste, tiles
from deblend_batch.simulate.fields.sources import (
    LARGEST_STAMP_PX,
    DrawnSource,
    draw_in_order,
    field_psf,
    stamp_size,
)
from deblend_batch.simulate.fields.systems import Source, SystemLayout
from deblend_batch.simulate.fields.truth import (
    FieldTruth,
    Sources,
    detections_table,
    truth_table,
    write_table,
)
from deblend_batch.simulate.galaxies.population import KINDS
from deblend_batch.simulate.presets import Preset, get_preset
from deblend_batch.simulate.psf import draw_kernel

Image = NDArray[np.float32]

_CENTRE_DEG = (150.1163, 2.2009)
_NO_STAMP: Image = np.empty((0, 0), np.float32)


def simulate_field(
    url: str,
    *,
    preset: str = "candels-h",
    shape_yx: tuple[int, int] = (4608, 4608),
    n_pairs: int = 1700,
    n_isolated: int = 600,
    n_groups: int = 40,
    seed: int = 0,
    max_separation_arcsec: float = 2.0,
    tile_size: int = 2048,
    with_variance: bool = False,
    processes: int | None = 1,
    draw_px: int = 4096,
    options: storage.Options | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> FieldTruth:
    """Write a simulated field, its truth and its detections.

    Parameters
    ----------
    url : str
        The field's Zarr group. The tables are written beside it, as ``<name>_truth.parquet`` and
        ``<name>_detections.parquet``, where ``<name>`` is ``url`` without ``.zarr``.
    preset : str
        Name of the survey to imitate.
    shape_yx : tuple of int
        Rows and columns.
    n_pairs, n_isolated, n_groups : int
        Number of pairs, isolated galaxies and groups of three to five.
    seed : int
        Seed of everything: one seed gives one field, to float32 rounding, whatever ``processes`` and
        ``draw_px``.
    max_separation_arcsec : float
        No companion is farther from its central.
    tile_size : int
        Tile edge in pixels with which the field will be processed: pairs are put on such borders and corners.
    with_variance : bool
        Write a variance plane beside the image.
    processes : int, optional
        Ray tasks that draw at a time, one per CPU of the cluster if None; with 1 this process draws, without
        Ray.
    draw_px : int
        Edge of the part of the image that is held in memory.
    options : mapping, optional
        fsspec ``storage_options``.
    overwrite : bool
        Replace a finished field.
    progress : callable
        Told of the galaxies drawn.

    Returns
    -------
    FieldTruth
        Where everything is. Both tables have ``id`` (int64), ``ra``, ``dec`` (deg), ``mag`` (AB) and
        ``radius`` (arcsec; half light: along the major axis and without PSF in the truth, round and with
        PSF in the detections). The truth adds ``x``, ``y`` (0-based pixels), ``flux_njy``, ``axis_ratio``,
        ``type``, ``group`` (number of the system), ``group_size`` and ``companion_id`` (null but in pairs).

    Raises
    ------
    ConfigError
        If the preset is unknown or the systems do not fit the field.
    OutputConflictError
        If something else is at ``url``.
    """
    survey = get_preset(preset)
    layout = SystemLayout(
        survey, shape_yx, n_pairs, n_isolated, n_groups, seed, max_separation_arcsec, tile_size
    )
    if layout.n_systems == 0:
        raise ConfigError(
            "a field without galaxies is of no use; ask for at least one pair or isolated galaxy"
        )
    layout.grid_yx  # noqa: B018  - refuses fields that are too dense before anything is written
    meta = field_meta(survey, shape_yx, storage.name_of(url))
    group = create_field(
        url,
        meta,
        shape_yx,
        with_variance=with_variance,
        psf=_known_psf(survey, shape_yx),
        options=options,
        overwrite=overwrite,
    )
    planes: dict[str, Any] = dict(group.arrays())
    owned: list[DrawnSource] = []
    with open_workers(processes) as workers:
        for low, high in tiles(shape_yx, draw_px):
            window = (0, slice(low[0], high[0]), slice(low[1], high[1]))
            planes["image"][window] = _draw_tile(layout, low, high, workers, owned, progress)
            if with_variance:
                planes["variance"][window] = survey.noise_sigma**2
    finish_field(group, meta)
    return _write_tables(Field.open(url, options), layout, _sources(owned), options)


def field_meta(preset: Preset, shape_yx: tuple[int, int], name: str) -> FieldMeta:
    """Return the attributes of a simulated field: north up, tangential projection, in the COSMOS field.

    Parameters
    ----------
    preset : Preset
        The survey that it imitates.
    shape_yx : tuple of int
        Rows and columns.
    name : str
        Of the field.

    Returns
    -------
    FieldMeta
        The attributes.
    """
    step = preset.pixel_scale_arcsec / 3600.0
    cards: Mapping[str, str | int | float | bool] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": _CENTRE_DEG[0],
        "CRVAL2": _CENTRE_DEG[1],
        "CRPIX1": (shape_yx[1] + 1) / 2,
        "CRPIX2": (shape_yx[0] + 1) / 2,
        "CD1_1": -step,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": step,
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "RADESYS": "ICRS",
    }
    return FieldMeta(
        name=name.removesuffix(".zarr"),
        bands=(preset.band,),
        zero_point=(preset.zero_point,),
        psf_fwhm_arcsec=(preset.psf.fwhm_arcsec,),
        wcs_cards=cards,
        noise_sigma=(preset.noise_sigma,),
    )


def _known_psf(preset: Preset, shape_yx: tuple[int, int]) -> FieldPsf:
    """Return the PSF as one kernel, as if somebody had measured it on bright stars."""
    grid = square_grid(float(max(shape_yx)), shape_yx)
    width = np.full((1, 1, 1), preset.psf.fwhm_arcsec, np.float32)
    kernel = draw_kernel(field_psf(preset))[None, None, None]
    return FieldPsf(grid, width, PsfKernels.of_cells(grid, kernel))


def _draw_tile(
    layout: SystemLayout,
    low: Corner,
    high: Corner,
    workers: Workers,
    owned: list[DrawnSource],
    progress: Progress,
) -> Image:
    """Draw all that falls on a tile; add the sources about its own pixels, without stamps, to ``owned``."""
    preset, n_galaxies = layout.preset, int(layout.sizes.sum())
    reach = LARGEST_STAMP_PX / 2 + layout.max_separation_px
    sources = [
        source
        for system in layout.within(low, high, reach)
        for source in layout.members(int(system))
        if _touches(source, low, high, preset)
    ]
    image = np.zeros((high[0] - low[0], high[1] - low[1]), np.float32)
    for one in draw_in_order(sources, preset, layout.seed, workers):
        paste(image, one.stamp, one.first_yx - np.array(low))
        if (one.source.near_yx >= low).all() and (one.source.near_yx < high).all():
            owned.append(replace(one, stamp=_NO_STAMP))
            progress("drawing", len(owned), n_galaxies)
    image += noise_plane(low, high, preset.noise_sigma, layout.seed)
    return image


def _touches(source: Source, low: Corner, high: Corner, preset: Preset) -> bool:
    size = stamp_size(source, preset)
    first = source.near_yx - size // 2
    return bool((first < high).all() and (first + size > low).all())


def _sources(drawn: list[DrawnSource]) -> Sources:
    drawn = sorted(drawn, key=lambda one: one.source.id)
    all_of = [one.source for one in drawn]
    return Sources(
        id=np.array([one.id for one in all_of], np.int64),
        system=np.array([one.system for one in all_of], np.int64),
        companion=np.array([one.companion or 0 for one in all_of], np.int64),
        yx=np.array([one.yx for one in drawn]),
        mag=np.array([one.mag for one in all_of]),
        radius_arcsec=np.array([one.structure.radius_arcsec for one in all_of]),
        axis_ratio=np.array([one.structure.axis_ratio for one in all_of]),
        kind=np.array([KINDS.index(one.structure.kind) for one in all_of], np.int64),
    )


def _write_tables(
    field: Field, layout: SystemLayout, sources: Sources, options: storage.Options | None
) -> FieldTruth:
    base = field.url.rstrip("/").removesuffix(".zarr")
    truth_url, detections_url = f"{base}_truth.parquet", f"{base}_detections.parquet"
    write_table(truth_url, truth_table(sources, field), options)
    detections = detections_table(sources, field, layout.preset, layout.seed)
    write_table(detections_url, detections, options)
    return FieldTruth(
        field_url=field.url,
        truth_url=truth_url,
        detections_url=detections_url,
        n_sources=int(sources.id.size),
        n_pairs=layout.n_pairs,
        n_isolated=layout.n_isolated,
        n_groups=layout.n_groups,
    )
