"""The files of one field, found by the patterns of a survey's record (pure, but for listing folders)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deblend_batch import storage
from deblend_batch.errors import FieldError, NotFoundError
from deblend_batch.ingest.reference import SUFFIXES, ImageRef, parse_image
from deblend_batch.ingest.sources import WITHOUT
from deblend_batch.surveys.names import NamePattern
from deblend_batch.surveys.record import PlaneConfig, SurveyRecord

PLANES = ("noise", "mask", "psf")
"""What may belong to an image, by its key in a record."""

ListNames = Callable[[str], Sequence[str]]
"""Lists the names in a folder."""

_OPTIONS = {"mask": "--mask-hdu", "psf": "--psf"}
_MAX_SHOWN = 4


@dataclass(frozen=True)
class BandFiles:
    """The files of one band.

    Parameters
    ----------
    image : str
        ``FILE`` or ``FILE[HDU]``.
    band : str
        Its name; empty where the header is to say.
    planes : dict of str
        Of noise, mask and PSF: ``FILE``, ``FILE[HDU]``, an HDU of the image's file, or ``none``; what the
        record does not know of is not there.
    """

    image: str
    band: str
    planes: dict[str, str]


def find_files(
    images: Sequence[str], record: SurveyRecord, asked: Sequence[str], list_names: ListNames
) -> list[BandFiles]:
    """Find what belongs to the images.

    Parameters
    ----------
    images : sequence of str
        ``FILE``, ``FILE[HDU]``, or a folder that holds one field; files of planes among them are candidates.
    record : SurveyRecord
        The survey's.
    asked : sequence of str
        Which of :data:`PLANES` are looked for; options say where the others are.
    list_names : callable
        Lists the names in a folder, of which there may be none.

    Raises
    ------
    NotFoundError
        If a file is missing.
    FieldError
        If there are several for one place, or a folder holds several fields.
    """
    pattern = NamePattern(record.image.file) if record.image.file else None
    known = {key: getattr(record, key) for key in asked}
    planes = {key: plane for key, plane in known.items() if plane and plane.is_placed}
    refs = [parse_image(text) for text in images]
    if pattern is not None:
        refs = [each for ref in refs for each in _expanded(ref, pattern, record, list_names)]
    beside = _planes_given(refs, pattern, planes)
    has_files = any(plane.file for plane in planes.values())
    found = []
    for ref in refs:
        if ref.url in beside:
            continue
        folder, name = _split(ref.url)
        parts = (pattern.match(name) if pattern else None) or {}
        names = list_names(folder or ".") if has_files else ()
        here = [f"{folder}{each}" for each in names]
        near = [*here, *(each for each in beside if each not in here)]
        places = {
            key: _place(key, plane, record, ref, parts, near) for key, plane in planes.items()
        }
        band = parts.get("band", "") if record.band == "name" else ""
        found.append(BandFiles(str(ref), band, places))
    return found


def _expanded(
    ref: ImageRef, pattern: NamePattern, record: SurveyRecord, list_names: ListNames
) -> list[ImageRef]:
    """Return the images of a folder, or what was given where it is a file."""
    url, name = ref.url.rstrip("/"), _split(ref.url)[1]
    is_file = name.lower().endswith(SUFFIXES) or pattern.match(name)
    if ref.hdu is not None or is_file or not list_names(url):
        return [ref]
    names = [each for each in list_names(url) if pattern.match(each)]
    if not names:
        raise NotFoundError(
            f"{url}: holds no image of {record.name} ({pattern.text}); name the images"
        )
    fields = {
        tuple(
            sorted(
                (key, part) for key, part in (pattern.match(each) or {}).items() if key != "band"
            )
        )
        for each in names
    }
    if len(fields) > 1:
        some = ", ".join(names[:_MAX_SHOWN])
        raise FieldError(
            f"{url}: holds images of {len(fields)} fields of {record.name} ({some}, ...); name those of one"
        )
    return [ImageRef(f"{url}/{each}") for each in names]


def _planes_given(
    refs: Sequence[ImageRef], pattern: NamePattern | None, planes: dict[str, PlaneConfig]
) -> list[str]:
    """Return the files that are called as planes are, and not as images are."""
    others = [NamePattern(plane.file) for plane in planes.values() if plane.file]
    names = {ref.url: _split(ref.url)[1] for ref in refs}
    return [
        url
        for url, name in names.items()
        if not (pattern and pattern.match(name)) and any(each.match(name) for each in others)
    ]


def _place(
    key: str,
    plane: PlaneConfig,
    record: SurveyRecord,
    image: ImageRef,
    parts: dict[str, str],
    near: Sequence[str],
) -> str:
    """Say where a plane is."""
    if plane.bands is not None and parts.get("band") not in plane.bands:
        return WITHOUT
    if plane.file is None:
        return str(plane.hdu)
    option = _OPTIONS.get(key) or f"--{getattr(plane, 'kind', 'rms')}-hdu"
    wanted = NamePattern(plane.file)
    if not parts and wanted.parts:
        if plane.optional:
            return WITHOUT
        raise FieldError(
            f"{image.url}: is not called as {record.name}'s images are ({record.image.file}), so that its "
            f"{key} plane cannot be found; give {option} FILE, or another --survey (deblend-batch surveys)"
        )
    found = [url for url in near if wanted.matches(_split(url)[1], parts)]
    if len(found) == 1:
        # A file is told from an HDU by its folder.
        url = found[0] if "/" in found[0] else f"./{found[0]}"
        return str(ImageRef(url, plane.hdu))
    called = wanted.filled(parts)
    if found:
        some = ", ".join(_split(url)[1] for url in found[:_MAX_SHOWN])
        raise FieldError(
            f"{image.url}: {len(found)} files may be its {key} plane ({some}); give {option} FILE"
        )
    if plane.optional:
        return WITHOUT
    raise NotFoundError(
        f"{image.url}: no {key} plane {called} beside it, as --survey {record.name} has it; fetch it, "
        f"or give {option} FILE, or {option} {WITHOUT}"
    )


def _split(url: str) -> tuple[str, str]:
    """Return the folder of a URL, with the slash at its end, and the name."""
    name = storage.name_of(url)
    at = url.rstrip("/").rfind(name) if name else len(url)
    return url[:at], name
