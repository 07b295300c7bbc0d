"""A field whose pixels stay where they are: which arrays it refers to, and whether that can be."""

from __future__ import annotations

from collections.abc import Sequence

from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.field.references import Reference
from deblend_batch.ingest.files.plane import Plane
from deblend_batch.ingest.files.zarr_file import ZarrPlane
from deblend_batch.ingest.measure import MeasuredBand
from deblend_batch.ingest.planes.mask_plane import UNOBSERVED
from deblend_batch.storage import Options

_COPY = "leave out --by-reference, and the field gets a copy"


def references_to(
    measured: Sequence[MeasuredBand], field_url: str, options: Options | None
) -> dict[str, Reference]:
    """Refer to the arrays of a field's bands, which are those of one array each.

    Parameters
    ----------
    measured : sequence of MeasuredBand
        The bands.
    field_url : str
        The field that is to be written.
    options : mapping, optional
        fsspec storage options.
    """
    found = {}
    for name in ("image", "variance", "mask"):
        planes = [_plane(item, name) for item in measured]
        places = {_place(plane) for plane in planes if plane is not None}
        if len(places) > 1:
            raise ConfigError(
                f"--by-reference: the bands' {name}s are several arrays ({', '.join(sorted(places))}), and a "
                f"field refers to one; {_COPY}"
            )
        if places:
            found[name] = Reference.to(places.pop(), field_url, options)
    return found


def check_as_stored(item: MeasuredBand) -> None:
    """Refuse pixels that ingesting would change, and planes that a field does not have in this way."""
    band = item.band
    problem = None
    if item.surface is not None:
        problem = (
            f"its background of {item.level:.3g} is not subtracted (--background keep if meant)"
        )
    elif band.factor != 1:
        problem = "its values are beyond the range of float32's squares"
    elif band.zero_is_missing:
        problem = "it has blocks of zeros, which are no data"
    elif band.missing.numbers:
        problem = f"its pixels of {band.missing} are no data"
    elif band.noise is not None and band.noise.kind != "variance":
        problem = f"its noise plane is of the kind {band.noise.kind}, and a field has variances"
    _refuse(band.image, problem or _unlike(band.image))
    for plane in () if band.noise is None else (band.noise.plane,):
        _refuse(plane, _unlike(plane))
    if band.mask is not None:
        _refuse(band.mask.plane, _unlike(band.mask.plane, is_mask=True))


def _unlike(plane: Plane, *, is_mask: bool = False) -> str:
    return plane.unlike_a_field_s(is_mask=is_mask) if isinstance(plane, ZarrPlane) else ""


def _refuse(plane: Plane, problem: str) -> None:
    if problem:
        raise FieldError(f"{plane.label}: cannot be used by reference: {problem}; or {_COPY}")


def as_stored(bits: MaskBits | None) -> MaskBits | None:
    """Return what the bits of a mask mean that is not written anew: nothing marks pixels without data."""
    if bits is None:
        return None
    known = {name: bit for name, bit in bits.bits.items() if name != UNOBSERVED}
    return MaskBits(known, tuple(name for name in bits.bad if name != UNOBSERVED))


def _plane(item: MeasuredBand, name: str) -> Plane | None:
    band = item.band
    if name == "image":
        return band.image
    holder = band.noise if name == "variance" else band.mask
    return None if holder is None else holder.plane


def _place(plane: Plane) -> str:
    if not isinstance(plane, ZarrPlane):
        raise ConfigError(f"--by-reference: {plane.url} is no array of Zarr; {_COPY}")
    return plane.place
