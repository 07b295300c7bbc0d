"""Files in the layouts of surveys, by their presets, to a catalogue, which is compared with the truth.

``python benchmarks/surveys.py FOLDER`` takes a folder that holds ``make_images.py``, which writes files of
one sky in several layouts and its truth (``src.npy``: y, x, flux), and other files of that sky; layouts that
are missing there are written by ``survey_files``. Each is ingested with ``--survey`` alone, fitted from
positions that are off by 0.2 px, and compared. Sources within reach of pixels without data are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.survey_files import MAKERS, Made, Sky
from deblend_batch import process_field
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import bad_pixels
from deblend_batch.ingest.ingest import ingest

_FILES = (
    ("rubin-dp2", "rubin_dp2_layout.fits", 1.0),
    ("rubin-dp2", "dp2.fits", 1.0),
    ("hsc-pdr3", "hsc.fits", 1.0),
    ("euclid-mer", "EUC_MER_BGSUB-MOSAIC-VIS.fits", 1.0),
    ("legacy-dr10", "ls-image-r.fits.fz", 1e-2),
    ("jwst-i2d", "jwst_native_i2d.fits", 1.0),
    ("hst-drz", "hst_drz.fits", 1.0),
)
"""Survey, file, and image units of one unit of the truth."""

_REACH_PX = 20
_OFFSET_PX = 0.2
_HIGH_SNR = 30.0


@dataclass(frozen=True)
class Compared:
    """What became of one file.

    Parameters
    ----------
    bands : tuple of str
        Names of the field's bands.
    kernel_cells_yx : tuple of int, optional
        Cells of the PSF.
    bad_share : float
        Share of the sources whose middle pixel is bad.
    rows, compared : int
        Sources in the catalogue, and those that the rest is of.
    bias : float
        Mean of flux over truth, less 1, weighted by the stated errors.
    bright_bias : float
        Median of the same, of sources of a signal to noise of 30 and more.
    pull : float
        Half of what holds 68 % of (flux - truth) / error.
    offset_yx : tuple of float
        Mean offset of the positions of bright sources, px.
    scatter_px : float
        Median distance of bright sources from the truth, px.
    """

    bands: tuple[str, ...]
    kernel_cells_yx: tuple[int, int] | None
    bad_share: float
    rows: int
    compared: int
    bias: float
    bright_bias: float
    pull: float
    offset_yx: tuple[float, float]
    scatter_px: float


def compare(
    survey: str, image: str, truth: NDArray[np.float64], unit: float, folder: Path
) -> Compared:
    """Take one file to a catalogue, and compare it.

    Parameters
    ----------
    survey : str
        Name of its preset.
    image : str
        The file.
    truth : ndarray of float64, shape (n, 3)
        Of each source y and x, px, and its flux.
    unit : float
        Image units of one unit of that flux.
    folder : Path
        Where to write.
    """
    ingest([image], str(folder / "field.zarr"), survey=survey)
    field = Field.open(str(folder / "field.zarr"))
    njy = truth[:, 2] * unit * 10 ** (0.4 * (31.4 - field.meta.zero_point[0]))
    bad = _bad(field)
    detections = _write_detections(folder, truth, njy)
    output = folder / "run"
    engine = {"where": "local", "actors": 1, "gpus_per_actor": 0}
    process_field(
        {
            "field": field.url,
            "detections": detections,
            "output": str(output),
            "model": "profile-fit",
            "engine": engine,
        }
    )
    return _compared(field, _rows(output), truth, njy, bad)


def _bad(field: Field) -> NDArray[np.bool_]:
    image, mask = np.asarray(field.image[0]), field.mask
    bad = ~np.isfinite(image)
    if mask is not None:
        plane = np.asarray(mask[0] if mask.ndim == 3 else mask[:])
        bad |= bad_pixels(plane, field.meta.mask_bits)
    return np.asarray(bad)


def _write_detections(folder: Path, truth: NDArray[np.float64], njy: NDArray[np.float64]) -> str:
    yx = truth[:, :2] + np.random.default_rng(0).normal(0, _OFFSET_PX, (len(truth), 2))
    table = pa.table(
        {
            "id": np.arange(len(truth)),
            "x": yx[:, 1],
            "y": yx[:, 0],
            "mag": 31.4 - 2.5 * np.log10(njy),
        }
    )
    pq.write_table(table, folder / "detections.parquet")
    return str(folder / "detections.parquet")


def _rows(output: Path) -> pd.DataFrame:
    parts = [pq.read_table(path) for path in sorted((output / "shards").glob("*.parquet"))]
    rows = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    return rows[rows.is_primary].set_index("source_id").sort_index()


def _compared(
    field: Field,
    rows: pd.DataFrame,
    truth: NDArray[np.float64],
    njy: NDArray[np.float64],
    bad: NDArray[np.bool_],
) -> Compared:
    band = field.meta.bands[0]
    number = rows.index.to_numpy()
    flux, error = (rows[f"{key}_{band}"].to_numpy(float) for key in ("flux", "flux_err"))
    y, x = np.round(truth[:, :2]).astype(int).T
    known = np.isfinite(flux) & np.isfinite(error) & ~_near(bad, y, x)[number]
    ratio, pull = flux / njy[number] - 1, (flux - njy[number]) / error
    weight = (njy[number] / error) ** 2
    bright = known & (weight > _HIGH_SNR**2)
    offset = rows[["y", "x"]].to_numpy(float) - truth[number, :2]
    kernels = field.psf.kernels
    mean = offset[bright].mean(axis=0)
    return Compared(
        bands=field.meta.bands,
        kernel_cells_yx=None if kernels is None else kernels.grid.counts_yx,
        bad_share=float(bad[y, x].mean()),
        rows=len(rows),
        compared=int(known.sum()),
        bias=float((ratio * weight)[known].sum() / weight[known].sum()),
        bright_bias=float(np.median(ratio[bright])),
        pull=float(np.diff(np.quantile(pull[known], [0.16, 0.84]))[0] / 2),
        offset_yx=(float(mean[0]), float(mean[1])),
        scatter_px=float(np.median(np.hypot(*offset[bright].T))),
    )


def _near(bad: NDArray[np.bool_], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which positions have a bad pixel within reach."""
    return np.array(
        [
            bad[
                max(0, i - _REACH_PX) : i + _REACH_PX + 1, max(0, j - _REACH_PX) : j + _REACH_PX + 1
            ].any()
            for i, j in zip(y.tolist(), x.tolist(), strict=True)
        ]
    )


def _files(source: Path, made: Path) -> Iterator[Made]:
    """Write all files and name them, one after another."""
    subprocess.run([sys.executable, source / "make_images.py"], cwd=made, check=True)
    for survey, file, unit in _FILES:
        path = made / file if (made / file).exists() else source / file
        yield Made(survey, path, unit)
    # The maker of those files draws point sources as Gaussians of 1.7 px.
    with fits.open(made / "hsc.fits") as hdus:
        sky = Sky(hdus[1].data.astype(np.float32), hdus[2].data != 0, psf_sigma_px=1.7)
    for maker in MAKERS:
        yield maker(sky, made)


def main() -> None:
    """Compare all files of a folder, and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    source = parser.parse_args().folder.resolve()
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made"
        made.mkdir()
        print(
            "| survey | file | bands | PSF cells | bad centres | rows, compared | bias | bright "
            "| pull | offset, px |"
        )
        for number, (survey, path, unit) in enumerate(_files(source, made)):
            folder = Path(name) / str(number)
            os.mkdir(folder)
            found = compare(survey, str(path), np.load(made / "src.npy"), unit, folder)
            print(
                f"| {survey} | {path.name} | {' '.join(found.bands)} | {found.kernel_cells_yx} "
                f"| {found.bad_share:.2%} "
                f"| {found.rows}, {found.compared} | {found.bias:+.2%} | {found.bright_bias:+.2%} "
                f"| {found.pull:.2f} | {found.offset_yx[0]:+.4f} {found.offset_yx[1]:+.4f}, "
                f"{found.scatter_px:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
