"""The members of a field that describe a PSF which varies: checked, read, written.

``psf``, a group with ``kernels`` (band, cell_y, cell_x, y, x) and the attribute ``cell_size``, px; and
``psf_fwhm_map`` (band, cell_y, cell_x), arcsec, whose cells divide the image evenly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.arrays.bounds import bounded
from deblend_batch.errors import BadDataError, FieldError, TooLargeError, UserError
from deblend_batch.field.meta import PSF_FWHM_RANGE, FieldMeta
from deblend_batch.field.psf.varying import CellGrid, FieldPsf, PsfKernels, even_grid, square_grid
from deblend_batch.text import cause, shown

KERNELS = "psf/kernels"
FWHM_MAP = "psf_fwhm_map"
MAX_KERNEL_PX = 255
_MAX_BYTES = 1 << 28
"""Of all kernels of a field: each worker holds them."""
_MAX_CHUNKS = 1 << 16
_SUM_TOLERANCE = 0.01
_CENTRE_TOLERANCE_PX = 2


def open_kernels(
    group: zarr.Group, url: str, meta: FieldMeta, shape_yx: tuple[int, int]
) -> tuple[CellGrid, zarr.Array[Any]] | None:
    """Open the kernels of a field and check all that costs no pixel; None where it has none."""
    psf = stores.open_subgroup(group, url, "psf")
    if psf is None:
        return None
    array = stores.open_member(psf, url, "kernels")
    if array is None:
        raise FieldError(
            f"{url}: group 'psf' has no array 'kernels'; write it, or remove the group"
        )
    grid = square_grid(_cell_size(psf, url), shape_yx)
    _check_array(array, KERNELS, url, (len(meta.bands), *grid.counts_yx), 5)
    height, width = array.shape[3:]
    if height != width or height % 2 == 0 or height > MAX_KERNEL_PX:
        raise FieldError(
            f"{url}: '{KERNELS}' are {height} x {width} px; they must be square, of an odd number of pixels "
            f"up to {MAX_KERNEL_PX}, so that the PSF's centre is the middle pixel"
        )
    return grid, bounded(array, url, KERNELS)


def open_fwhm_map(group: zarr.Group, url: str, meta: FieldMeta) -> zarr.Array[Any] | None:
    """Open the widths of a field and check all that costs no pixel; None where it has none."""
    array = stores.open_member(group, url, FWHM_MAP)
    if array is None:
        return None
    _check_array(array, FWHM_MAP, url, (len(meta.bands),), 3)
    return bounded(array, url, FWHM_MAP)


def read_psf(group: zarr.Group, url: str, meta: FieldMeta, shape_yx: tuple[int, int]) -> FieldPsf:
    """Read what a field says of its PSF, and check it.

    Parameters
    ----------
    group : zarr.Group
        The field.
    url : str
        Its URL, for messages.
    meta : FieldMeta
        Its attributes: bands, and the widths where no map says more.
    shape_yx : tuple of int
        Rows and columns of the image.

    Returns
    -------
    FieldPsf
        With one cell where the PSF does not vary.
    """
    kernels = open_kernels(group, url, meta, shape_yx)
    widths = open_fwhm_map(group, url, meta)
    constant = np.array(meta.psf_fwhm_arcsec, np.float32)[:, None, None]
    if widths is not None:
        read = _checked_widths(_read(widths, url, FWHM_MAP), url, meta)
        constant = np.where(np.isnan(read), constant, read)
    grid = even_grid((constant.shape[1], constant.shape[2]), shape_yx)
    if kernels is None:
        return FieldPsf(grid, constant)
    cells, array = kernels
    images = _read(array, url, KERNELS)
    _check_kernels(images, url, meta)
    return FieldPsf(grid, constant, PsfKernels.of_cells(cells, images))


def write_psf(group: zarr.Group, psf: FieldPsf, compressors: Any) -> None:
    """Write what varies of a PSF into a new field.

    Parameters
    ----------
    group : zarr.Group
        The field, being made.
    psf : FieldPsf
        Cells of ``kernels`` must be square; those that are not known are left out.
    compressors : sequence of zarr codecs
        For the arrays.
    """
    if psf.fwhm_arcsec[0].size > 1:
        _create(group, FWHM_MAP, psf.fwhm_arcsec, ("band", "cell_y", "cell_x"), compressors)
    if psf.kernels is not None:
        cell_px = psf.kernels.grid.edge_yx[0]
        inner = group.create_group("psf", attributes={"cell_size": cell_px})
        known = psf.kernels.is_known[..., None, None]
        images = np.where(known, psf.kernels.images, np.float32(np.nan))
        _create(inner, "kernels", images, ("band", "cell_y", "cell_x", "y", "x"), compressors)


def _create(
    group: zarr.Group,
    name: str,
    values: NDArray[np.float32],
    dimensions: tuple[str, ...],
    compressors: Any,
) -> None:
    array = group.create_array(
        name,
        shape=values.shape,
        dtype="float32",
        chunks=(1, *(min(edge, 16) for edge in values.shape[1:3]), *values.shape[3:]),
        compressors=compressors,
        fill_value=float("nan"),
        dimension_names=dimensions,
    )
    array[...] = values


def _cell_size(psf: zarr.Group, url: str) -> float:
    value: Any = psf.attrs.asdict().get("cell_size")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 1 <= value <= 1e8:
        raise FieldError(
            f"{url}: attribute 'cell_size' of 'psf' is {shown(value)}; it must be the edge of a cell, px"
        )
    return float(value)


def _check_array(
    array: zarr.Array[Any], name: str, url: str, expected: tuple[int, ...], ndim: int
) -> None:
    """Check type, number of axes, the first edges, and what reading all of it costs."""
    if (array.dtype.kind, array.dtype.itemsize) != ("f", 4):
        raise FieldError(f"{url}: '{name}' is {array.dtype}; it must be float32")
    shape = array.shape
    if len(shape) != ndim or shape[: len(expected)] != expected or min(shape) < 1:
        what = "(band, cell_y, cell_x, y, x)" if ndim == 5 else "(band, cell_y, cell_x)"
        raise FieldError(
            f"{url}: '{name}' has shape {shown(shape)}; it must be {what}, beginning with {expected}: a "
            "band for each of 'bands', and cells that cover the image"
        )
    chunks = math.prod(
        -(-edge // max(part, 1)) for edge, part in zip(shape, array.chunks, strict=True)
    )
    if math.prod(shape) * 4 > _MAX_BYTES or chunks > _MAX_CHUNKS:
        raise TooLargeError(
            f"{url}: '{name}' has shape {shown(shape)} in {chunks:,} chunks, more than {_MAX_BYTES:,} bytes "
            f"or {_MAX_CHUNKS:,}; store larger cells, or smaller kernels"
        )


def _read(array: zarr.Array[Any], url: str, name: str) -> NDArray[np.float32]:
    try:
        return np.asarray(array[...], np.float32)
    except MemoryError:
        raise
    except Exception as error:
        meaning = storage.translate(url, error)
        if isinstance(meaning, UserError):
            raise meaning from error
        raise BadDataError(
            f"{url}: '{name}' has a chunk that cannot be decoded ({cause(error)}); write it again"
        ) from error


def _checked_widths(widths: NDArray[np.float32], url: str, meta: FieldMeta) -> NDArray[np.float32]:
    low, high = PSF_FWHM_RANGE
    wrong = ~np.isnan(widths) & ~((widths >= low) & (widths <= high))
    if wrong.any():
        band, y, x = np.argwhere(wrong)[0].tolist()
        where = f"band {meta.bands[band]!r}, cell ({y}, {x})"
        raise FieldError(
            f"{url}: '{FWHM_MAP}' holds {widths[band, y, x]:g} for {where}; each "
            f"must be arcsec from {low:g} to {high:g}, or NaN where it is not known"
        )
    return widths


def _check_kernels(images: NDArray[np.float32], url: str, meta: FieldMeta) -> None:
    """Refuse kernels that are none; NaN throughout says that none is known."""
    unknown = np.all(np.isnan(images), axis=(3, 4))
    finite = np.isfinite(images).all(axis=(3, 4))
    with np.errstate(over="ignore", invalid="ignore"):
        total = images.sum(axis=(3, 4), dtype=np.float64)
    size = images.shape[-1]
    peak = np.nan_to_num(images).reshape(*images.shape[:3], -1).argmax(axis=3)
    offset = np.abs(np.stack(np.divmod(peak, size)) - size // 2).max(axis=0)
    for wrong, message in (
        (~finite, "holds NaN or infinity; give numbers, or NaN throughout where it is not known"),
        (~(np.abs(total - 1) <= _SUM_TOLERANCE), "sums to {total:g}; it must sum to 1"),
        (
            offset > _CENTRE_TOLERANCE_PX,
            "peaks at ({y}, {x}); it must peak in its middle, ({mid}, {mid})",
        ),
    ):
        found = np.argwhere(wrong & ~unknown)
        if len(found):
            one = tuple(found[0].tolist())
            y, x = divmod(int(peak[one]), size)
            says = message.format(total=total[one], y=y, x=x, mid=size // 2)
            where = f"band {meta.bands[one[0]]!r}, cell ({one[1]}, {one[2]})"
            raise FieldError(f"{url}: the kernel of {where}, in '{KERNELS}' {says}")
