"""What a field says of itself: the attributes of its Zarr group, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deblend_batch.errors import FieldError
from deblend_batch.field.footprint import Footprint
from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.field.photometry import ZERO_POINT_RANGE
from deblend_batch.field.wcs.cards import Card, Cards
from deblend_batch.text import shown

LAYOUT_VERSION = 1
VERSION_ATTRIBUTE = "deblend_batch_field"
UNFINISHED_ATTRIBUTE = "deblend_batch_unfinished"

PSF_FWHM_RANGE = (1e-6, 3600.0)
"""Arcsec between which any PSF is."""

_MAX_BANDS = 1000
_MAX_NAME = 256


@dataclass(frozen=True)
class FieldMeta:
    """Attributes of a field.

    Parameters
    ----------
    name : str
        Name of the field.
    bands : tuple of str
        Names of the bands, in the order of the image's planes.
    zero_point : tuple of float
        AB magnitude of one image unit, per band.
    psf_fwhm_arcsec : tuple of float
        Full width at half maximum of the point spread function, per band.
    wcs_cards : mapping
        FITS header cards of the celestial WCS.
    noise_sigma : tuple of float, optional
        Background rms per pixel and band, image units; None where it is to be measured.
    saturate : tuple of float or None, optional
        Pixel value from which a band is saturated, image units, None for a band where that is not known;
        None where it is known for no band.
    noise_correlation : tuple of float, optional
        Per band: rms of a sum over many pixels, over what independent pixels of the same rms would give.
    mask_bits : MaskBits, optional
        What the bits of the mask mean; without it every bit makes a pixel bad.
    footprint : Footprint, optional
        The part of the field that is its own where fields of a survey overlap.
    parent_yx : tuple of float, optional
        Where the first pixel lies in the larger frame that the image was cut from, px (y, x), from 0.
    """

    name: str
    bands: tuple[str, ...]
    zero_point: tuple[float, ...]
    psf_fwhm_arcsec: tuple[float, ...]
    wcs_cards: Cards
    noise_sigma: tuple[float, ...] | None = None
    saturate: tuple[float | None, ...] | None = None
    noise_correlation: tuple[float, ...] | None = None
    mask_bits: MaskBits | None = None
    footprint: Footprint | None = None
    parent_yx: tuple[float, float] | None = None

    def to_attributes(self) -> dict[str, Any]:
        """Return the attributes of the Zarr group, JSON-able; the contract of the layout."""
        attributes: dict[str, Any] = {
            VERSION_ATTRIBUTE: LAYOUT_VERSION,
            "name": self.name,
            "bands": list(self.bands),
            "zero_point": [float(value) for value in self.zero_point],
            "psf_fwhm": [float(value) for value in self.psf_fwhm_arcsec],
            "wcs": dict(self.wcs_cards),
        }
        if self.noise_sigma is not None:
            attributes["noise_sigma"] = [float(value) for value in self.noise_sigma]
        if self.saturate is not None:
            attributes["saturate"] = list(self.saturate)
        if self.noise_correlation is not None:
            attributes["noise_correlation"] = [float(value) for value in self.noise_correlation]
        if self.mask_bits is not None:
            attributes |= self.mask_bits.to_attributes()
        if self.footprint is not None:
            attributes |= self.footprint.to_attributes()
        if self.parent_yx is not None:
            attributes["parent_origin"] = list(self.parent_yx)
        return attributes

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], url: str) -> FieldMeta:
        """Check the attributes of a Zarr group."""
        _check_version(attributes, url)
        bands = _bands(attributes, url)
        name = _required(attributes, url, "name", "a name for the field")
        if not _is_name(name):
            raise FieldError(
                f"{url}: attribute 'name' is {shown(name)}; it must be a non-empty string of at most "
                f"{_MAX_NAME} characters"
            )
        return cls(
            name=name,
            bands=bands,
            zero_point=_numbers(attributes, url, "zero_point", len(bands)),
            psf_fwhm_arcsec=_numbers(attributes, url, "psf_fwhm", len(bands)),
            wcs_cards=_cards(attributes, url),
            noise_sigma=_optional(attributes, url, "noise_sigma", len(bands)),
            saturate=_saturate(attributes, url, len(bands)),
            noise_correlation=_optional(attributes, url, "noise_correlation", len(bands)),
            mask_bits=MaskBits.from_attributes(attributes, url),
            footprint=Footprint.from_attributes(attributes, url),
            parent_yx=_parent(attributes, url),
        )


_HELP = {
    "zero_point": "the AB magnitude of one image unit, per band",
    "psf_fwhm": "the PSF's full width at half maximum in arcsec, per band",
    "noise_sigma": "the background rms in image units, per band",
    "saturate": "the pixel value from which a band is saturated, null where it is not known",
    "noise_correlation": "the noise of sums over that of independent pixels, per band",
    "parent_origin": "y and x of the first pixel in the frame that the image was cut from",
}
_RANGE = {
    "zero_point": ZERO_POINT_RANGE,
    "psf_fwhm": PSF_FWHM_RANGE,
    "noise_sigma": (1e-45, 3.4e38),  # what a float32 can be
    "saturate": (1e-45, 3.4e38),
    "noise_correlation": (0.01, 1000.0),
    "parent_origin": (-1e9, 1e9),
}


def _check_version(attributes: Mapping[str, Any], url: str) -> None:
    if UNFINISHED_ATTRIBUTE in attributes:
        raise FieldError(f"{url}: this field was never finished; ingest or simulate it again")
    version = _required(attributes, url, VERSION_ATTRIBUTE, "the layout version, 1")
    if version != LAYOUT_VERSION or isinstance(version, bool):
        raise FieldError(
            f"{url}: attribute '{VERSION_ATTRIBUTE}' is {shown(version)}; this release reads layout "
            f"{LAYOUT_VERSION}: update deblend-batch, or ingest the image again"
        )


def _required(attributes: Mapping[str, Any], url: str, key: str, what: str) -> Any:
    if key not in attributes:
        raise FieldError(f"{url}: attribute '{key}' is missing; set it to {what}")
    return attributes[key]


def _bands(attributes: Mapping[str, Any], url: str) -> tuple[str, ...]:
    bands = _required(attributes, url, "bands", "the list of band names")
    if (
        not isinstance(bands, list | tuple)
        or not bands
        or not all(_is_name(band) for band in bands)
    ):
        raise FieldError(
            f"{url}: attribute 'bands' is {shown(bands)}; it must be a list of band names of at most "
            f"{_MAX_NAME} characters"
        )
    if len(bands) > _MAX_BANDS:
        raise FieldError(
            f"{url}: attribute 'bands' names {len(bands)} bands; give at most {_MAX_BANDS}"
        )
    if len(set(bands)) < len(bands):
        raise FieldError(
            f"{url}: attribute 'bands' is {shown(bands)}; give every band its own name"
        )
    return tuple(bands)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME


def _numbers(attributes: Mapping[str, Any], url: str, key: str, length: int) -> tuple[float, ...]:
    values = _required(attributes, url, key, f"a list: {_HELP[key]}")
    if not isinstance(values, list | tuple):
        raise FieldError(
            f"{url}: attribute '{key}' is {shown(values)}; it must be a list: {_HELP[key]}"
        )
    if len(values) != length:
        raise FieldError(
            f"{url}: attribute '{key}' has {len(values)} values for {length} bands; "
            f"give {_HELP[key]}"
        )
    low, high = _RANGE[key]
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            kind = "a positive number" if low > 0 else "a finite number"
            raise FieldError(
                f"{url}: attribute '{key}' holds {shown(value)}; each must be {kind} from {low:g} to "
                f"{high:g}: {_HELP[key]}"
            )
    return tuple(float(value) for value in values)


def _optional(
    attributes: Mapping[str, Any], url: str, key: str, length: int
) -> tuple[float, ...] | None:
    return None if attributes.get(key) is None else _numbers(attributes, url, key, length)


def _saturate(
    attributes: Mapping[str, Any], url: str, length: int
) -> tuple[float | None, ...] | None:
    """Check levels, of which some may be null."""
    values = attributes.get("saturate")
    if not isinstance(values, list | tuple) or len(values) != length:
        return _optional(attributes, url, "saturate", length)
    known = [value for value in values if value is not None]
    numbers = iter(_numbers({"saturate": known}, url, "saturate", len(known)))
    return tuple(None if value is None else next(numbers) for value in values)


def _parent(attributes: Mapping[str, Any], url: str) -> tuple[float, float] | None:
    values = attributes.get("parent_origin")
    if values is None:
        return None
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise FieldError(
            f"{url}: attribute 'parent_origin' is {shown(values)}; give {_HELP['parent_origin']}"
        )
    y, x = _numbers(attributes, url, "parent_origin", 2)
    return y, x


def _cards(attributes: Mapping[str, Any], url: str) -> dict[str, Card]:
    cards = _required(attributes, url, "wcs", "a mapping of FITS header cards")
    if not isinstance(cards, Mapping) or not all(
        isinstance(value, str | int | float | bool) for value in cards.values()
    ):
        raise FieldError(f"{url}: attribute 'wcs' must be a mapping of FITS header cards to values")
    return {str(key): value for key, value in cards.items()}
