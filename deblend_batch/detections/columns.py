"""Which columns of a table hold what we ask for: by the user's mapping, else by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deblend_batch.errors import DetectionsError
from deblend_batch.table_columns import Column, ColumnConfig
from deblend_batch.text import printable

PSF_FWHM = "psf_fwhm"
DETECTION_COLUMNS = ("id", "ra", "dec", "x", "y", "mag", "radius", PSF_FWHM)
PAIR_COLUMNS = ("central_id", "companion_id")

_MAX_SHOWN = 60
_IDS = frozenset({"id", *PAIR_COLUMNS})
_COUNTED_FROM_ONE = re.compile(
    r"[xy](?!err)[a-z]*_image(_\w+)?|pixel_centroid_[xy](_\w+)?|[xy]_coordinate", re.IGNORECASE
)
"""SExtractor's names of pixel positions, its successor's and CASU's: as in FITS, the first pixel is 1."""
_SIZES = {
    "pix": re.compile(
        r"flux_radius(_\w+)?|\w+_image(_\w+)?|(.*[_.])?(px|pix|pixels?)", re.IGNORECASE
    ),
    "deg": re.compile(r"\w+_world(_\w+)?|(.*[_.])?deg(rees?)?", re.IGNORECASE),
    "arcmin": re.compile(r"(.*[_.])?arcmin(utes?)?", re.IGNORECASE),
    "mas": re.compile(r"(.*[_.])?mas", re.IGNORECASE),
}
"""Names of sizes: SExtractor's, and those that end in a unit."""
_ANGLES = {
    "rad": re.compile(r".*[_.](rad|radians?)", re.IGNORECASE),
    "hourangle": re.compile(r".*[_.](hours?|hourangle|hrs)", re.IGNORECASE),
    "arcsec": re.compile(r".*[_.]arcsec(onds?)?", re.IGNORECASE),
}
"""Names of positions on the sky that end in a unit other than degrees."""
_SKY = re.compile(
    r"(\w+[._])?(ra|alpha|right_?ascension)([._]?(j2000|icrs|deg|mean|sky))?", re.IGNORECASE
)
"""What columns of right ascension are called, but not by our name for them."""


@dataclass(frozen=True)
class Source:
    """The columns of a table that make one of ours.

    Parameters
    ----------
    names : tuple of str
        Their names there; several only of an id.
    composed : bool
        Whether an id is the text of them all, also where it is a single one.
    is_flux : bool
        Whether a magnitude comes from a flux.
    unit : str, optional
        What the user says of the unit; else the table's word counts.
    zero_point : float, optional
        AB magnitude of one unit of the flux.
    """

    names: tuple[str, ...]
    composed: bool = False
    is_flux: bool = False
    unit: str | None = None
    zero_point: float | None = None

    @property
    def name(self) -> str:
        """The first of the columns."""
        return self.names[0]

    @classmethod
    def of(cls, column: Column) -> Source:
        """Understand what a mapping says."""
        if isinstance(column, str):
            return cls((column,))
        if isinstance(column, ColumnConfig):
            name = str(column.column or column.flux)
            return cls((name,), False, column.flux is not None, column.unit, column.zero_point)
        return cls(tuple(column), composed=True)


def check_mapping(columns: Mapping[str, Column], known: Sequence[str], url: str) -> None:
    """Refuse a mapping of columns that are not known here, or that says what makes no sense of one."""
    for key, column in columns.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DetectionsError(
                f"{url}: columns maps {key!r}, which is none of {', '.join(known)}{hint}"
            )
        source = Source.of(column)
        if source.composed and key not in _IDS:
            raise DetectionsError(f"{url}: columns.{key}: only ids are made of several columns")
        if source.is_flux and key != "mag":
            raise DetectionsError(f"{url}: columns.{key}: only 'mag' may come from a flux")


def psf_column(band: str) -> str:
    """Return our name of the column of the PSF's widths in a band."""
    return f"{PSF_FWHM}_{band}"


def resolve_detections(
    names: Sequence[str],
    columns: Mapping[str, Column],
    url: str,
    known: Sequence[str] = DETECTION_COLUMNS,
) -> dict[str, Source]:
    """Map our column names to a detection table's.

    Returns
    -------
    dict of Source
        ``id``, a position on the sky or in pixels (never both), and the others that are known, if there.
    """
    candidates = {ours: find_column(names, ours, columns, url) for ours in known}
    found = {ours: theirs for ours, theirs in candidates.items() if theirs is not None}
    if not {"ra", "dec"} & found.keys():
        found |= _sky_object(names)
    if "id" not in found:
        raise missing_column(names, "id", url)
    has_sky, has_pixels = {"ra", "dec"} <= found.keys(), {"x", "y"} <= found.keys()
    if not has_sky and not has_pixels:
        raise DetectionsError(
            f"{url}: no position: needs columns 'ra' and 'dec', or 'x' and 'y'; the table has "
            f"{listed(names)}; name them with 'columns: {{ra: NAME, dec: NAME}}'"
        )
    wants_pixels = {"x", "y"} <= columns.keys() and not {"ra", "dec"} & columns.keys()
    use_pixels = has_pixels and (wants_pixels or not has_sky)
    if use_pixels and not wants_pixels:
        _check_pixels_are_meant(names, url)
    unused = {"ra", "dec"} if use_pixels else {"x", "y"}
    return {ours: theirs for ours, theirs in found.items() if ours not in unused}


def origin_of(found: Mapping[str, Source]) -> int:
    """Return what the first pixel is called by the names of the positions: 1 by SExtractor, else 0."""
    names = [found[axis].name for axis in ("x", "y") if axis in found]
    return int(bool(names) and all(_COUNTED_FROM_ONE.fullmatch(name) for name in names))


def unit_of_size(name: str) -> str | None:
    """Return the unit of a radius or a width that states none, by its name; None where arcsec are meant."""
    return next((unit for unit, names in _SIZES.items() if names.fullmatch(name)), None)


def unit_of_angle(name: str) -> str | None:
    """Return the unit of a position on the sky that states none, by its name; None where it is degrees."""
    return next((unit for unit, names in _ANGLES.items() if names.fullmatch(name)), None)


def find_column(
    names: Sequence[str], ours: str, columns: Mapping[str, Column], url: str
) -> Source | None:
    """Find one of our columns in a table.

    Returns
    -------
    Source or None
        The mapped one; else that of our name, or the one that differs from it in case only; else None.
    """
    if ours in columns:
        source = Source.of(columns[ours])
        return Source(
            tuple(_mapped(names, name, ours, url) for name in source.names),
            source.composed,
            source.is_flux,
            source.unit,
            source.zero_point,
        )
    if ours in names:
        return Source((ours,))
    same = [name for name in names if name.lower() == ours]
    return Source((same[0],)) if len(same) == 1 else None


def check_there(names: Sequence[str], wanted: Sequence[str], key: str, url: str) -> None:
    """Refuse names of a config that the table does not have."""
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {shown(near[0])!r}?" if near else ""
            raise DetectionsError(
                f"{url}: no column {name!r} ({key}); the table has {listed(names)}{hint}"
            )


def missing_column(names: Sequence[str], ours: str, url: str) -> DetectionsError:
    """Return the error for a table without a column that it must have."""
    return DetectionsError(
        f"{url}: no column '{ours}'; the table has {listed(names)}; name it with "
        f"'columns: {{{ours}: NAME}}'"
    )


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return the names of columns, as far as a message shows them."""
    some = ", ".join(shown(name) for name in names[:most]) or "no columns"
    return f"{some}, and {len(names) - most} more" if len(names) > most else some


def shown(value: object) -> str:
    """Return what a table says, as far as a message shows it."""
    text = printable(str(value))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _mapped(names: Sequence[str], name: str, ours: str, url: str) -> str:
    if name in names:
        return name
    part = f"{name}.{ours}"  # of a column of sky coordinates, as astropy writes it
    if part in names:
        return part
    raise DetectionsError(
        f"{url}: no column {name!r} (mapped to '{ours}'); the table has {listed(names)}"
    )


def _sky_object(names: Sequence[str]) -> dict[str, Source]:
    """Find the one column of sky coordinates, which astropy writes as two: ``NAME.ra``, ``NAME.dec``."""
    stems = [name[: -len(".ra")] for name in names if name.lower().endswith(".ra")]
    whole = [stem for stem in stems if f"{stem}.dec" in names]
    if len(whole) != 1:
        return {}
    return {axis: Source((f"{whole[0]}.{axis}",)) for axis in ("ra", "dec")}


def _check_pixels_are_meant(names: Sequence[str], url: str) -> None:
    """Refuse pixel positions that nobody asked for beside what seems to be the position on the sky."""
    sky = [name for name in names if _SKY.fullmatch(name)]
    if sky:
        raise DetectionsError(
            f"{url}: has pixel positions 'x' and 'y', perhaps of another image, and {shown(sky[0])!r}, which "
            "seems to be the position on the sky; say which counts: 'columns: {ra: NAME, dec: NAME}', or "
            "'columns: {x: NAME, y: NAME}'"
        )
