"""From an image alone to a catalogue, beside sep and SExtractor: what is found, what is invented, how well.

    python benchmarks/end_to_end.py --preset lsst-i --preset candels-h --fields 3 --figure found.svg

Fields are drawn by GalSim (``field_scenes.py``) and given as FITS without a PSF; ours runs as a user's would:
``ingest``, ``detect``, ``run``. A row and a true source belong together within 0.6 PSF widths, each to one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sep
import yaml
from numpy.typing import NDArray
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.field_scenes import FieldScene, draw_field, write_fits
from deblend_batch.evaluation.methods.sextractor import _config, find_program

PRESETS = ("candels-h", "euclid-vis", "hsc-i", "lsst-i", "kids-r")
_MATCH_FWHM = 0.6
_BLEND_ARCSEC = 3.0
_LEAST_SNR = 10.0
_NJY = 31.4

_DRAWN = {
    ">= 1 FWHM, <= 2 mag": "members found, 1 FWHM and more apart,\nwithin 2 mag (%)",
    ">= 1 FWHM, > 2 mag": "members found, 1 FWHM and more apart,\nfurther off in magnitude (%)",
    "purity of blends": "rows of blends that have a source (%)",
    "median flux error": "median flux error of what matches (%)",
}
_COLOURS = {"ours": "#20639b", "SExtractor": "#d1495b", "sep": "#9aa5b1"}

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """A catalogue: positions (n, 2) px, fluxes and errors (n,) image units."""

    yx: Array
    flux: Array
    err: Array
    seconds: float


@dataclass(frozen=True)
class Score:
    """Counts of one method over some fields; sources are those of S/N 10 or more that are in blends."""

    members: Mapping[str, tuple[int, int]]
    rows: int
    without_source: int
    blend_rows: int
    blend_without: int
    ratio: Array
    pull: Array
    seconds: float


def ours(scene: FieldScene, folder: Path, detect: Sequence[str], model: str) -> Rows:
    """Run the product on an image, as a user does."""
    image, field, table, output = (
        str(folder / name) for name in ("image.fits", "field.zarr", "sources.parquet", "out")
    )
    config = folder / "config.yaml"
    engine = {"where": "local", "gpus_per_actor": 0}
    settings = {"field": field, "detections": table, "output": output, "model": model}
    config.write_text(yaml.safe_dump({**settings, "engine": engine}))
    began = time.monotonic()
    for words in (
        ["ingest", image, field],
        ["detect", field, table, *detect],
        ["run", str(config)],
    ):
        command = [sys.executable, "-m", "deblend_batch", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    seconds = time.monotonic() - began
    shards = [pq.read_table(path) for path in sorted(Path(output, "shards").iterdir())]
    rows = pa.concat_tables(shards).to_pandas()
    rows = rows[rows.is_primary]
    unit = 10 ** (-0.4 * (scene.preset.zero_point - _NJY))
    band = scene.preset.band
    flux, err = (rows[f"{name}_{band}"].to_numpy(float) / unit for name in ("flux", "flux_err"))
    return Rows(rows[["y", "x"]].to_numpy(float), flux, err, seconds)


def by_sep(scene: FieldScene) -> Rows:
    """Detect and measure with sep, as photutils and SExtractor users do: 1.5 sigma, matched filter, AUTO."""
    began = time.monotonic()
    image = np.ascontiguousarray(scene.image)
    mesh = sep.Background(image, bw=128, bh=128)
    image = image - mesh
    sigma = scene.psf_fwhm_px / 2.3548
    reach = np.arange(-3, 4)
    kernel = np.exp(-(reach[:, None] ** 2 + reach**2) / (2 * sigma**2)).astype(np.float32)
    sep.set_sub_object_limit(8192)
    found = sep.extract(
        image, 1.5, err=mesh.globalrms, minarea=5, filter_kernel=kernel,
        deblend_nthresh=32, deblend_cont=0.005,
    )  # fmt: skip
    kron, _ = sep.kron_radius(
        image, found["x"], found["y"], found["a"], found["b"], found["theta"], 6.0
    )
    axes = np.maximum(found["a"], 0.7), np.maximum(found["b"], 0.7)
    flux, err, _ = sep.sum_ellipse(
        image, found["x"], found["y"], *axes, np.clip(found["theta"], -np.pi / 2, np.pi / 2),
        2.5 * np.maximum(np.nan_to_num(kron), 1.4), err=mesh.globalrms,
    )  # fmt: skip
    yx = np.stack([found["y"], found["x"]], axis=1)
    return Rows(yx, flux, err, time.monotonic() - began)


def by_sextractor(scene: FieldScene, folder: Path) -> Rows:
    """Run the SExtractor program with its defaults but for the background, which it takes itself."""
    program = find_program()
    assert program is not None
    filters = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"
    names = ("X_IMAGE", "Y_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO")
    (folder / "columns.param").write_text("\n".join(names) + "\n")
    (folder / "filter.conv").write_text(filters)
    settings = {"thresh": 1.5, "minarea": 5, "deblend_nthresh": 32, "deblend_cont": 0.005}
    text = _config(settings, scene.image.shape)
    text = text.replace("ABSOLUTE", "RELATIVE").replace("BACK_TYPE MANUAL", "BACK_TYPE AUTO")
    (folder / "config.sex").write_text(text)
    began = time.monotonic()
    words = [program, "image.fits", "-c", "config.sex"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    seconds = time.monotonic() - began
    table = np.array((folder / "objects.cat").read_text().split(), float).reshape(-1, 4)
    return Rows(table[:, [1, 0]] - 1, table[:, 2], table[:, 3], seconds)


def compare(scene: FieldScene, rows: Rows) -> Score:
    """Match rows with true sources, and count."""
    fwhm = scene.psf_fwhm_px
    blend_px = _BLEND_ARCSEC / scene.preset.pixel_scale_arcsec
    of_row, of_source = _match(rows.yx, scene.yx, _MATCH_FWHM * fwhm)
    apart, other = _neighbours(scene.yx)
    difference = np.abs(scene.mag - scene.mag[other])
    counted = (scene.snr >= _LEAST_SNR) & ~scene.is_saturated & (apart < blend_px)
    found = of_source >= 0
    members = {}
    for name, low, high, most in (
        ("0.6-1 FWHM, <= 2 mag", 0.6, 1.0, 2.0),
        (">= 1 FWHM, <= 2 mag", 1.0, np.inf, 2.0),
        (">= 0.8 FWHM, any", 0.8, np.inf, 99.0),
        (">= 1 FWHM, > 2 mag", 1.0, np.inf, 99.0),
    ):
        chosen = counted & (apart >= low * fwhm) & (apart < high * fwhm) & (difference <= most)
        if name.endswith("> 2 mag"):
            chosen &= difference > 2
        members[name] = (int(found[chosen].sum()), int(chosen.sum()))
    crowd, _ = _neighbours(rows.yx)
    blended = crowd < blend_px
    unit = of_row >= 0
    flux = 10 ** (-0.4 * (scene.mag - scene.preset.zero_point))
    good = unit & ~scene.is_saturated[of_row] & (scene.snr[of_row] >= _LEAST_SNR)
    true = flux[of_row[good]]
    return Score(
        members,
        len(rows.yx),
        int((~unit).sum()),
        int(blended.sum()),
        int((blended & ~unit).sum()),
        rows.flux[good] / true,
        (rows.flux[good] - true) / rows.err[good],
        rows.seconds,
    )


def add(scores: Sequence[Score]) -> Score:
    """Add the counts of several fields."""
    names = scores[0].members
    members = {
        name: (
            sum(one.members[name][0] for one in scores),
            sum(one.members[name][1] for one in scores),
        )
        for name in names
    }
    return Score(
        members,
        sum(one.rows for one in scores),
        sum(one.without_source for one in scores),
        sum(one.blend_rows for one in scores),
        sum(one.blend_without for one in scores),
        np.concatenate([one.ratio for one in scores]),
        np.concatenate([one.pull for one in scores]),
        sum(one.seconds for one in scores),
    )


def describe(score: Score) -> dict[str, float]:
    """Return a score as shares, percent."""
    found = {name: 100 * a / max(b, 1) for name, (a, b) in score.members.items()}
    known = np.isfinite(score.pull)
    return {
        **found,
        "purity of blends": 100 * (1 - score.blend_without / max(score.blend_rows, 1)),
        "rows without source": 100 * score.without_source / max(score.rows, 1),
        "flux error": 100 * float(np.abs(score.ratio - 1).mean()),
        "median flux error": 100 * float(np.median(np.abs(score.ratio - 1))),
        "bias": 100 * float(np.median(score.ratio) - 1),
        "68 % true": 100 * float((np.abs(score.pull[known]) < 1).mean()),
        "rows": score.rows,
        "seconds": score.seconds,
    }


def _match(yx: Array, true: Array, reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each row at most one source and each source at most one row, the nearest first."""
    of_row, of_source = np.full(len(yx), -1), np.full(len(true), -1)
    near = cKDTree(yx).sparse_distance_matrix(cKDTree(true), reach, output_type="coo_matrix")
    for number in np.argsort(near.data):
        row, source = near.row[number], near.col[number]
        if of_row[row] < 0 and of_source[source] < 0:
            of_row[row], of_source[source] = source, row
    return of_row, of_source


def _neighbours(yx: Array) -> tuple[Array, NDArray[np.int64]]:
    distance, index = cKDTree(yx).query(yx, k=2)
    return distance[:, 1], index[:, 1]


def main() -> None:
    """Draw, run, compare, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--fields", type=int, default=2)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="profile-fit")
    parser.add_argument("--detect", default="", help="options of detect, in one string")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--figure", help="where to draw what is found, as SVG or PNG")
    given = parser.parse_args()
    results = {}
    for preset in given.preset or PRESETS:
        scores: dict[str, list[Score]] = {}
        for number in range(given.fields):
            scene = draw_field(preset, given.size, given.seed + number)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_fits(scene, folder / "image.fits")
                found = {"ours": ours(scene, folder, given.detect.split(), given.model)}
                if not given.only_ours:
                    found |= {
                        "sep": by_sep(scene),
                        "SExtractor": by_sextractor(scene, folder),
                    }
            for method, rows in found.items():
                scores.setdefault(method, []).append(compare(scene, rows))
        results[preset] = {method: describe(add(each)) for method, each in scores.items()}
        if not given.json:
            _show(preset, results[preset])
    if given.json:
        print(json.dumps(results))
    if given.figure:
        draw_figure(results, given.figure)


def draw_figure(results: Mapping[str, Mapping[str, Mapping[str, float]]], path: str) -> None:
    """Draw, survey by survey, what each method finds and how far its fluxes are off."""
    figure, panels = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for axes, (quantity, title) in zip(panels.flat, _DRAWN.items(), strict=True):
        for number, (method, colour) in enumerate(_COLOURS.items()):
            values = [methods[method][quantity] for methods in results.values()]
            place = np.arange(len(values)) + 0.27 * (number - 1)
            name = "deblend-batch" if method == "ours" else method
            axes.bar(place, values, 0.25, color=colour, label=name)
        axes.set_xticks(range(len(results)), results)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(0, min(axes.get_ylim()[1], 100))
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
    plt.close(figure)


def _show(preset: str, methods: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n{preset:24}" + "".join(f"{name:>12}" for name in methods))
    for quantity in next(iter(methods.values())):
        print(f"{quantity:24}" + "".join(f"{each[quantity]:12.1f}" for each in methods.values()))


if __name__ == "__main__":
    main()
