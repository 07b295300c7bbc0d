"""Whether files are laid out as a survey's are: by their names, cards and HDUs."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from itertools import islice

from astropy.io import fits

from deblend_batch import storage
from deblend_batch.errors import DeblendError, FieldError
from deblend_batch.ingest.files.asdf.file import AsdfFile
from deblend_batch.ingest.files.hdus import FitsFile, settled
from deblend_batch.ingest.files.opening import ImageFiles
from deblend_batch.ingest.given import Given
from deblend_batch.ingest.reference import parse_image
from deblend_batch.surveys.names import NamePattern
from deblend_batch.surveys.record import SurveyRecord

_MOST_HDUS = 64


def check_layout(files: ImageFiles, given: Given, record: SurveyRecord) -> None:
    """Refuse images that are not laid out as a survey's are: another's cards, or without its HDUs.

    Parameters
    ----------
    files : ImageFiles
        Opens files.
    given : Given
        As the record has filled it.
    record : SurveyRecord
        The survey's.
    """
    for text in given.images:
        url = parse_image(text).url
        file = files.file(url)
        if not isinstance(file, _FORMATS[record.format]):
            raise FieldError(
                f"{url}: is none of {record.name}: those are {record.format.upper()}; {_ELSE}"
            )
        if not isinstance(file, FitsFile):
            continue
        wrong = _wrong_card(file, record)
        if wrong:
            raise FieldError(f"{url}: is none of {record.name}: {wrong}; {_ELSE}")
        for hdu in _own_hdus(given, record):
            if not _has(file, hdu):
                raise FieldError(
                    f"{url}: is not laid out as {record.name}: no HDU {hdu!r}; it has {file.listing()}; "
                    f"{_ELSE}"
                )


_FORMATS = {"fits": FitsFile, "asdf": AsdfFile}
_ELSE = "give another --survey (deblend-batch surveys), or the options instead of one"


def recognised(
    files: ImageFiles, url: str, records: Mapping[str, SurveyRecord]
) -> SurveyRecord | None:
    """Return the survey whose layout a file has; None where it is none's, or that of several.

    All HDUs that a record's layout names must be there, no card may say otherwise, and the cards or the
    file's name must be the survey's. Of several the one counts whose layout says most.
    """
    name = storage.name_of(url)
    try:
        file = files.file(url)
        if not isinstance(file, FitsFile):
            return None
        scores = {each.name: _score(file, name, each) for each in records.values()}
    except DeblendError:
        return None
    best = max(scores.values(), default=0)
    found = [each for each, score in scores.items() if score == best]
    return records[found[0]] if best > 0 and len(found) == 1 else None


def _score(file: FitsFile, name: str, record: SurveyRecord) -> int:
    """Count what of a record's layout a file has; 0 where it is not the survey's."""
    layout, pattern = record.layout, record.image.file
    if not all(_has(file, hdu) for hdu in layout.hdus) or _wrong_card(file, record):
        return 0
    named = pattern is not None and NamePattern(pattern).match(name) is not None
    carded = all(_card(file, key) for key in layout.cards)
    if not named and not (carded and (layout.cards or layout.hdus)):
        return 0
    return len(layout.hdus) + carded * len(layout.cards) + 2 * named


def needless_options(record: SurveyRecord) -> set[str]:
    """Return the options that a record makes needless."""
    given = {
        "--zero-point": record.zero_point is not None,
        "--mask-bits": record.mask is not None,
        "--psf-fwhm": record.psf is not None,
    }
    return {option for option, is_given in given.items() if is_given}


def _wrong_card(file: FitsFile, record: SurveyRecord) -> str:
    """Say which card has another value than the survey's; one that is missing says nothing."""
    for key, value in record.layout.cards.items():
        said = _card(file, key)
        if said and not fnmatch.fnmatchcase(said, value):
            return f"{key} is {said!r}, not {value!r}"
    return ""


def _own_hdus(given: Given, record: SurveyRecord) -> list[str | int]:
    """Return the HDUs of the image's file that the record names, and no option replaces."""
    own = (record.image, record.noise, record.mask, record.psf)
    replaceable = {plane.hdu for plane in own if plane is not None}
    wanted: list[str | int] = [name for name in record.layout.hdus if name not in replaceable]
    if record.image.hdu is not None and not given.hdu:
        wanted.append(record.image.hdu)
    for plane, places in ((record.noise, _noise(given)), (record.mask, given.mask)):
        if plane is not None and plane.file is None and plane.hdu is not None:
            wanted += [plane.hdu] if set(map(str, places)) == {str(plane.hdu)} else []
    return wanted


def _noise(given: Given) -> list[str | int]:
    return [place for places in given.noise.values() for place in places]


def _has(file: FitsFile, hdu: str | int) -> bool:
    return any(
        unit.number == hdu if isinstance(hdu, int) else unit.is_called(hdu)
        for unit in islice(file.units(), _MOST_HDUS)
    )


def _card(file: FitsFile, key: str) -> str:
    """Return a card's value as text: the primary header's, else that of the first image's."""
    for header in _headers(file):
        value = header.get(key)
        if isinstance(value, str | int | float):
            return str(value).strip()
    return ""


def _headers(file: FitsFile) -> list[fits.Header]:
    units = list(islice(file.units(), _MOST_HDUS))
    image = next((unit for unit in units if unit.is_image_2d), None)
    numbers = {0} if image is None else {0, image.number}
    return [settled(file.header(unit)) for unit in units if unit.number in numbers]
