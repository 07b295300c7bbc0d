"""What a file says of its image besides pixels: the planes that belong to it, its band, its PSF."""

from __future__ import annotations

from dataclasses import dataclass

from deblend_batch.ingest.psf.from_files import FilePsf
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.ingest.sources import NoiseKind


@dataclass(frozen=True)
class FileContents:
    """What a file whose format tells it says.

    Parameters
    ----------
    band : str, optional
        Name of the band.
    noise, mask : ImageRef, optional
        The image's planes.
    noise_kind : {"rms", "weight", "variance"}, optional
        What ``noise`` holds.
    is_coverage : bool
        Whether the mask is positive where there are data, and has no bits.
    psf : FilePsf, optional
        PSF by cells.
    parent_yx : tuple of float, optional
        Where the first pixel lies in the frame that the image was cut from, px (y, x), from 0.
    """

    band: str | None = None
    noise: ImageRef | None = None
    noise_kind: NoiseKind | None = None
    mask: ImageRef | None = None
    is_coverage: bool = False
    psf: FilePsf | None = None
    parent_yx: tuple[float, float] | None = None
