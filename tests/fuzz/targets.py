"""What is fuzzed: each format that the product reads, small valid files of it, and the reading of one.

A target reads a file as a run or a verb would. It may succeed, or end with an error that says in one line
what is wrong with the file; all else is a fault of ours.
"""

from __future__ import annotations

import gzip
import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import astropy.io.votable
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
import zarr
from astropy.io import fits
from astropy.table import Table

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.config import load_config
from deblend_batch.detections.table import read_detections
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.errors import BadDataError, UserError
from deblend_batch.field.layout import Field
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.header.cards import celestial_cards
from deblend_batch.ingest.ingest import ingest
from deblend_batch.ingest.planes.psf_plane import read_psf
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.models import load_model
from deblend_batch.report.survey import survey_catalog
from deblend_batch.surveys.shipped import load_survey, shipped_surveys
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box
from tests.engine.finished import finish_run, leave_out
from tests.fuzz import mutations
from tests.fuzz.mutations import Mutation
from tests.ingest.asdf_files import gnomonic_wcs, plain_asdf
from tests.ingest.fits_files import celestial_header, noise_image, write_image
from tests.ingest.psf_files import canvas_file, gaussian, psfex_file
from tests.support import SmallField, make_meta, write_tiny_model

EXPECTED = (UserError, BadDataError)
_EDGE = 48


@dataclass(frozen=True)
class Target:
    """A format, and how it is read.

    Parameters
    ----------
    seeds : callable
        Makes valid files in a folder; returns their contents.
    read : callable
        Given a content and a folder that the seeds were made in: reads it.
    alterations : tuple of callable
        How contents are altered.
    """

    seeds: Callable[[Path], tuple[bytes, ...]]
    read: Callable[[bytes, Path], None]
    alterations: tuple[Mutation, ...]


def _table() -> Table:
    n = 12
    rng = np.random.default_rng(0)
    return Table(
        {
            "id": np.arange(n) + 7,
            "ra": 150 + rng.uniform(0, 0.01, n),
            "dec": 2 + rng.uniform(0, 0.01, n),
            "mag": rng.uniform(20, 25, n).astype("f4"),
            "note": [f"source {i}" for i in range(n)],
        },
        units={"ra": "deg", "dec": "deg"},
    )


def _written(form: str, **options: object) -> bytes:
    if form == "votable":
        sink = io.BytesIO()
        astropy.io.votable.from_table(_table()).to_xml(sink, **options)
        return sink.getvalue()
    if form == "ecsv":
        text = io.StringIO()
        _table().write(text, format="ascii.ecsv", **options)
        return text.getvalue().encode()
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(_table())]).writeto(sink)
    return sink.getvalue()


def _arrow() -> pa.Table:
    table = _table()
    return pa.table({name: np.asarray(table[name]) for name in ("id", "ra", "dec", "mag")})


def _parquet(**options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_arrow(), sink, **options)
    return sink.getvalue()


def _csv() -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(_arrow(), sink)
    return sink.getvalue()


def _with_gzipped(*contents: bytes) -> tuple[bytes, ...]:
    return (*contents, *(gzip.compress(content, mtime=0) for content in contents))


def _read_table(content: bytes, folder: Path, suffix: str) -> None:
    path = folder / f"table{suffix}"
    path.write_bytes(content)
    for part in read_detections(str(path)):
        len(part)


def _image() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return noise_image((_EDGE, _EDGE + 4))


def _fits_image() -> bytes:
    sink = io.BytesIO()
    weight = fits.ImageHDU(np.ones_like(_image()), celestial_header(), name="WHT")
    header = celestial_header(magzero=25.0, psf_fwhm=0.3)
    fits.HDUList([fits.PrimaryHDU(_image(), header), weight]).writeto(sink)
    return sink.getvalue()


def _sip_image() -> bytes:
    sink = io.BytesIO()
    cards = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
    header = celestial_header(magzero=25.0, psf_fwhm=0.3, a_2_0=1e-7, b_0_2=1e-7, **cards)
    fits.PrimaryHDU(_image(), header).writeto(sink)
    return sink.getvalue()


def _compressed(kind: str) -> bytes:
    sink = io.BytesIO()
    pixels = 10 * _image()
    counts = np.abs(pixels).astype(np.int32)
    header = celestial_header(magzero=25.0, psf_fwhm=0.3)
    hdu = fits.CompImageHDU(
        counts if kind == "PLIO_1" else pixels, header, compression_type=kind, tile_shape=(8, 52)
    )
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(sink)
    return sink.getvalue()


def _asdf_image(folder: Path, packing: str) -> bytes:
    path = folder / "seed.asdf"
    plain_asdf(path, _image(), gnomonic_wcs((10.0, 20.0)), packing=packing)
    return path.read_bytes()


def _read_asdf(content: bytes, folder: Path) -> None:
    path = folder / "image.asdf"
    path.write_bytes(content)
    with open_files(scratch=str(folder)) as files:
        plane = files.plane(ImageRef(str(path)))
        celestial_cards(plane.unsettled, plane.shape_yx, plane.label)
        plane.read(slice(0, 8), slice(0, 8))


def _ingest(content: bytes, folder: Path, suffix: str) -> None:
    path = folder / f"image{suffix}"
    path.write_bytes(content)
    ingest(
        [str(path)],
        str(folder / "made.zarr"),
        bands=("r",),
        overwrite=True,
    )


def _psf_seeds(folder: Path) -> tuple[bytes, ...]:
    kernel = fits.HDUList([fits.PrimaryHDU(gaussian(3.0, 11)), fits.ImageHDU(gaussian(3.0, 11))])
    kernel.writeto(folder / "kernel.fits", overwrite=True)
    for name in ("model.psf", "grid.fits"):
        (folder / name).unlink(missing_ok=True)
    files = (
        str(folder / "kernel.fits"),
        psfex_file(folder / "model.psf", 1, 0.9, edge=11),
        canvas_file(folder / "grid.fits", 1),
    )
    return tuple(Path(file).read_bytes() for file in files)


def _read_psf(content: bytes, folder: Path) -> None:
    image, psf = folder / "of_psf.fits", folder / "psf.fits"
    if not image.exists():
        write_image(image, noise_image((_EDGE, _EDGE)))
    psf.write_bytes(content)
    with open_files() as files:
        plane = files.plane(ImageRef(str(image)))
        cards = celestial_cards(plane.unsettled, plane.shape_yx, plane.label)
        read_psf(files, ImageRef(str(psf)), plane, SkyGrid.from_cards(cards, plane.shape_yx, ""))


def _read_record(content: bytes, folder: Path) -> None:
    path = folder / "survey.yaml"
    path.write_bytes(content)
    load_survey(str(path))


def _records(_: Path) -> tuple[bytes, ...]:
    known = shipped_surveys().values()
    return tuple(yaml.safe_dump(each.model_dump(mode="json")).encode() for each in known)


def _make_field(url: Path, zarr_format: int, *, shards: bool) -> None:
    group = zarr.open_group(str(url), mode="w", zarr_format=2 if zarr_format == 2 else 3)
    edge = 2 * (_EDGE // 2)
    image = group.create_array(
        "image",
        shape=(edge, edge),
        dtype="f4",
        chunks=(edge // 4, edge // 4),
        shards=(edge // 2, edge // 2) if shards else None,
    )
    image[...] = noise_image((edge, edge))
    group.attrs.update(make_meta().to_attributes())


def _zarr_seeds(folder: Path, zarr_format: int, document: str) -> tuple[bytes, ...]:
    url = folder / "field.zarr"
    _make_field(url, zarr_format, shards=zarr_format == 3)
    return ((url / document).read_bytes(),)


def _read_field(content: bytes, folder: Path, document: str) -> None:
    url = folder / "field.zarr"
    (url / document).write_bytes(content)
    field = Field.open(str(url))
    field.pixel_to_world(np.array([(1.0, 2.0)]))
    field.world_to_pixel(np.array([150.0]), np.array([2.0]))
    read_tile(field, Box(0, 0, _EDGE, _EDGE))


def _small_run(folder: Path) -> Path:
    """A field of a few pairs, and its finished run with a quarantine record."""
    model = write_tiny_model(str(folder / "tiny.safetensors"))
    url, output = folder / "run-field.zarr", folder / "run"
    _make_field(url, 3, shards=False)
    yx = np.array([(10.0, 10.0), (14.0, 13.0), (30.0, 30.0), (36.0, 33.0)])
    ids, mag = np.arange(4) + 1, np.array([20, 21, 20, 21], "f4")
    table = pa.table({"id": ids, "x": yx[:, 1], "y": yx[:, 0], "mag": mag})
    pq.write_table(table, str(folder / "detections.parquet"))
    field = SmallField(str(url), str(folder / "detections.parquet"), ids, yx, mag, model)
    ledger = finish_run(field, str(output))
    leave_out(ledger, ledger.output.shards()[0], 1)
    return output


def _record_seeds(folder: Path, member: str) -> tuple[bytes, ...]:
    output = _small_run(folder)
    shutil.copytree(output, folder / "sound")
    return (min(output.glob(member)).read_bytes(),)


def _read_run(content: bytes, folder: Path, member: str) -> None:
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(folder / "sound", output)
    min(output.glob(member)).write_bytes(content)
    for use in (
        lambda: read_status(Output(str(output))).to_rows(),
        lambda: verify_run(Output(str(output)), recompute=0).to_rows(),
        lambda: survey_catalog(Ledger(Output(str(output)))),
    ):
        try:
            use()
        except EXPECTED as error:
            check_line(error)


def _read_weights(content: bytes, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    load_model(str(path))


def _read_config(content: bytes, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_bytes(content)
    load_config(str(path))


_CONFIG = b"""\
field: a.zarr
detections: d.parquet
output: run1
model: blend2mask2flux-small
pairs: {max_separation: 2.0}
tiles: {size: 2048, max_pairs: 2048}
engine: {actors: 2, attempts: 3, deadline: 60}
columns: {id: ID, ra: RA, dec: DEC}
masks: true
"""


def check_line(error: Exception) -> None:
    """Fail unless an error is one line of bearable length."""
    text = str(error)
    assert text.strip(), "an error that says nothing"
    # Of what else may end a line the command line shows an escape.
    assert "\n" not in text.strip(), f"an error of several lines: {text[:300]!r}"
    assert len(text) < 2000, f"an error of {len(text)} characters: {text[:300]!r}"


def _weights(folder: Path) -> tuple[bytes, ...]:
    return (Path(write_tiny_model(str(folder / "tiny.safetensors"))).read_bytes(),)


_COMPRESSIONS = ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1")

TARGETS: Mapping[str, Target] = {
    "fits-image": Target(
        lambda _: (_fits_image(), _sip_image(), gzip.compress(_fits_image(), mtime=0)),
        partial(_ingest, suffix=".fits"),
        mutations.FITS,
    ),
    "fits-compressed": Target(
        lambda _: tuple(map(_compressed, _COMPRESSIONS)),
        partial(_ingest, suffix=".fits.fz"),
        mutations.FITS,
    ),
    "asdf-image": Target(
        lambda folder: tuple(_asdf_image(folder, packing) for packing in ("", "lz4")),
        _read_asdf,
        mutations.TEXT,
    ),
    "fits-table": Target(
        lambda _: _with_gzipped(_written("fits")),
        partial(_read_table, suffix=".fits"),
        mutations.FITS,
    ),
    "votable": Target(
        lambda _: _with_gzipped(
            _written("votable"),
            *(_written("votable", tabledata_format=f) for f in ("binary", "binary2")),
        ),
        partial(_read_table, suffix=".vot"),
        mutations.TEXT,
    ),
    "ecsv": Target(
        lambda _: _with_gzipped(_written("ecsv")),
        partial(_read_table, suffix=".ecsv"),
        mutations.TEXT,
    ),
    "csv": Target(
        lambda _: _with_gzipped(_csv()), partial(_read_table, suffix=".csv"), mutations.TEXT
    ),
    "parquet": Target(
        lambda _: (
            _parquet(),
            _parquet(compression="zstd", use_dictionary=False, version="1.0"),
            _parquet(row_group_size=3, data_page_version="2.0", write_page_index=True),
        ),
        partial(_read_table, suffix=".parquet"),
        mutations.BYTES,
    ),
    "zarr3-array": Target(
        lambda folder: _zarr_seeds(folder, 3, "image/zarr.json"),
        partial(_read_field, document="image/zarr.json"),
        mutations.JSON,
    ),
    "zarr3-group": Target(
        lambda folder: _zarr_seeds(folder, 3, "zarr.json"),
        partial(_read_field, document="zarr.json"),
        mutations.JSON,
    ),
    "zarr3-chunk": Target(
        lambda folder: _zarr_seeds(folder, 3, "image/c/0/0"),
        partial(_read_field, document="image/c/0/0"),
        mutations.BYTES,
    ),
    "zarr2-array": Target(
        lambda folder: _zarr_seeds(folder, 2, "image/.zarray"),
        partial(_read_field, document="image/.zarray"),
        mutations.JSON,
    ),
    "zarr2-group": Target(
        lambda folder: _zarr_seeds(folder, 2, ".zattrs"),
        partial(_read_field, document=".zattrs"),
        mutations.JSON,
    ),
    "safetensors": Target(_weights, _read_weights, mutations.TEXT),
    "psf-file": Target(_psf_seeds, _read_psf, mutations.FITS),
    "survey-record": Target(_records, _read_record, mutations.TEXT),
    "yaml": Target(lambda _: (_CONFIG,), _read_config, mutations.TEXT),
    **{
        name: Target(
            partial(_record_seeds, member=member),
            partial(_read_run, member=member),
            mutations.JSON,
        )
        for name, member in (
            ("run-json", "run.json"),
            ("receipt", "ledger/*.json"),
            ("quarantine", "quarantine/*.json"),
        )
    },
    **{
        name: Target(
            partial(_record_seeds, member=member),
            partial(_read_run, member=member),
            mutations.BYTES,
        )
        for name, member in (("shard", "shards/*.parquet"), ("index", "index/*.parquet"))
    },
}


def execute(name: str, content: bytes, folder: Path) -> bool:
    """Read a content as its target does; return whether it was accepted.

    Raises
    ------
    AssertionError
        If it is refused, but not in one line.
    Exception
        Whatever else the reading raises: a fault of ours.
    """
    try:
        TARGETS[name].read(content, folder)
    except EXPECTED as error:
        check_line(error)
        return False
    return True
