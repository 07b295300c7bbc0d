"""The verbs that make inputs: ingest, detect, simulate."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional

import typer

from deblend_batch.cli.options import StorageOpt, read_storage_options
from deblend_batch.cli.output import (
    JsonOpt,
    print_columns,
    print_json,
    print_table,
    show,
    show_help_alone,
)
from deblend_batch.errors import ConfigError

app = typer.Typer()
simulate_app = typer.Typer(
    help="Simulate a survey field, or a set of pairs, with known truth.",
    invoke_without_command=True,
)
simulate_app.callback()(show_help_alone)

PlaneOpt = Optional[list[str]]  # noqa: UP045 (typer reads it)
ProcessesOpt = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        help="Ray tasks that draw at a time, one per CPU if absent; with 1 no Ray. Changes no result.",
        min=1,
    ),
]
PresetOpt = Annotated[str, typer.Option(help="Survey to imitate.")]
SeedOpt = Annotated[int, typer.Option(help="Seed of everything.", min=0)]
OverwriteOpt = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@app.command()
def ingest(
    urls: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="IMAGE [IMAGE ...] FIELD",
            help="Images (FITS, ASDF, Zarr), FILE or FILE[HDU], one per band; then the field to write.",
            show_default=False,
        ),
    ] = None,
    hdu: Annotated[
        PlaneOpt, typer.Option(help="Image HDU, name or number; repeat per band.")
    ] = None,
    rms_hdu: Annotated[PlaneOpt, typer.Option(help="rms plane: HDU, FILE or FILE[HDU].")] = None,
    weight_hdu: Annotated[PlaneOpt, typer.Option(help="Inverse-variance plane.")] = None,
    variance_hdu: Annotated[PlaneOpt, typer.Option(help="Variance plane.")] = None,
    mask_hdu: Annotated[
        PlaneOpt, typer.Option(help="Mask: bits that its header names, else non-zero is bad.")
    ] = None,
    mask_bits: Annotated[
        PlaneOpt, typer.Option(help="Bits that are bad: NAME,... or their numbers; or a survey.")
    ] = None,
    band: Annotated[PlaneOpt, typer.Option(help="Name of a band; repeat per band.")] = None,
    zero_point: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="AB magnitude of one image unit; repeat per band."),
    ] = None,
    psf: Annotated[
        PlaneOpt,
        typer.Option(help="What holds the PSF: kernels, a map of widths, PSFEx, Euclid's stamps."),
    ] = None,
    psf_fwhm: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="PSF FWHM, arcsec; repeat per band."),
    ] = None,
    survey: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Survey whose files these are ('surveys' lists them), or FILE.yaml."),
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="Name of the field.")] = None,  # noqa: UP045
    background: Annotated[
        Literal["auto", "keep", "subtract"], typer.Option(help="What to do with the background.")
    ] = "auto",
    ignore_checksum: Annotated[
        bool,
        typer.Option("--ignore-checksum", help="Take data that do not fit their DATASUM."),
    ] = False,
    meant: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Go on although this cannot be by the image: psf, noise or mask; repeat for more."
        ),
    ] = None,
    header: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="FITS file whose header describes an image in Zarr: FILE or FILE[HDU]."),
    ] = None,
    by_reference: Annotated[
        bool,
        typer.Option("--by-reference", help="Leave pixels that are in Zarr where they are."),
    ] = False,
    overwrite: OverwriteOpt = False,
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Make a field from images, window by window."""
    from deblend_batch.ingest.ingest import ingest as make_field
    from deblend_batch.progress import telling

    if urls is None or len(urls) < 2:
        raise ConfigError(
            "ingest needs images and the field to write: deblend-batch ingest IMAGE [IMAGE ...] FIELD"
        )
    *images, field = urls
    with telling("windows") as progress:
        summary = make_field(
            images,
            field,
            hdu=hdu or (),
            rms_hdu=rms_hdu or (),
            weight_hdu=weight_hdu or (),
            variance_hdu=variance_hdu or (),
            mask_hdu=mask_hdu or (),
            mask_bits=mask_bits or (),
            bands=band or (),
            zero_points=zero_point or (),
            psf=psf or (),
            psf_fwhm_arcsec=psf_fwhm or (),
            survey=survey,
            name=name,
            background=background,
            ignore_checksum=ignore_checksum,
            meant=meant or (),
            header=header,
            by_reference=by_reference,
            overwrite=overwrite,
            options=read_storage_options(storage_options),
            progress=progress,
            show_files=lambda found: print_columns(found.to_rows(), as_remark=as_json),
        )
    if as_json:
        print_json(summary.to_json())
    else:
        print_table(summary.to_rows())


@app.command()
def detect(
    field: Annotated[str, typer.Argument(help="Field (Zarr).", show_default=False)],
    detections: Annotated[
        str,
        typer.Argument(
            help="Table to write: .parquet, .fits, .ecsv, .vot or .csv.", show_default=False
        ),
    ],
    band: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Band to detect in; the first if absent."),
    ] = None,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Isophote, noise of the filtered image; 4."),
    ] = None,
    filter_fwhm: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--filter", help="FWHM of a Gaussian filter, px; the PSF of each place."),
    ] = None,
    min_area: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Least area of a source, px; 5."),
    ] = None,
    peak: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Least height of a peak that divides an isophote, noise; 4, unrefined by the PSF."
        ),
    ] = None,
    prominence: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Its height above the saddle to a higher peak, noise; 2, unrefined by the PSF."
        ),
    ] = None,
    contrast: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="The same over the saddle's height, in bright places; 0.05, unrefined by the PSF."
        ),
    ] = None,
    clean: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="How far a source must stand above a brighter one's halo, over what tells it for certain; "
            "0 from the ground, else 1."
        ),
    ] = None,
    max_fragment: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Largest probability of being a fragment of a brighter neighbour; 0.5."),
    ] = None,
    min_snr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Least signal to noise of a detected source; 5."),
    ] = None,
    mesh: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Cells of a background to take from the image first, px; none."),
    ] = None,
    refine: Annotated[
        bool,
        typer.Option(
            help="Fit the blends of what was found: drop what is no source, and add what is missing in "
            "images from the ground.",
        ),
    ] = True,
    tile_size: Annotated[int, typer.Option(help="Edge of a tile, px.", min=64)] = 2048,
    overwrite: OverwriteOpt = False,
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Make a detection table from a field, tile by tile, on Ray tasks if they are many."""
    from dataclasses import replace

    from deblend_batch.config import absolute_url
    from deblend_batch.detect.field import detect_field
    from deblend_batch.field.layout import Field
    from deblend_batch.refine.field import how_to_detect

    options = read_storage_options(storage_options)
    opened = Field.open(absolute_url("field", field), options)
    params, finish = how_to_detect(opened, band, refine=refine)
    given: dict[str, Any] = {
        "threshold_sigma": threshold,
        "filter_fwhm_px": filter_fwhm,
        "min_area_px": min_area,
        "peak_sigma": peak,
        "prominence_sigma": prominence,
        "contrast": contrast,
        "above_halo": clean,
        "max_fragment": max_fragment,
        "min_snr": min_snr,
    }
    said = {name: value for name, value in given.items() if value is not None}
    summary = detect_field(
        opened,
        detections,
        band=band,
        params=replace(params, **said),
        mesh_px=mesh,
        tile_size=tile_size,
        overwrite=overwrite,
        options=options,
        finish=finish,
    )
    show(summary, as_json=as_json)


@simulate_app.command("field")
def simulate_a_field(
    field: Annotated[str, typer.Argument(help="Field (Zarr) to write.", show_default=False)],
    preset: PresetOpt = "candels-h",
    size: Annotated[int, typer.Option(help="Edge of the field, px.", min=256)] = 4608,
    pairs: Annotated[int, typer.Option(help="Number of pairs.", min=0)] = 1700,
    isolated: Annotated[int, typer.Option(help="Number of isolated galaxies.", min=0)] = 600,
    groups: Annotated[int, typer.Option(help="Number of groups of three to five.", min=0)] = 40,
    seed: SeedOpt = 0,
    variance: Annotated[bool, typer.Option("--variance", help="Write a variance plane.")] = False,
    processes: ProcessesOpt = None,
    overwrite: OverwriteOpt = False,
    storage_options: StorageOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Simulate a survey field with its truth and its detections."""
    from dataclasses import asdict

    from deblend_batch.progress import telling
    from deblend_batch.simulate.fields.field import simulate_field

    with telling("galaxies") as progress:
        truth = simulate_field(
            field,
            preset=preset,
            shape_yx=(size, size),
            n_pairs=pairs,
            n_isolated=isolated,
            n_groups=groups,
            seed=seed,
            with_variance=variance,
            processes=processes,
            overwrite=overwrite,
            options=read_storage_options(storage_options),
            progress=progress,
        )
    if as_json:
        print_json(asdict(truth))
    else:
        print_table([(key.replace("_", " "), str(value)) for key, value in asdict(truth).items()])


@simulate_app.command("pairs")
def simulate_pairs(
    data_set: Annotated[str, typer.Argument(help="Data set (Zarr) to write.", show_default=False)],
    number: Annotated[int, typer.Option("--number", help="Number of pairs.", min=1)] = 5000,
    preset: PresetOpt = "candels-h",
    split: Annotated[
        Optional[Literal["train", "validation", "test", "all"]],  # noqa: UP045
        typer.Option(help="Side of the galaxy-level split; test, or all real galaxies, if absent."),
    ] = None,
    stamp_size: Annotated[int, typer.Option(help="Edge of a stamp, px.", min=16, max=128)] = 128,
    galaxies: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Galaxies to draw pairs from; 4000, or the whole catalogue, if absent.", min=32
        ),
    ] = None,
    real_catalog: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Take real galaxies: a file in GalSim's RealGalaxyCatalog format."),
    ] = None,
    candels_blender: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Take real galaxies: folder with candels_img.npy, _seg.npy, _cat.csv."),
    ] = None,
    encoding: Annotated[
        Literal["gg", "ogg", "bogg"], typer.Option(help="Channels of the masks.")
    ] = "ogg",
    seed_faithful: Annotated[
        bool, typer.Option("--seed-faithful", help="Reproduce the released generator's defects.")
    ] = False,
    seed: SeedOpt = 0,
    processes: ProcessesOpt = None,
    overwrite: OverwriteOpt = False,
    storage_options: StorageOpt = None,
) -> None:
    """Simulate pairs of galaxies: stamps, members, masks and fluxes."""
    from deblend_batch.cluster.workers import open_workers
    from deblend_batch.progress import telling
    from deblend_batch.simulate.galaxies.galaxy_source import GalaxySource
    from deblend_batch.simulate.pairs import pairset
    from deblend_batch.simulate.pairs.blending import PairRules, PairSampler

    source = GalaxySource(preset, seed, galaxies, real_catalog, candels_blender)
    side = source.usual_split if split is None else None if split == "all" else split
    options = read_storage_options(storage_options)
    # A mistake costs no galaxies.
    pairset.check_free(data_set, options, overwrite=overwrite, inputs=source.urls)
    with open_workers(processes) as workers, telling("drawn") as progress:
        pool = source.pool(workers, options, progress)
        rules = PairRules(stamp_size=stamp_size, seed_faithful=seed_faithful)
        pairset.write_pairs(
            data_set,
            PairSampler(pool, side, seed, rules),
            number,
            encoding=encoding,
            options=options,
            overwrite=overwrite,
            workers=workers,
            progress=progress,
        )
    print_table([("pairs", f"{number:,}"), ("data set", data_set)])
