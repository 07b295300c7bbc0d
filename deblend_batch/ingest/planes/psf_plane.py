"""What ``--psf`` names: kernels in an HDU, a map of widths, PSFEx's model, or stamps on a canvas."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.field.psf.varying import CellGrid, even_grid, square_grid
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.files.hdus import FitsFile
from deblend_batch.ingest.files.opening import ImageFiles
from deblend_batch.ingest.files.plane import Plane
from deblend_batch.ingest.header.headers import number, text
from deblend_batch.ingest.planes.psf_grid import StampGrid, read_places, stamp_edge
from deblend_batch.ingest.planes.psfex import MODEL_HDU, PsfexModel
from deblend_batch.ingest.psf.from_files import FilePsf, WidthMap
from deblend_batch.ingest.reference import ImageRef

_CELLS = 16
_LEAST_CELL_PX = 256
_MAP_CELL_PX = 64
_MAP_MOST_CELLS = 64
_MOST_KERNEL_PX = 1 << 26
_MOST_MODEL_BYTES = 1 << 26
_MOST_TABLE_BYTES = 1 << 28
_SAME_SCALE = 0.01
_PLAUSIBLE_ARCSEC = (0.01, 30.0)


def read_psf(files: ImageFiles, ref: ImageRef, image: Plane, grid: SkyGrid) -> FilePsf | WidthMap:
    """Read the PSF of an image; what kind of it a file holds is told by its structure.

    Parameters
    ----------
    files : ImageFiles
        Opens files.
    ref : ImageRef
        File, and HDU where there are several.
    image : Plane
        The image.
    grid : SkyGrid
        Its pixels on the sky.
    """
    file = files.fits(ref.url, "--psf")
    model = file.find(MODEL_HDU if ref.hdu is None else str(ref.hdu), "table")
    if model is not None and "PSFAXIS1" in file.header(model):
        data = file.read_data(model, str(ref), _MOST_MODEL_BYTES)
        return _of_model(PsfexModel.of(file.header(model), data, str(ref)), image.shape_yx, ref)
    canvas = _canvas(file, ref)
    if canvas is not None:
        return _of_canvas(files, file, canvas, image, grid)
    unit = file.select_stack(ref)
    if unit.shape is not None and unit.shape[-2:] == image.shape_yx and unit.is_image_2d:
        return _of_map(files.plane(ref), grid.pixel_scale_arcsec())
    label = f"{ref.url}[{unit.name or unit.number}]"
    _check_sampling(file, unit, grid.pixel_scale_arcsec(), label)
    return _of_images(file.read_stack(unit, label, _MOST_KERNEL_PX), image.shape_yx, label)


def _of_model(model: PsfexModel, shape_yx: tuple[int, int], ref: ImageRef) -> FilePsf:
    cells = _cells(shape_yx) if model.degree else square_grid(max(shape_yx), shape_yx)
    kernels = [model.kernel((y, x)) for y, x in _middles(cells, shape_yx).tolist()]
    images = np.stack(kernels).reshape(*cells.counts_yx, *kernels[0].shape)
    source = f"PSFEx, {model.sample_px:.3g} px a sample"
    return FilePsf.of_cells(images, int(cells.edge_yx[0]), source, str(ref))


def _canvas(file: FitsFile, ref: ImageRef) -> ImageRef | None:
    """Return the image that holds stamps, if a file has one."""
    for unit in file.units():
        if unit.is_image_2d and stamp_edge(file.header(unit)) is not None:
            return ImageRef(ref.url, unit.number)
    return None


def _of_canvas(
    files: ImageFiles, file: FitsFile, canvas: ImageRef, image: Plane, grid: SkyGrid
) -> FilePsf:
    plane, label = files.plane(canvas), str(canvas)
    table = next((unit for unit in file.units() if unit.kind == "table"), None)
    edge = stamp_edge(plane.headers[0])
    if table is None or edge is None:
        raise FieldError(f"{canvas.url}: has no table of its stamps; give --psf-fwhm ARCSEC")
    data = file.read_data(table, f"{canvas.url}[{table.number}]", _MOST_TABLE_BYTES)
    places, radec = read_places(file.header(table), data, f"{canvas.url}[{table.number}]")
    image_yx = grid.world_to_pixel(*radec.T)
    inside = np.isfinite(image_yx).all(axis=1)
    near = inside & (np.abs(np.nan_to_num(image_yx)) < 10 * max(image.shape_yx)).all(axis=1)
    if not near.any():
        raise FieldError(f"{label}: none of its PSFs is on or near the image; give its own file")
    stamps = StampGrid(places[near], image_yx[near], edge)
    cells = _cells(image.shape_yx)
    found = stamps.nearest(_middles(cells, image.shape_yx), plane.values, label)
    return FilePsf.of_cells(
        found.reshape(*cells.counts_yx, edge, edge),
        int(cells.edge_yx[0]),
        f"nearest of {int(near.sum()):,} stamps",
        label,
    )


def _of_map(plane: Plane, scale_arcsec: float) -> WidthMap:
    """Take the median width of each cell of a map."""
    unit = text(plane.headers, "BUNIT").lower()
    in_pixels = "pix" in unit
    counts = tuple(min(_MAP_MOST_CELLS, math.ceil(edge / _MAP_CELL_PX)) for edge in plane.shape_yx)
    grid = even_grid((counts[0], counts[1]), plane.shape_yx)
    widths = np.full(grid.counts_yx, np.nan)
    for y in range(grid.counts_yx[0]):
        (top, _), (bottom, _) = grid.bounds((y, 0))
        rows = plane.values(slice(top, bottom), slice(0, plane.shape_yx[1]))
        for x in range(grid.counts_yx[1]):
            (_, left), (_, right) = grid.bounds((y, x))
            here = rows[:, left:right]
            here = here[np.isfinite(here) & (here > 0)]
            widths[y, x] = np.median(here) if here.size else np.nan
    arcsec = widths * (scale_arcsec if in_pixels else 1.0)
    known = arcsec[np.isfinite(arcsec)]
    low, high = _PLAUSIBLE_ARCSEC
    if known.size == 0 or not low < np.median(known) < high:
        raise FieldError(
            f"{plane.label}: is of the image's size, and no map of a PSF's width in arcsec; give --psf-fwhm"
        )
    return WidthMap(arcsec / scale_arcsec, f"map of widths, {'px' if in_pixels else 'arcsec'}")


def _of_images(images: NDArray[np.float64], shape_yx: tuple[int, int], label: str) -> FilePsf:
    """Take one kernel, or one a cell (cell_y, cell_x, y, x)."""
    if images.ndim > 4:
        images = images.reshape(images.shape[-4:])
    if images.ndim == 3 and images.shape[0] == 1:
        images = images[0]
    if images.ndim == 2:
        return FilePsf.of_cells(images[None, None], max(shape_yx), "a kernel", label)
    if images.ndim == 4:
        cell_px = math.ceil(shape_yx[0] / images.shape[0])
        if square_grid(cell_px, shape_yx).counts_yx == images.shape[:2]:
            return FilePsf.of_cells(images, cell_px, "kernels by cell", label)
    raise FieldError(
        f"{label}: holds {' x '.join(map(str, images.shape))} pixels, neither a kernel nor one for each "
        "square cell of the image (cell_y, cell_x, y, x); give --psf-fwhm ARCSEC"
    )


def _check_sampling(file: FitsFile, unit: object, scale_arcsec: float, label: str) -> None:
    """Refuse kernels whose header says that their pixels are not the image's."""
    header = file.header(unit)  # type: ignore[arg-type]
    found = [number([header], key) for key in ("PIXELSCL", "PIXSCALE")]
    arcsec = next((value for value in found if value is not None), None)
    over = number([header], "OVERSAMP")
    ratio = 1.0 if arcsec is None else arcsec / scale_arcsec
    if arcsec is None and over is not None:
        ratio = 1 / over
    if abs(ratio - 1) > _SAME_SCALE:
        raise FieldError(
            f"{label}: its pixels are {ratio:.3g} of the image's; resample it to the image's, each the mean "
            "over a pixel, or give --psf-fwhm ARCSEC"
        )


def _cells(shape_yx: tuple[int, int]) -> CellGrid:
    return square_grid(max(_LEAST_CELL_PX, math.ceil(max(shape_yx) / _CELLS)), shape_yx)


def _middles(cells: CellGrid, shape_yx: tuple[int, int]) -> NDArray[np.float64]:
    """Return the middles (y, x) of the cells, of the last ones that of what is on the image."""
    axes = [
        (np.arange(count) * edge + np.minimum((np.arange(count) + 1) * edge, size) - 1) / 2
        for count, edge, size in zip(cells.counts_yx, cells.edge_yx, shape_yx, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
