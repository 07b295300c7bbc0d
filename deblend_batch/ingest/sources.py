"""What to ingest: which image, noise plane and mask plane make each band (pure; no file is read)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from deblend_batch.errors import ConfigError
from deblend_batch.ingest.reference import ImageRef, parse_hdu, parse_image, parse_plane

NoiseKind = Literal["rms", "weight", "variance"]
WITHOUT = "none"
"""What stands for a plane that a band does not have."""

T = TypeVar("T")


@dataclass(frozen=True)
class BandSource:
    """The planes that make one band.

    Parameters
    ----------
    image : ImageRef
        The pixels.
    noise : ImageRef, optional
        Plane of rms, weight or variance.
    noise_kind : {"rms", "weight", "variance"}, optional
        What ``noise`` holds; a weight is an inverse variance.
    mask : ImageRef, optional
        Plane of bad pixels.
    psf : ImageRef, optional
        What holds the PSF: kernels, a map of widths, or a model.
    left_out : frozenset of {"noise", "mask", "psf"}
        What the band is not to have, whatever its file says of it.
    number : int
        Of the plane, in an array of several bands.
    """

    image: ImageRef
    noise: ImageRef | None = None
    noise_kind: NoiseKind | None = None
    mask: ImageRef | None = None
    psf: ImageRef | None = None
    left_out: frozenset[str] = frozenset()
    number: int = 0

    @property
    def planes(self) -> list[ImageRef]:
        """All that are given."""
        given = (self.image, self.noise, self.mask, self.psf)
        return [each for each in given if each is not None]


def list_sources(
    images: Sequence[str],
    hdu: Sequence[str | int],
    noise: dict[NoiseKind, Sequence[str | int]],
    mask_hdu: Sequence[str | int],
    psf: Sequence[str | int] = (),
) -> list[BandSource]:
    """Match images with their HDUs, and with the planes of noise, mask and PSF."""
    refs = _images(images, hdu)
    given = {kind: planes for kind, planes in noise.items() if planes}
    if len(given) > 1:
        raise ConfigError(
            f"--{'-hdu and --'.join(given)}-hdu exclude each other; give the one kind of noise plane"
        )
    kind = next(iter(given), None)
    noise_refs = _planes(given[kind] if kind else (), refs, f"--{kind}-hdu")
    known = [ref for ref in noise_refs if ref is not None]
    if len(set(known)) < len(known):
        raise ConfigError(f"--{kind}-hdu: bands share a plane; give one per band, in order")
    if 0 < len(known) < len(refs):
        raise ConfigError(f"--{kind}-hdu: some bands have none; give one per band, or for none")
    mask_refs = _planes(mask_hdu, refs, "--mask-hdu")
    psf_refs = _planes(psf, refs, "--psf")
    said = {"noise": bool(given), "mask": bool(mask_hdu), "psf": bool(psf)}
    found = []
    for image, *planes in zip(refs, noise_refs, mask_refs, psf_refs, strict=True):
        noise_ref, mask_ref, psf_ref = planes
        left_out = frozenset(
            key for key, plane in zip(said, planes, strict=True) if said[key] and plane is None
        )
        noise_kind = kind if noise_ref else None
        found.append(BandSource(image, noise_ref, noise_kind, mask_ref, psf_ref, left_out))
    return found


def per_band(values: Sequence[T], count: int, option: str) -> list[T | None]:
    """Spread an option over the bands.

    Parameters
    ----------
    values : sequence
        None, one for all, or one per band.
    count : int
        Number of bands.
    option : str
        Its name, for the message.

    Returns
    -------
    list
        One per band; None where nothing was given.
    """
    if not values:
        return [None] * count
    if len(values) == 1:
        return [values[0]] * count
    if len(values) != count:
        raise ConfigError(f"{option}: {len(values)} values for {count} bands; give one per band")
    return list(values)


def _images(images: Sequence[str], hdu: Sequence[str | int]) -> list[ImageRef]:
    if not images:
        raise ConfigError("no image to ingest; give one or more FITS files")
    refs = [parse_image(text) for text in images]
    if not hdu:
        return refs
    if any(ref.hdu is not None for ref in refs):
        raise ConfigError("--hdu: an image names its HDU in brackets too; give it one way only")
    numbers = [parse_hdu(value) for value in hdu]
    if len(refs) == 1:
        return [ImageRef(refs[0].url, number) for number in numbers]
    if len(numbers) == 1:
        numbers *= len(refs)
    if len(numbers) != len(refs):
        raise ConfigError(f"--hdu: {len(numbers)} HDUs for {len(refs)} images; give one per image")
    return [ImageRef(ref.url, number) for ref, number in zip(refs, numbers, strict=True)]


def _planes(
    texts: Sequence[str | int], images: list[ImageRef], option: str
) -> list[ImageRef | None]:
    """Return one plane a band; None where nothing or ``none`` was given."""
    if not texts:
        return [None] * len(images)
    if len(texts) not in {1, len(images)}:
        raise ConfigError(
            f"{option}: {len(texts)} planes for {len(images)} bands; give one per band"
        )
    each = list(texts) * len(images) if len(texts) == 1 else texts
    return [
        None if text == WITHOUT else parse_plane(text, image)
        for text, image in zip(each, images, strict=True)
    ]
