"""What a survey's record gives where the user gives nothing: options, filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from deblend_batch.ingest.given import Given, UsualZeroPoint
from deblend_batch.ingest.header.mask_names import NO_CHOICE, BitChoice
from deblend_batch.ingest.reference import ImageRef, parse_image
from deblend_batch.ingest.sources import WITHOUT, NoiseKind
from deblend_batch.ingest.survey.files import PLANES, BandFiles, ListNames, find_files
from deblend_batch.surveys.record import SurveyRecord


@dataclass(frozen=True)
class FoundFiles:
    """What a survey's record found, to be shown before any of it is read.

    Parameters
    ----------
    survey : str
        Its name.
    bands : tuple of BandFiles
        One a band.
    given : tuple of str
        Planes that options say.
    """

    survey: str
    bands: tuple[BandFiles, ...]
    given: tuple[str, ...] = ()

    def to_rows(self) -> list[tuple[str, ...]]:
        """Return a table: names of the columns, then a row a band."""
        rows = [
            (each.band or "by header", each.image, *(self._shown(each, key) for key in PLANES))
            for each in self.bands
        ]
        return [("band", "image", *PLANES), *rows]

    def _shown(self, files: BandFiles, key: str) -> str:
        if key in self.given:
            return "as given"
        place = files.planes.get(key, WITHOUT)
        return "-" if place == WITHOUT else place


ShowFiles = Callable[[FoundFiles], None]
"""Shows what was found."""


def show_nothing(_: FoundFiles) -> None:
    """Keep what was found to oneself."""


def completed(
    given: Given, record: SurveyRecord, list_names: ListNames, show: ShowFiles = show_nothing
) -> Given:
    """Fill what the user does not give; what they give counts for more.

    Parameters
    ----------
    given : Given
        By options.
    record : SurveyRecord
        The survey's.
    list_names : callable
        Lists the names in a folder.
    show : callable
        Is called with the files before any is read.
    """
    options = {"noise": given.noise, "mask": given.mask, "psf": given.psf or given.psf_fwhm_arcsec}
    asked = [key for key in PLANES if not options[key]]
    files = [
        replace(each, image=_with_hdu(each.image, given, record))
        for each in find_files(given.images, record, asked, list_names)
    ]
    show(FoundFiles(record.name, tuple(files), tuple(key for key in PLANES if options[key])))
    return replace(
        given,
        images=tuple(each.image for each in files),
        noise=given.noise or _noise(files, record),
        mask=given.mask or _planes(files, "mask"),
        psf=given.psf or _planes(files, "psf"),
        bits=given.bits if given.bits != NO_CHOICE else BitChoice.of_record(record.mask),
        bands=given.bands or _bands(files),
        usual_zero_point=None
        if record.zero_point is None
        else UsualZeroPoint(record.zero_point, record.name),
    )


def _with_hdu(image: str, given: Given, record: SurveyRecord) -> str:
    """Return the image with the record's HDU, unless the user says which."""
    ref = parse_image(image)
    if given.hdu or ref.hdu is not None:
        return image
    return str(ImageRef(ref.url, record.image.hdu))


def _noise(
    files: Sequence[BandFiles], record: SurveyRecord
) -> dict[NoiseKind, Sequence[str | int]]:
    planes = _planes(files, "noise")
    return {record.noise.kind: planes} if record.noise and planes else {}


def _planes(files: Sequence[BandFiles], key: str) -> tuple[str | int, ...]:
    """Return one a band; nothing where the record or the user has no such plane."""
    return tuple(each.planes[key] for each in files if key in each.planes)


def _bands(files: Sequence[BandFiles]) -> tuple[str, ...]:
    """Return the names of the bands, where all files' names tell them."""
    names = tuple(each.band for each in files)
    return names if all(names) else ()
