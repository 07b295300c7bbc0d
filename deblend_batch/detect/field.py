"""Detection of a whole field: tile by tile, on Ray tasks where they are many, each source exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import field as of
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.cluster.naming import is_named
from deblend_batch.cluster.workers import open_workers
from deblend_batch.config import absolute_url
from deblend_batch.detect.correlation import measure_correlation
from deblend_batch.detect.extract import ExtractParams, extract_sources, select_owned
from deblend_batch.detect.places import places_of
from deblend_batch.detect.wide import BIN_PX
from deblend_batch.detections.counted import say_counts, to_metadata
from deblend_batch.detections.formats.scan import kind_of
from deblend_batch.detections.write import write_detections
from deblend_batch.errors import ConfigError, OutputConflictError
from deblend_batch.field.healpix import healpix_29
from deblend_batch.field.layout import Field
from deblend_batch.field.photometry import magnitude, magnitude_error, nanojansky_per_unit
from deblend_batch.field.sky.background import BackgroundMesh, BackgroundSurface
from deblend_batch.progress import ProgressMeter
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box, TileGrid

HALO_PX = 256
"""Pixels round a core that its task sees: a source this much smaller is the same in every tiling."""
LEAST_MESH_PX = 32
_MESH_WINDOW_PX = 8192
_ALONE_TILES = 4
"""Tiles that are searched without Ray, unless a cluster is named: its start takes longer."""

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Finished:
    """What is to be written of a detection.

    Parameters
    ----------
    columns : dict of ndarray, shape (n,)
        The table.
    provenance : dict of ndarray, optional
        What became of all sources that ever were.
    counts : dict of str to int
        Of these, by what became of them.
    """

    columns: Columns
    provenance: Columns | None = None
    counts: dict[str, int] = of(default_factory=dict)


Finish = Callable[[Columns, Field, int], Finished]
"""Given what was found, the field, and the number of the band."""


@dataclass(frozen=True)
class DetectionSummary:
    """What a detection found.

    Parameters
    ----------
    field, detections : str
        Input and output.
    band : str
        The band detected in.
    sources : int
        How many.
    tiles : int
        Tiles searched.
    seconds : float
        Wall time.
    counts : dict of str to int
        What became of them after the detection, if anything was done.
    """

    field: str
    detections: str
    band: str
    sources: int
    tiles: int
    seconds: float
    counts: dict[str, int] = of(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the summary as names and texts."""
        return [
            ("sources", f"{self.sources:,} in band {self.band}"),
            *([("refined", say_counts(self.counts))] if self.counts else []),
            ("tiles", f"{self.tiles:,} in {self.seconds:.1f} s"),
            ("detections", self.detections),
        ]


@dataclass(frozen=True)
class _Search:
    """What every tile task must know."""

    field_url: str
    band: int
    noise_sigma: float | None
    params: ExtractParams
    background: BackgroundSurface | None
    options: dict[str, Any] = of(repr=False)


def detect_field(
    field: Field | str,
    detections_url: str,
    *,
    band: str | None = None,
    params: ExtractParams | None = None,
    mesh_px: int | None = None,
    tile_size: int = 2048,
    overwrite: bool = False,
    options: dict[str, Any] | None = None,
    progress: ProgressMeter | None = None,
    finish: Finish | None = None,
) -> DetectionSummary:
    """Detect the sources of a field and write a detection table.

    Parameters
    ----------
    field : Field or str
        Input, or where it is.
    detections_url : str
        Output, whose suffix says its format.
    band : str, optional
        The band to detect in; the first if None.
    params : ExtractParams, optional
        What counts as a source; the correlation of the noise is measured, and the kind of PSF is the field's.
    mesh_px : int, optional
        Edge of the cells, 32 px at least, of a background that is taken from the image first; none if None:
        a field has none.
    tile_size : int
        Edge of a tile's core, px; changes no result for sources smaller than the halo.
    overwrite : bool
        Replace an existing table.
    options : dict, optional
        Storage options.
    progress : ProgressMeter, optional
        Told of finished tiles; one on the standard error if None.
    finish : callable, optional
        Makes the table of what was found, such as :class:`deblend_batch.refine.field.Refinement`.

    Returns
    -------
    DetectionSummary
        What was found. Ids are the nested HEALPix indices, order 29, of the positions: the same source has
        the same id in every run, and no two fields share one.

    Raises
    ------
    ConfigError
        If the field has no such band, cells are too small, or a path is relative inside a Ray job.
    OutputConflictError
        If the table exists, or its place is in the field or in a run's output.
    UserError
        If an input or the output cannot be used.
    """
    options = options or {}
    field_url = absolute_url("field", field) if isinstance(field, str) else field.url
    detections_url = absolute_url("detections", detections_url)
    storage.check_apart(detections_url, [field_url], options, key="detections")
    kind_of(detections_url, b"")  # a suffix that cannot be written is better known now
    provenance_url = _provenance_url(detections_url)
    for url in () if overwrite else (detections_url, provenance_url):
        if storage.exists(url, options):
            raise OutputConflictError(f"{url}: exists already; give --overwrite to replace it")
    if mesh_px is not None and mesh_px < LEAST_MESH_PX:
        raise ConfigError(
            f"--mesh is {mesh_px}; give at least {LEAST_MESH_PX} px: a galaxy must not be taken for sky"
        )
    opened = Field.open(field_url, options) if isinstance(field, str) else field
    search = _plan(opened, band, params or ExtractParams(), mesh_px, options)
    grid = TileGrid(opened.shape_yx, tile_size)
    meter = progress or ProgressMeter("tiles")
    started = time.monotonic()
    try:
        found = _search_tiles(search, grid, meter)
    finally:
        meter.close()
    finished = Finished(found) if finish is None else finish(found, opened, search.band)
    if finished.provenance is None:
        storage.remove(provenance_url, options)  # of a table that is no more
    else:
        write_detections(provenance_url, finished.provenance, options)
    write_detections(
        detections_url, finished.columns, options, metadata=to_metadata(finished.counts)
    )
    return DetectionSummary(
        field_url,
        detections_url,
        opened.meta.bands[search.band],
        len(finished.columns["id"]),
        len(grid),
        time.monotonic() - started,
        finished.counts,
    )


def _provenance_url(detections_url: str) -> str:
    """Return where a table's provenance is: of ``sources.fits`` in ``sources-provenance.parquet``."""
    folder, _, file = detections_url.rpartition("/")
    stem = file.removesuffix(".gz").rpartition(".")[0]
    return f"{folder}/{stem}-provenance.parquet"


def _plan(
    opened: Field,
    band: str | None,
    params: ExtractParams,
    mesh_px: int | None,
    options: dict[str, Any],
) -> _Search:
    number = band_number(opened, band)
    background = None if mesh_px is None else _background(opened, number, mesh_px)
    fwhm_px = params.filter_fwhm_px or opened.psf_fwhm_px[number]
    params = replace(
        params,
        noise_correlation=measure_correlation(opened, number, fwhm_px, background),
        from_space=opened.is_from_space(number),
    )
    noise = None if opened.variance is not None else opened.measure_noise()[number]
    return _Search(opened.url, number, noise, params, background, options)


def _background(opened: Field, band: int, mesh_px: int) -> BackgroundSurface:
    """Measure the background of a whole field, so that it is the same in every tile."""
    mesh = BackgroundMesh(opened.shape_yx, mesh_px)
    for rows, columns in mesh.windows(_MESH_WINDOW_PX):
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        mesh.add(rows, columns, read_tile(opened, box).image[band])
    return mesh.surface()


def band_number(opened: Field, band: str | None) -> int:
    """Return the number of a band by its name; of the first if None.

    Parameters
    ----------
    opened : Field
        The field.
    band : str, optional
        Name of the band.

    Returns
    -------
    int
        Its number.

    Raises
    ------
    ConfigError
        If the field has no such band.
    """
    bands = opened.meta.bands
    if band is not None and band not in bands:
        raise ConfigError(f"{opened.url}: no band {band!r}; it has {', '.join(bands)}")
    return 0 if band is None else bands.index(band)


def _search_tiles(search: _Search, grid: TileGrid, meter: ProgressMeter) -> Columns:
    """Search tile by tile: in this process where they are few, as Ray's start would take longer."""
    alone = len(grid) <= _ALONE_TILES and not is_named()
    parts = []
    with open_workers(1 if alone else None) as workers:
        meter.start()
        for part in workers.map(_search_tile, map(grid.core, range(len(grid))), search):
            parts.append(part)
            meter.reach("detecting", len(parts), len(grid))
    return _joined(parts)


def _search_tile(core: Box, search: _Search) -> Columns:
    """Find the sources whose centroid lies in a core."""
    opened = Field.reopen(search.field_url, search.options)
    pixels = read_tile(opened, _region(core).clipped(opened.shape_yx))
    image = pixels.image[search.band]
    if search.background is not None:
        search.background.subtract_from(image, *pixels.box.slices)
    sigma: Any = search.noise_sigma
    if pixels.variance is not None:
        sigma = np.sqrt(np.maximum(pixels.variance[search.band], 0))
    places = places_of(opened, search.band, pixels.box)
    saturated = None if pixels.saturated is None else pixels.saturated[search.band]
    sources = extract_sources(image, sigma, None, places, search.params, saturated)
    if pixels.near_star is not None:
        sources = sources.near(pixels.near_star)
    sources = sources.shifted(pixels.box.origin_yx)
    sources = select_owned(sources, (core.y0, core.x0), (core.y1, core.x1))
    radec = opened.pixel_to_world(sources.yx)
    factor = nanojansky_per_unit(np.float64(opened.meta.zero_point[search.band]))
    return {
        "id": healpix_29(radec[:, 0], radec[:, 1]),
        "ra": radec[:, 0],
        "dec": radec[:, 1],
        "x": sources.yx[:, 1],
        "y": sources.yx[:, 0],
        "x_err": sources.yx_err.astype(np.float32),
        "y_err": sources.yx_err.astype(np.float32),
        "mag": magnitude(sources.flux * factor).astype(np.float32),
        "mag_err": magnitude_error(sources.flux, sources.flux_err).astype(np.float32),
        "radius": (sources.radius_px * opened.pixel_scale_arcsec).astype(np.float32),
        "flux": (sources.flux * factor).astype(np.float32),
        "flux_err": (sources.flux_err * factor).astype(np.float32),
        "snr": sources.snr.astype(np.float32),
        "fragment": sources.fragment.astype(np.float32),
        "flags": sources.flags.astype(np.int32),
    }


def _region(core: Box) -> Box:
    """Return the pixels that a tile's search sees: bins of large galaxies' light are those of the image."""
    grown = core.grown(HALO_PX)
    return replace(grown, y0=grown.y0 // BIN_PX * BIN_PX, x0=grown.x0 // BIN_PX * BIN_PX)


def _joined(parts: Sequence[Columns]) -> Columns:
    """Put the tiles' sources together, by id."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # Two detections whose centroids converged to one position are one source: the brighter stands.
    brightest_first = np.argsort(-columns["flux"], kind="stable")
    _, first = np.unique(columns["id"][brightest_first], return_index=True)
    kept = brightest_first[first]
    return {name: values[kept] for name, values in columns.items()}
