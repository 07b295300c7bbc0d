"""Members divided for a trial, where sources are known: which halves are sources, and what the rules pick.

    python benchmarks/tune_halves.py --preset euclid-vis --preset lsst-i --fields 3 --table trials.parquet

Every member of ten errors is tried. A trial is worth what two rows in place of one find: a source or two
more, none, or one less. Prints what ``deblend_batch/refine/rules.py`` picks of them; the table is for the
choice of rules.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.end_to_end import PRESETS, _match
from benchmarks.field_scenes import FieldScene, draw_field, write_fits
from deblend_batch.cli.main import main as deblend_batch
from deblend_batch.detect.field import detect_field
from deblend_batch.field.layout import Field
from deblend_batch.refine.field import how_to_detect
from deblend_batch.refine.fits import Fits
from deblend_batch.refine.fitting import Survey, fit_part
from deblend_batch.refine.halves import Halves
from deblend_batch.refine.rounds import refine
from deblend_batch.refine.rules import RefineRules, TrialRules
from deblend_batch.refine.sources import Sources
from deblend_batch.tiling.blends import Blends

_TRIED = TrialRules(10.0, (0.2, 6.0))
_MATCH_FWHM = 0.6
_NEAR_FWHM = 15.0

Array = NDArray[np.float64]


def try_field(scene: FieldScene) -> tuple[Halves, Sources, RefineRules]:
    """Detect in a field, try its members, and refine without dividing any."""
    with tempfile.TemporaryDirectory() as name:
        image, url, table = (str(Path(name, end)) for end in ("i.fits", "f.zarr", "s.parquet"))
        write_fits(scene, Path(image))
        if deblend_batch(["ingest", image, url]):
            raise SystemExit(f"{scene.preset.name}: the image was refused")
        opened = Field.open(url)
        params, finish = how_to_detect(opened, None, refine=True)
        assert finish is not None
        detect_field(opened, table, params=params)
        rows = pq.read_table(table)
        found = Sources.detected({name: rows[name].to_numpy() for name in rows.column_names})
        survey = Survey(url, 0, tuple(map(float, opened.measure_noise())), None)
        seen: list[Fits] = []

        def fit_all(blends: Blends, trial: TrialRules) -> Fits:
            seen.append(fit_part(blends, survey, trial))
            return seen[-1]

        rules = replace(finish.rules, trial=_TRIED, halves=())
        sources, _ = refine(found, opened, fit_all, finish.links, rules)
        return seen[0].halves, sources, finish.rules


def worth(scene: FieldScene, halves: Halves, sources: Sources) -> NDArray[np.int64]:
    """Count how many sources more are found with each trial's two rows in place of one."""
    reach, near = _MATCH_FWHM * scene.psf_fwhm_px, _NEAR_FWHM * scene.psf_fwhm_px
    more = np.zeros(len(halves.source_id), np.int64)
    for number, source in enumerate(halves.source_id):
        place = np.searchsorted(sources.id, source)
        middle = sources.yx[place]
        others = np.abs(sources.yx - middle).max(axis=1) < near
        others[place] = False
        true = scene.yx[np.abs(scene.yx - middle).max(axis=1) < near + reach]
        found = [
            int((_match(np.concatenate([sources.yx[others], rows]), true, reach)[1] >= 0).sum())
            for rows in (middle[None], halves.yx[number])
        ]
        more[number] = found[1] - found[0]
    return more


def columns_of(
    halves: Halves, more: NDArray[np.int64], picked: NDArray[np.bool_], fwhm_px: float
) -> Mapping[str, NDArray[np.generic]]:
    """Return what a rule may ask for, and the answer."""
    return {
        "more": more,
        "is_picked": picked,
        "snr": halves.snr.min(axis=1),
        "shared": halves.shared.max(axis=1),
        "apart_fwhm": halves.apart_fwhm(fwhm_px),
        "apart_radii": halves.apart_radii(fwhm_px),
        "flux_ratio": halves.flux.min(axis=1) / halves.flux.max(axis=1),
        "gain": halves.gain,
        "gain_share": halves.gain_share,
    }


def _say(more: NDArray[np.int64], picked: NDArray[np.bool_]) -> str:
    gained, nothing, less = (
        (more * picked).clip(min=0).sum(),
        (picked & (more == 0)).sum(),
        (picked & (more < 0)).sum(),
    )
    return (
        f"{len(more)} trials, worth {more.clip(min=0).sum()} sources; {picked.sum()} are picked: "
        f"{gained} sources more, {nothing} for nothing, {less} with one less"
    )


def main() -> None:
    """Draw fields, try their members, print what the rules pick."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--fields", type=int, default=1)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", help="where to write all trials, as Parquet")
    given = parser.parse_args()
    tables = []
    for preset in given.preset or PRESETS:
        for seed in range(given.seed, given.seed + given.fields):
            scene = draw_field(preset, given.size, seed)
            halves, sources, rules = try_field(scene)
            known = np.isin(halves.source_id, sources.id) & np.isfinite(halves.yx).all(axis=(1, 2))
            halves = Halves(*(values[known] for values in vars(halves).values()))
            more = worth(scene, halves, sources)
            picked = halves.are_two(scene.psf_fwhm_px, rules.halves)
            print(f"{preset} {seed}: {_say(more, picked)}")
            columns = columns_of(halves, more, picked, scene.psf_fwhm_px)
            names = {"preset": [preset] * len(more), "seed": [seed] * len(more)}
            tables.append(pa.table({**names, **columns}))
    if given.table:
        pq.write_table(pa.concat_tables(tables), given.table)


if __name__ == "__main__":
    main()
