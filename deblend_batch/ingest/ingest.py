"""Images become a field: headers checked first, two windowed passes, attributes last.

The first pass measures the sky in a coarse mesh (and the PSF and the noise's correlation, from a sample of
windows), the second subtracts it and writes whole shards. Memory holds one shard, whatever the image's size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import zarr
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.create import SHARD_PX, check_target, create_field, finish_field
from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.field.meta import FieldMeta
from deblend_batch.field.psf.varying import FieldPsf
from deblend_batch.field.references import Reference
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.bands import Band, open_bands
from deblend_batch.ingest.by_reference import as_stored, check_as_stored, references_to
from deblend_batch.ingest.checks import check_names
from deblend_batch.ingest.files.opening import ImageFiles, open_files
from deblend_batch.ingest.given import Given, by_band
from deblend_batch.ingest.header.mask_names import BitChoice
from deblend_batch.ingest.measure import Background, MeasuredBand, measure_band, measure_steps
from deblend_batch.ingest.planes.halos import with_halos
from deblend_batch.ingest.psf.cells import MeasuredPsf, measure_cells
from deblend_batch.ingest.psf.from_files import field_psf
from deblend_batch.ingest.reference import ImageRef, parse_image
from deblend_batch.ingest.sources import NoiseKind
from deblend_batch.ingest.summary import IngestSummary, summarise
from deblend_batch.ingest.survey.files import ListNames
from deblend_batch.ingest.survey.given import ShowFiles, completed, show_nothing
from deblend_batch.ingest.survey.layout import check_layout, needless_options, recognised
from deblend_batch.progress import Progress, silent
from deblend_batch.storage import Options
from deblend_batch.surveys.record import SurveyRecord
from deblend_batch.surveys.shipped import load_survey, shipped_surveys

_REMOTE_SHARDS = 4


def ingest(
    images: Sequence[str],
    field_url: str,
    *,
    hdu: Sequence[str | int] = (),
    rms_hdu: Sequence[str | int] = (),
    weight_hdu: Sequence[str | int] = (),
    variance_hdu: Sequence[str | int] = (),
    mask_hdu: Sequence[str | int] = (),
    mask_bits: Sequence[str] = (),
    bands: Sequence[str] = (),
    zero_points: Sequence[float] = (),
    psf: Sequence[str | int] = (),
    psf_fwhm_arcsec: Sequence[float] = (),
    survey: str | None = None,
    name: str | None = None,
    background: Background = "auto",
    ignore_checksum: bool = False,
    meant: Sequence[str] = (),
    header: str | None = None,
    by_reference: bool = False,
    overwrite: bool = False,
    options: Options | None = None,
    progress: Progress = silent,
    show_files: ShowFiles = show_nothing,
) -> IngestSummary:
    """Make a field from images: FITS, ASDF or Zarr.

    Parameters
    ----------
    images : sequence of str
        ``FILE`` or ``FILE[HDU]``, local or remote: FITS, plain, tile-compressed or packed (gzip, bzip2,
        xz), ASDF, or arrays of Zarr; one file per band, or one file with several bands (``hdu``). All bands
        must lie on one grid of pixels.
    field_url : str
        Where to write the field.
    hdu : sequence of str or int
        Names or numbers of the image HDUs: one for all files, or one per band.
    rms_hdu, weight_hdu, variance_hdu : sequence of str or int
        The noise planes, of one kind: an HDU of the image's own file, ``FILE``, ``FILE[HDU]``, or ``none``.
        A weight is an inverse variance; pixels whose rms, weight or variance is not positive are bad.
    mask_hdu : sequence of str or int
        Planes of bad pixels, given likewise. Where a header names the bits, those are bad that say so;
        else all that is not zero. Blocks of zeros in an image with noise, the rim that mosaicking leaves,
        are masked without being asked for.
    mask_bits : sequence of str
        Names or numbers (0 is the lowest) of the bits that make a pixel bad, or the name of a survey, whose
        record then says.
    bands : sequence of str
        Names of the bands; the headers' ``FILTER`` if absent.
    zero_points : sequence of float
        AB magnitudes of one image unit, one for all or one per band; from the header if absent.
    psf : sequence of str or int
        What holds the PSF, given as planes are: kernels in an HDU (y, x, or cell_y, cell_x, y, x), a map of
        its width (arcsec, of the image's size), PSFEx's model, or Euclid's stamps.
    psf_fwhm_arcsec : sequence of float
        One for all or one per band; from the header, else measured from stars, if absent. If absent,
        stars also give the PSF's image and its variation.
    survey : str, optional
        Name of a survey, or its record's file (YAML): what options do not say is as its files have it, and
        planes in files of their own are found beside the images. A folder of one field may be an image.
    name : str, optional
        Name of the field; the last part of ``field_url`` if absent.
    background : {"auto", "keep", "subtract"}
        ``auto`` subtracts a smooth background where its level is typically more than 0.05 of the noise
        off zero, and leaves images alone that are background-subtracted already.
    ignore_checksum : bool
        Take data that do not fit the ``DATASUM`` of their header.
    meant : sequence of {"psf", "noise", "mask"}
        Comparisons of what a file says with what its image shows that must not stop the ingestion.
    header : str, optional
        ``FILE`` or ``FILE[HDU]``: the FITS header of images in Zarr, whose attributes say no WCS.
    by_reference : bool
        Leave the pixels, which are in Zarr, where they are: the field refers to them.
    overwrite : bool
        Replace an existing field.
    options : mapping, optional
        fsspec storage options, for reading and writing.
    progress : callable, optional
        Progress of windows done.
    show_files : callable, optional
        Is called with the files that a survey's record finds, before they are read.

    Returns
    -------
    IngestSummary
        What was found and written.

    Raises
    ------
    ConfigError
        If options contradict each other or the number of bands.
    NotFoundError
        If a file is missing.
    FieldError
        If an image is no FITS, damaged, without a celestial WCS, on another grid, or says no zero point
        or PSF width; if its PSF, its noise plane or its mask cannot be that of its pixels.
    TooLargeError
        If an image, a compressed tile, or what a gzipped file unpacks to, is beyond the bounds.
    OutputConflictError
        If a field is there already.
    StorageError
        If a store refuses a read or a write.
    """
    started = time.monotonic()
    if background not in {"auto", "keep", "subtract"}:
        raise ConfigError(f"background: {background!r} is none of auto, keep, subtract")
    check_names(meant)
    given = Given(
        images=tuple(images),
        hdu=tuple(hdu),
        noise=_noise_planes(rms_hdu, weight_hdu, variance_hdu),
        mask=tuple(mask_hdu),
        psf=tuple(psf),
        bits=BitChoice.of_words(mask_bits, options),
        bands=tuple(bands),
        zero_points=tuple(zero_points),
        psf_fwhm_arcsec=tuple(psf_fwhm_arcsec),
    )
    record = None if survey is None else load_survey(survey, options)
    if record is not None:
        given = completed(given, record, _lister(options), show_files)
    sources = given.sources()
    planes = [plane for source in sources for plane in source.planes]
    check_target(field_url, options, overwrite=overwrite, inputs=[plane.url for plane in planes])
    scratch = _scratch(field_url, options)
    stated = None if header is None else parse_image(header)
    with open_files(options, scratch, check_sums=not ignore_checksum, header=stated) as files:
        if record is not None:
            check_layout(files, given, record)
        with _suggesting(files, sources[0].image, record) as suggestion:
            opened = open_bands(files, by_band(given, files.by_bands(sources)))
            measured = _measure(opened, background, meant, progress)
        references = _references(measured, field_url, options) if by_reference else {}
        stars = _measure_psf(measured)
        bands_found = tuple(summarise(item, n, stars) for n, item in enumerate(measured))
        meta = _meta(name or storage.name_of(field_url).removesuffix(".zarr"), measured)
        if by_reference:
            meta = replace(meta, mask_bits=as_stored(meta.mask_bits))
        elif any(len(item.halos) for item in measured):
            meta = replace(meta, mask_bits=with_halos(meta.mask_bits))
        group = create_field(
            field_url,
            meta,
            opened[0].shape_yx,
            with_variance=opened[0].noise is not None,
            mask=any(item.band.has_mask for item in measured) or meta.mask_bits is not None,
            psf=_psf(measured, None if stars is None else stars.psf),
            options=options,
            attributes={"provenance": [asdict(found) for found in bands_found]},
            references=references,
            overwrite=overwrite,
        )
        if not by_reference:
            _write(group, field_url, meta.mask_bits, measured, progress)
        finish_field(group, meta)
    return IngestSummary(
        url=field_url,
        name=meta.name,
        shape_yx=opened[0].shape_yx,
        pixel_scale_arcsec=_grid(opened[0]).pixel_scale_arcsec(),
        bands=bands_found,
        bad_fraction=_bad_fraction(measured),
        seconds=time.monotonic() - started,
        suggestion=suggestion,
    )


@contextmanager
def _suggesting(files: ImageFiles, image: ImageRef, record: SurveyRecord | None) -> Iterator[str]:
    """Give what to say of a layout that is known; an error for want of what its survey says ends with it."""
    found = None
    if record is None:
        found = recognised(files, image.url, shipped_surveys())
    option = "" if found is None else f"--survey {found.name}"
    try:
        yield option and f"its layout is that of {found.title}: {option}"  # type: ignore[union-attr]
    except (ConfigError, FieldError) as error:
        if found is None or not any(each in str(error) for each in needless_options(found)):
            raise
        raise type(error)(f"{error}; its layout is known: {option}") from error


def _noise_planes(
    rms: Sequence[str | int], weight: Sequence[str | int], variance: Sequence[str | int]
) -> dict[NoiseKind, Sequence[str | int]]:
    kinds: dict[NoiseKind, Sequence[str | int]] = {
        "rms": rms,
        "weight": weight,
        "variance": variance,
    }
    return {kind: planes for kind, planes in kinds.items() if planes}


def _lister(options: Options | None) -> ListNames:
    """Return what lists each folder once."""

    @cache
    def names(folder: str) -> Sequence[str]:
        return storage.list_names(folder, options)

    return names


def _scratch(field_url: str, options: Options | None) -> str | None:
    """Return the folder where gzipped images are unpacked: beside the field, on a disk made for images."""
    if not storage.is_local(field_url):
        return None
    return os.path.dirname(os.path.abspath(storage.filesystem(field_url, options)[1]))


def _grid(band: Band) -> SkyGrid:
    return SkyGrid.from_cards(band.wcs_cards, band.shape_yx, band.image.label)


def _measure(
    bands: Sequence[Band], background: Background, meant: Sequence[str], progress: Progress
) -> list[MeasuredBand]:
    total, done = sum(measure_steps(band) for band in bands), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("measuring", done, total)

    return [measure_band(band, background, meant, step) for band in bands]


def _measure_psf(measured: Sequence[MeasuredBand]) -> MeasuredPsf | None:
    return measure_cells(
        [item.stars for item in measured],
        measured[0].band.shape_yx,
        [item.psf_fwhm_arcsec.value for item in measured],
        _grid(measured[0].band).pixel_scale_arcsec(),
    )


def _psf(measured: Sequence[MeasuredBand], stars: FieldPsf | None) -> FieldPsf | None:
    """Return the PSF that files bring, which counts for more than one made of a few stars."""
    first = measured[0].band
    return field_psf(
        [item.band.psf for item in measured],
        stars,
        first.shape_yx,
        [item.psf_fwhm_arcsec.value for item in measured],
        _grid(first).pixel_scale_arcsec(),
    )


def _meta(name: str, measured: Sequence[MeasuredBand]) -> FieldMeta:
    sigmas = tuple(item.noise_sigma for item in measured)
    has_variance = measured[0].band.noise is not None
    levels = tuple(None if item.saturate is None else item.saturate.value for item in measured)
    correlations = [item.noise_correlation for item in measured]
    return FieldMeta(
        name=name,
        bands=tuple(item.band.name for item in measured),
        zero_point=tuple(item.band.zero_point.value for item in measured),
        psf_fwhm_arcsec=tuple(item.psf_fwhm_arcsec.value for item in measured),
        wcs_cards=measured[0].band.wcs_cards,
        noise_sigma=None if has_variance or min(sigmas) <= 0 else sigmas,
        saturate=levels if any(level is not None for level in levels) else None,
        noise_correlation=_all_known(correlations),
        mask_bits=measured[0].band.mask_bits,
        parent_yx=measured[0].band.parent_yx,
    )


def _all_known(values: Sequence[float | None]) -> tuple[float, ...] | None:
    """Return one value a band, or None: a band that was not measured is no reason to invent it."""
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _references(
    measured: Sequence[MeasuredBand], url: str, options: Options | None
) -> dict[str, Reference]:
    """Refer to the pixels where they are, if they can stay as they are."""
    for item in measured:
        check_as_stored(item)
    return references_to(measured, url, options)


def _bad_fraction(measured: Sequence[MeasuredBand]) -> float:
    height, width = measured[0].band.shape_yx
    return sum(item.n_bad for item in measured) / (len(measured) * height * width)


def _write(
    group: zarr.Group,
    url: str,
    bits: MaskBits | None,
    measured: Sequence[MeasuredBand],
    progress: Progress,
) -> None:
    """Write all shards."""
    windows = [
        (number, item, window)
        for number, item in enumerate(measured)
        for window in shard_windows(item.band.shape_yx, local=storage.is_local(item.band.image.url))
    ]
    for done, (number, item, (rows, columns)) in enumerate(windows, start=1):
        planes = _planes(item, bits, rows, columns)
        try:
            for member, plane in planes.items():
                if plane is not None:
                    group[member][number, rows, columns] = plane  # type: ignore[index]
        except Exception as error:
            raise storage.translate(url, error, writing=True) from error
        progress("writing", done, len(windows))


def _planes(
    item: MeasuredBand, bits: MaskBits | None, rows: slice, columns: slice
) -> dict[str, NDArray[Any] | None]:
    """Return what is written of one window of one band."""
    window = item.band.read(rows, columns)
    if item.surface is not None:
        item.surface.subtract_from(window.image, rows, columns)
    mask = window.bad if window.mask is None else window.mask
    return {
        "image": window.image,
        "variance": window.variance,
        "mask": mask if bits is None else item.halos.marked(mask, bits, rows, columns),
    }


def shard_windows(
    shape_yx: tuple[int, int], *, local: bool = True
) -> Iterator[tuple[slice, slice]]:
    """Yield windows of whole shards that cover an image once.

    Parameters
    ----------
    shape_yx : tuple of int
        Rows and columns of the image.
    local : bool
        One shard a window; of a remote image, whose rows are fetched whole, four side by side.

    Yields
    ------
    tuple of slice
        (rows, columns).
    """
    height, width = shape_yx
    step = SHARD_PX * (1 if local else _REMOTE_SHARDS)
    for y0 in range(0, height, SHARD_PX):
        for x0 in range(0, width, step):
            yield slice(y0, min(y0 + SHARD_PX, height)), slice(x0, min(x0 + step, width))
