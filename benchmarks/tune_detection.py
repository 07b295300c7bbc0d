"""Detection on fields whose sources are known: what finds most and invents least, and what fragments are.

    python benchmarks/tune_detection.py --preset lsst-i --preset kids-r contrast=0.2,0.3,0.5 peak=4,6
    python benchmarks/tune_detection.py --preset euclid-vis --preset candels-h --fragments

The first prints completeness and purity of each combination; the second fits the weights of
``deblend_batch/detect/fragments.py``. Fields are those of ``field_scenes.py``; their PSF is given.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.end_to_end import PRESETS, _match
from benchmarks.field_scenes import FieldScene, draw_field
from deblend_batch.detect.extract import (
    ExtractParams,
    SourceTable,
    extract_sources,
    find_candidates,
)
from deblend_batch.detect.filters import Place
from deblend_batch.detect.fragments import features
from deblend_batch.detect.hosts import stands_out
from deblend_batch.field.psf.profile import is_seeing, psf_image
from deblend_batch.tiling.tile import Box

_MATCH_FWHM = 0.6
_LEAST_SNR = 10.0
_RIDGE = 1.0

Array = NDArray[np.float64]


def detect(scene: FieldScene, params: ExtractParams) -> SourceTable:
    """Detect in a field whose PSF is given."""
    params = replace(params, from_space=_is_from_space(scene))
    return extract_sources(
        scene.image, scene.preset.noise_sigma, None, [_place(scene)], params, _saturated(scene)
    )


def _place(scene: FieldScene) -> Place:
    psf = psf_image(scene.psf_fwhm_px, scene.preset.pixel_scale_arcsec)
    return Place(Box(0, 0, *scene.image.shape), psf)


def _is_from_space(scene: FieldScene) -> bool:
    return not is_seeing(scene.psf_fwhm_px, scene.preset.pixel_scale_arcsec)


def _saturated(scene: FieldScene) -> NDArray[np.bool_]:
    return np.asarray(scene.image >= scene.saturate * (1 - 1e-6))


def score(scenes: Sequence[FieldScene], params: ExtractParams) -> str:
    """Count what is found and what is invented, over some fields."""
    counts = np.zeros((4, 2), np.int64)
    pulls = []
    for scene in scenes:
        found = detect(scene, params)
        of_row, of_source = _match(found.yx, scene.yx, _MATCH_FWHM * scene.psf_fwhm_px)
        apart = cKDTree(scene.yx).query(scene.yx, k=2)[0][:, 1] / scene.psf_fwhm_px
        counted = (scene.snr >= _LEAST_SNR) & ~scene.is_saturated
        for number, chosen in enumerate(
            (
                counted & (apart >= 0.6) & (apart < 1),
                counted & (apart >= 1) & (apart < 3),
                counted & (apart >= 3),
            )
        ):
            counts[number] += (of_source[chosen] >= 0).sum(), chosen.sum()
        counts[3] += (of_row >= 0).sum(), len(of_row)
        alone = of_source[counted & (apart >= 3) & (of_source >= 0)]
        true = scene.yx[of_row[alone]]
        pulls.append(((found.yx[alone] - true) / found.yx_err[alone, None]).ravel())
    names = ("0.6-1 FWHM", "1-3 FWHM", "3 FWHM and more", "rows that are true")
    shares = (
        f"{name} {100 * a / max(b, 1):5.1f} % of {b}"
        for name, (a, b) in zip(names, counts, strict=True)
    )
    within = 100 * (np.abs(np.concatenate(pulls)) < 1).mean()
    return ", ".join([*shares, f"positions within 1 sigma {within:.0f} %"])


def sample_fragments(scene: FieldScene) -> tuple[Array, NDArray[np.bool_]]:
    """Return the features of the detections of a field that have a host, and which are fragments."""
    places = [_place(scene)]
    snr = scene.image / np.float64(scene.preset.noise_sigma)
    params = ExtractParams(from_space=_is_from_space(scene))
    found = find_candidates(snr, np.zeros(snr.shape, bool), _saturated(scene), places, params)
    assert found is not None
    chosen = (found.hosting.host >= 0) & ~found.saturated
    chosen &= stands_out(found.hosting, found.peak, params.threshold_sigma)
    of_row, _ = _match(found.yx, scene.yx, _MATCH_FWHM * scene.psf_fwhm_px)
    columns = features(found.hosting, found.peak, scene.psf_fwhm_px)
    return columns[chosen], of_row[chosen] < 0


def fit_weights(columns: Array, is_fragment: NDArray[np.bool_]) -> Array:
    """Fit a logistic model by Newton's method, weights held small by a ridge; the constant comes first."""
    terms = np.concatenate([np.ones((len(columns), 1)), columns], axis=1)
    ridge = _RIDGE * np.diag([0.0] + [1.0] * columns.shape[1])
    weights = np.zeros(terms.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-terms @ weights))
        slope = terms.T @ (chance - is_fragment) + ridge @ weights
        bend = (terms * (chance * (1 - chance))[:, None]).T @ terms + ridge
        weights -= np.linalg.solve(bend, slope)
    return weights


def main() -> None:
    """Draw fields, and scan settings or fit the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", nargs="*", help="setting=value,value,...")
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--fields", type=int, default=1)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--fragments", action="store_true")
    given = parser.parse_args()
    scenes = [
        draw_field(preset, given.size, given.seed + number)
        for preset in given.preset or PRESETS
        for number in range(given.fields)
    ]
    if given.fragments:
        _show_weights([sample_fragments(scene) for scene in scenes])
        return
    names = {item.name.removesuffix("_sigma"): item.name for item in fields(ExtractParams)}
    axes = [
        [(names[name], float(value)) for value in values.split(",")]
        for name, values in (word.split("=") for word in given.scan)
    ]
    for settings in itertools.product(*axes):
        text = " ".join(f"{name}={value:g}" for name, value in settings)
        changes: dict[str, Any] = dict(settings)
        print(f"{text or 'defaults':40} {score(scenes, ExtractParams(**changes))}", flush=True)


def _show_weights(samples: Sequence[tuple[Array, NDArray[np.bool_]]]) -> None:
    columns, is_fragment = (np.concatenate(part) for part in zip(*samples, strict=True))
    weights = fit_weights(columns, is_fragment)
    print("weights", ", ".join(f"{weight:.3f}" for weight in weights))
    chance = 1 / (1 + np.exp(-(weights[0] + columns @ weights[1:])))
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        part = (chance >= low) & (chance < low + 0.2)
        share = is_fragment[part].mean()
        print(f"score {low:.1f}-{low + 0.2:.1f}: {part.sum():5} rows, fragments {share:.2f}")
    for cut in (0.5, 0.7, 0.9):
        gone, lost = (chance[is_fragment] > cut).mean(), (chance[~is_fragment] > cut).mean()
        print(f"above {cut}: {100 * gone:.0f} % of fragments, {100 * lost:.1f} % of sources")


if __name__ == "__main__":
    main()
