"""Rubin's image files (``lsst.images``, from Data Preview 2 on), read without Rubin's software.

A tree of JSON in an HDU of its own says what the file holds: the band, which HDUs are mask, variance and PSF,
and where the PSF's cells lie.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.field.psf.varying import square_grid
from deblend_batch.ingest.contents import FileContents
from deblend_batch.ingest.files.hdus import FitsFile
from deblend_batch.ingest.psf.from_files import FilePsf
from deblend_batch.ingest.reference import ImageRef

_SCHEMA = "https://images.lsst.io/schemas/"
_MOST_JSON_BYTES = 1 << 26
_MOST_PSF_PX = 1 << 26


def read_rubin(file: FitsFile, url: str, shape_yx: tuple[int, int]) -> FileContents:
    """Read what a file says of its image.

    Parameters
    ----------
    file : FitsFile
        The file.
    url : str
        Its place.
    shape_yx : tuple of int
        Rows and columns of the image.

    Returns
    -------
    FileContents
        Nothing where it is no such file.
    """
    if not str(file.primary_header().get("DATAMODL", "")).startswith(_SCHEMA):
        return FileContents()
    tree = _tree(file, url)
    band = tree.get("band")
    variance = _source(tree, "variance", "data", "value")
    mask = _source(tree, "mask", "data", 0)
    return FileContents(
        band=band if isinstance(band, str) else None,
        noise=None if variance is None else ImageRef(url, variance),
        noise_kind=None if variance is None else "variance",
        mask=None if mask is None else ImageRef(url, mask),
        psf=_psf(file, url, tree, shape_yx),
        parent_yx=_parent_yx(tree),
    )


def _tree(file: FitsFile, url: str) -> dict[str, Any]:
    unit = file.find("JSON", "table")
    if unit is None:
        return {}
    label = f"{url}[JSON]"
    data = file.read_data(unit, label, _MOST_JSON_BYTES)
    try:
        tree = json.loads(data[data.index(b"{") : data.rindex(b"}") + 1])
    except (ValueError, RecursionError) as error:
        raise FieldError(f"{label}: is no JSON; fetch the file again") from error
    return tree if isinstance(tree, dict) else {}


def _at(tree: Any, *path: str | int) -> Any:
    """Return a part of a tree; None where there is none."""
    for key in path:
        if isinstance(tree, Mapping):
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return None
    return tree


def _source(tree: dict[str, Any], *path: str | int) -> str | None:
    """Return the name of the HDU that a part of the tree points to."""
    source = _at(tree, *path, "source")
    return source[5:] if isinstance(source, str) and source.startswith("fits:") else None


def _psf(
    file: FitsFile, url: str, tree: dict[str, Any], shape_yx: tuple[int, int]
) -> FilePsf | None:
    """Read the kernels of the cells, and lay them over the image."""
    name = _source(tree, "psf", "array")
    cell = [_at(tree, "psf", "bounds", "grid", "cell_shape", axis) for axis in "yx"]
    start = [_at(tree, "psf", "bounds", "grid", "bbox", axis, "start") for axis in "yx"]
    origin = _parent_yx(tree)
    unit = None if name is None else file.find(name, "image")
    if unit is None or not all(_is_whole(each) for each in (*cell, *start)):
        return None
    label = f"{url}[{name}]"
    images = file.read_stack(unit, label, _MOST_PSF_PX)
    if images.ndim != 4 or cell[0] != cell[1] or cell[0] < 1:
        raise FieldError(f"{label}: is no grid of square cells with a kernel each; fetch it again")
    offset = np.zeros(2) if origin is None else np.array(origin) - np.array(start)
    kernels = _laid(images, cell[0], offset, shape_yx)
    return FilePsf.of_cells(kernels, cell[0], "kernels of the file", label)


def _parent_yx(tree: dict[str, Any]) -> tuple[float, float] | None:
    """Return the first pixel's place in the tract."""
    origin = _at(tree, "image", "yx0")
    if not isinstance(origin, list) or len(origin) != 2 or not all(map(_is_whole, origin)):
        return None
    return float(origin[0]), float(origin[1])


def _laid(
    images: NDArray[np.float64],
    cell_px: int,
    offset_yx: NDArray[np.float64],
    shape_yx: tuple[int, int],
) -> NDArray[np.float64]:
    """Return the kernels of cells that begin at the image's first pixel: that of each one's middle."""
    counts = square_grid(cell_px, shape_yx).counts_yx
    rows, columns = (
        np.clip((offset + (np.arange(count) + 0.5) * cell_px) // cell_px, 0, known - 1).astype(int)
        for offset, count, known in zip(offset_yx, counts, images.shape[:2], strict=True)
    )
    return images[np.ix_(rows, columns)]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31
