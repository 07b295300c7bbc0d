"""A survey field with known truth: drawn tile by tile, so that it may be larger than memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.errors import ConfigError
from deblend_batch.field.create import create_field, finish_field
from deblend_batch.field.layout import Field
from deblend_batch.field.meta import FieldMeta
from deblend_batch.simulate.canvas import noise_plane, paste, tiles
from deblend_batch.simulate.galaxies import Renderer
from deblend_batch.simulate.population import KINDS
from deblend_batch.simulate.presets import Preset, get_preset
from deblend_batch.simulate.psf import Psf
from deblend_batch.simulate.systems import Source, SystemLayout
from deblend_batch.simulate.truth import (
    FieldTruth,
    Sources,
    detections_table,
    truth_table,
    write_table,
)

Image = NDArray[np.float32]

_STAMP_SIZES = (64, 128, 192, 320)
_STAMP_RADII = 9.0
_STAMP_WIDTHS = 8.0
_SYSTEMS_PER_TASK = 24
_CENTRE_DEG = (150.1163, 2.2009)
_EMPTY: Image = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class _Drawn:
    """A source on the pixel grid: its stamp's first pixel, exact position, noise-free flux per pixel."""

    source: Source
    first_yx: NDArray[np.int64]
    yx: NDArray[np.float64]
    stamp: Image


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
    processes: int = 1,
    draw_px: int = 4096,
    options: storage.Options | None = None,
    overwrite: bool = False,
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
        Seed of everything: one seed gives one field, to the bit, whatever ``processes`` and ``draw_px``.
    max_separation_arcsec : float
        No companion is farther from its central.
    tile_size : int
        Tile edge in pixels with which the field will be processed: pairs are put on such borders and corners.
    with_variance : bool
        Write a variance plane beside the image.
    processes : int
        Number of drawing processes (spawned).
    draw_px : int
        Edge of the part of the image that is held in memory.
    options : mapping, optional
        fsspec ``storage_options``.
    overwrite : bool
        Replace a finished field.

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
        url, meta, shape_yx, with_variance=with_variance, options=options, overwrite=overwrite
    )
    planes: dict[str, Any] = dict(group.arrays())
    drawn: list[_Drawn] = []
    with _workers(processes) as run:
        for low, high in tiles(shape_yx, draw_px):
            image, here = _draw_tile(layout, low, high, run)
            planes["image"][0, low[0] : high[0], low[1] : high[1]] = image
            if with_variance:
                planes["variance"][0, low[0] : high[0], low[1] : high[1]] = survey.noise_sigma**2
            drawn += [replace(one, stamp=_EMPTY) for one in here if _owns(low, high, one.source)]
    finish_field(group, meta)
    return _write_tables(Field.open(url, options), layout, _sources(drawn), options)


def field_meta(preset: Preset, shape_yx: tuple[int, int], name: str) -> FieldMeta:
    """Return the attributes of a simulated field: north up, tangential projection, in the COSMOS field."""
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


def _owns(low: tuple[int, int], high: tuple[int, int], source: Source) -> bool:
    y, x = source.near_yx
    return bool(low[0] <= y < high[0] and low[1] <= x < high[1])


@contextmanager
def _workers(processes: int) -> Iterator[Any]:
    """Give a ``map`` over tasks, in this process or in several."""
    if processes == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        yield workers.imap


def _draw_tile(
    layout: SystemLayout, low: tuple[int, int], high: tuple[int, int], run: Any
) -> tuple[Image, list[_Drawn]]:
    margin = _STAMP_SIZES[-1] / 2 + layout.max_separation_px
    systems = layout.within(low, high, margin)
    tasks = [
        (layout, systems[k : k + _SYSTEMS_PER_TASK], low, high)
        for k in range(0, systems.size, _SYSTEMS_PER_TASK)
    ]
    light = np.zeros((high[0] - low[0], high[1] - low[1]), np.float32)
    drawn = []
    for part in run(_draw_systems, tasks):
        for one in part:
            paste(light, one.stamp, one.first_yx - np.array(low))
            drawn.append(one)
    light += noise_plane(low, high, layout.preset.noise_sigma, layout.seed)
    return light, drawn


def _draw_systems(
    task: tuple[SystemLayout, NDArray[np.int64], tuple[int, int], tuple[int, int]],
) -> list[_Drawn]:
    """Draw the members of systems whose stamps reach a tile; runs in a worker."""
    layout, systems, low, high = task
    drawn = []
    for system in systems:
        for source in layout.members(int(system)):
            size = _stamp_size(source, layout.preset)
            first = source.near_yx - size // 2
            if (first < high).all() and (first + size > low).all():
                drawn.append(_draw_source(layout, source, size))
    return drawn


def _stamp_size(source: Source, preset: Preset) -> int:
    radius = source.structure.radius_arcsec / preset.pixel_scale_arcsec
    wanted = _STAMP_RADII * radius + _STAMP_WIDTHS * preset.psf_fwhm_px
    return next((size for size in _STAMP_SIZES if size >= wanted), _STAMP_SIZES[-1])


def _draw_source(layout: SystemLayout, source: Source, size: int) -> _Drawn:
    rng = np.random.default_rng(np.random.SeedSequence(layout.seed, spawn_key=(14, source.id)))
    preset = layout.preset
    drawing = _renderer(preset, size).draw(source.structure, 1 / preset.pixel_scale_arcsec, rng)
    first = source.near_yx - size // 2
    stamp = drawing.image * np.float32(preset.flux(source.mag))
    return _Drawn(source, first, first + drawing.centre_yx, stamp)


@lru_cache(maxsize=16)
def _renderer(preset: Preset, size: int) -> Renderer:
    return Renderer(Psf(preset.psf, preset.psf_fwhm_px, 0.0, 0.0), size)


def _sources(drawn: list[_Drawn]) -> Sources:
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
