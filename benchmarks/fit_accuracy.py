"""How good the profile fit is: ``python benchmarks/fit_accuracy.py`` prints figures beside targets.

Scenes are GalSim's (``fit_scenes.py``), with a seed of their own; no part of the fit draws its truth, and its
priors come from the shipped population. ``--rows pairs,groups`` runs some rows, ``--pairs 500`` fewer scenes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import galsim
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fit_scenes import (
    NOISE_NJY,
    PIXEL_ARCSEC,
    POSITION_ERR_PX,
    PSF_BETA,
    PSF_FWHM_ARCSEC,
    STAMP_PX,
    Recipe,
    Scenes,
    draw_scenes,
    draw_source,
)
from deblend_batch.engine.methods.fit import FOUND_SN
from deblend_batch.models import load_model
from deblend_batch.models.profile_fit.fit import fit_blends
from deblend_batch.models.profile_fit.light.psf import PsfMixture, PsfStack, psf_from_fwhm
from deblend_batch.models.profile_fit.result import BlendFit

_NETWORK = "blend2mask2flux-small"
SEED = 30_411

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One line of the table; ``good`` is None where there is no target."""

    row: str
    what: str
    measured: str
    target: str = ""
    good: bool | None = None


@lru_cache(maxsize=16)
def mixture(fwhm_arcsec: float) -> PsfMixture:
    """Return a PSF's mixture, fitted once, as runs fit it once for each cell."""
    return psf_from_fwhm(fwhm_arcsec / PIXEL_ARCSEC, beta=PSF_BETA)


def psf_stack(scenes: int, fwhm_arcsec: tuple[float, ...]) -> PsfStack:
    """Return the same PSF for all scenes."""
    one = PsfStack.of([[mixture(fwhm) for fwhm in fwhm_arcsec]])
    return PsfStack(*(each.expand(scenes, *each.shape[1:]) for each in one))


def run_fit(
    scenes: Scenes,
    fwhm_arcsec: tuple[float, ...] = (PSF_FWHM_ARCSEC,),
    weights: NDArray[np.float32] | None = None,
    members: int | None = None,
) -> BlendFit:
    """Fit scenes as a survey would."""
    images = torch.from_numpy(scenes.images)
    given = torch.from_numpy(scenes.given_yx[:, :members])
    weight = (
        torch.full_like(images, NOISE_NJY**-2) if weights is None else torch.from_numpy(weights)
    )
    return fit_blends(
        images,
        weight,
        given,
        POSITION_ERR_PX,
        torch.full((len(given),), given.shape[1]),
        psf_stack(len(given), fwhm_arcsec),
        PIXEL_ARCSEC,
    )


def nmad(values: Array) -> float:
    """Return the normalised median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


class Fluxes:
    """Fluxes of one band beside the truth."""

    def __init__(self, flux: Array, error: Array, truth: Array) -> None:
        self.ratio = flux / truth
        self.sigma = (flux - truth) / error
        with np.errstate(invalid="ignore", divide="ignore"):
            self.magnitude = -2.5 * np.log10(np.maximum(self.ratio, 1e-6))

    @classmethod
    def of(
        cls, fit: BlendFit, scenes: Scenes, band: int = 0, members: slice = slice(None)
    ) -> Fluxes:
        """Compare some members of a fit."""
        parts = (fit.flux.numpy(), fit.flux_err.numpy(), scenes.flux)
        return cls(*(each[:, band, members] for each in parts))

    def within(self, sigmas: float) -> float:
        """Return the share within so many sigma, per cent."""
        return float(100 * np.mean(np.abs(self.sigma) <= sigmas))

    @property
    def median_error(self) -> float:
        """Median absolute relative error, per cent."""
        return float(100 * np.median(np.abs(self.ratio - 1)))

    @property
    def median_bias(self) -> float:
        """Median relative error, per cent."""
        return float(100 * np.median(self.ratio - 1))


def limited(
    row: str, what: str, value: float, limit: float, unit: str = "", digits: int = 3
) -> Line:
    """Make a line whose value has to be at most a limit in size."""
    return Line(row, what, f"{value:.{digits}f}{unit}", f"<= {limit:g}{unit}", abs(value) <= limit)


def at_least(row: str, what: str, value: float, limit: float, unit: str = " %") -> Line:
    """Make a line whose value has to reach a limit."""
    return Line(row, what, f"{value:.1f}{unit}", f">= {limit:g}{unit}", value >= limit)


def between(row: str, what: str, value: float, low: float, high: float) -> Line:
    """Make a line whose value has to lie in a range."""
    return Line(row, what, f"{value:.1f} %", f"{low:g}-{high:g} %", low <= value <= high)


def pairs(count: int) -> list[Line]:
    """Fit Sersic pairs, positions off by half a pixel."""
    scenes = draw_scenes(Recipe(within_range=True), count, SEED)
    fit = run_fit(scenes)
    fluxes = Fluxes.of(fit, scenes)
    close = np.hypot(*(scenes.yx[:, 1] - scenes.yx[:, 0]).T) * PIXEL_ARCSEC < 0.6
    shear = np.stack([scenes.g1, scenes.g2], axis=2)
    shown, error = fit.ellipticity.numpy(), fit.ellipticity_err.numpy()
    known = np.isfinite(shown)
    slope = float(np.polyfit(shear[known], shown[known], 1)[0]) - 1.0
    true = 100 * np.mean(np.abs(shown - shear)[known] <= error[known])
    radius = 100 * float(np.median(np.abs(fit.radius_px.numpy() / scenes.radius - 1)))
    places = np.abs(fit.yx.numpy() - scenes.yx) <= fit.yx_err.numpy()
    row = "pairs"
    return [
        limited(row, "NMAD, mag", nmad(fluxes.magnitude), 0.060, digits=4),
        limited(row, "median error", fluxes.median_error, 3.7, " %", 2),
        limited(
            row,
            "off by > 0.75 mag",
            100 * float(np.mean(np.abs(fluxes.magnitude) > 0.75)),
            0.5,
            " %",
            2,
        ),
        limited(row, "missing", float(np.sum(~np.isfinite(fit.flux.numpy()))), 0, digits=0),
        between(row, "68 % intervals true", fluxes.within(1.0), 65, 71),
        between(row, "95 % intervals true", fluxes.within(1.96), 93, 96),
        Line(row, "median bias, mag", f"{np.median(fluxes.magnitude):+.4f}"),
        limited(row, 'NMAD, mag, < 0.6"', nmad(fluxes.magnitude[close]), 0.12, digits=4),
        limited(row, "ellipticity: multiplicative bias", 100 * slope, 2.0, " %", 2),
        between(row, "ellipticity: 68 % intervals true", true, 62, 74),
        limited(row, "half-light radius: median error", radius, 6.0, " %", 2),
        Line(row, "positions: 68 % intervals true", f"{100 * places.mean():.1f} %"),
        Line(row, "taken for stars", f"{100 * fit.is_star.double().mean():.2f} %"),
        Line(row, "converged", f"{100 * fit.converged.double().mean():.2f} %"),
        Line(row, "chi2 per pixel, median", f"{fit.chi2.median():.4f}"),
        limited(row, "UNRECOGNISED by mistake", _found(fit), 2.0, " %", 2),
        Line(
            row,
            "SKY_OFFSET by mistake",
            f"{100 * (fit.sky_sn.abs() > FOUND_SN).double().mean():.2f} %",
        ),
    ]


def _found(fit: BlendFit) -> float:
    return float(100 * (fit.peak_sn > FOUND_SN).any(dim=1).double().mean())


def deeper(count: int) -> list[Line]:
    """Fit pairs whose companion may be two magnitudes fainter than any of the first row."""
    scenes = draw_scenes(Recipe(), count // 2, SEED + 1)
    fluxes = Fluxes.of(run_fit(scenes), scenes)
    row = "to 25.5 mag"
    return [
        Line(row, "NMAD, mag", f"{nmad(fluxes.magnitude):.4f}"),
        Line(row, "median error", f"{fluxes.median_error:.2f} %"),
        Line(
            row, "68 / 95 % intervals true", f"{fluxes.within(1):.1f} / {fluxes.within(1.96):.1f} %"
        ),
    ]


def fainter(count: int) -> list[Line]:
    """Fit companions much fainter, at one arcsecond."""
    lines = []
    for step, limit in ((2.5, 3.0), (4.0, 5.0), (5.0, 15.0)):
        recipe = Recipe(magnitude=(20.0, 21.0), fainter=(step, step), separation_arcsec=(1.0, 1.0))
        scenes = draw_scenes(recipe, count // 4, SEED + int(10 * step))
        fluxes = Fluxes.of(run_fit(scenes), scenes, members=slice(1, None))
        row = f"{step:g} mag fainter"
        lines += [
            limited(row, "median bias", fluxes.median_bias, limit, " %", 1),
            between(row, "68 % intervals true", fluxes.within(1.0), 64, 75),
            Line(row, "median error", f"{fluxes.median_error:.1f} %"),
        ]
    return lines


def groups(count: int) -> list[Line]:
    """Fit groups of three to five."""
    lines = []
    for members in (3, 4, 5):
        recipe = Recipe(members=members, separation_arcsec=(0.6, 2.0), within_range=True)
        scenes = draw_scenes(recipe, count // 6, SEED + 100 + members)
        fluxes = Fluxes.of(run_fit(scenes), scenes)
        row = f"{members} members"
        lines += [
            limited(row, "median error", fluxes.median_error, 4.0, " %", 2),
            between(row, "68 % intervals true", fluxes.within(1.0), 64, 72),
            Line(row, "NMAD, mag", f"{nmad(fluxes.magnitude):.4f}"),
        ]
    return lines


def background(count: int) -> list[Line]:
    """Leave a background in."""
    scenes = draw_scenes(Recipe(within_range=True), count // 5, SEED + 200)
    lines = []
    for level in (-1.0, -0.5, 0.5, 1.0):
        shifted = replace(scenes, images=scenes.images + np.float32(level * NOISE_NJY))
        fit = run_fit(shifted)
        row = f"background {level:+g} sigma"
        flagged = float(100 * (fit.sky_sn.abs() > FOUND_SN).double().mean())
        lines += [
            limited(row, "median flux bias", Fluxes.of(fit, scenes).median_bias, 1.0, " %", 2),
            at_least(row, "flagged", flagged, 98),
        ]
    return lines


def third(count: int) -> list[Line]:
    """Add a third source that nobody detected."""
    scenes = draw_scenes(Recipe(within_range=True), count // 5, SEED + 300)
    rng = np.random.default_rng(SEED + 301)
    psf = galsim.Moffat(beta=PSF_BETA, fwhm=PSF_FWHM_ARCSEC / PIXEL_ARCSEC)
    images = scenes.images.copy()
    for scene in range(len(images)):
        central = scenes.flux[scene, 0].argmax()
        angle = rng.uniform(0, 2 * np.pi)
        yx = scenes.yx[scene, central] + 12.0 * np.array([np.sin(angle), np.cos(angle)])
        index, radius = round(rng.uniform(0.5, 4.0), 2), rng.uniform(2.0, 8.0)
        flux = 0.5 * scenes.flux[scene, 0, central]
        light = galsim.Sersic(n=index, half_light_radius=radius, flux=flux)
        images[scene, 0] += draw_source(light, psf, yx, flux)
    row = "undetected third"
    return [
        at_least(row, "UNRECOGNISED", _found(run_fit(replace(scenes, images=images))), 95),
        limited(row, "where there is none", _found(run_fit(scenes)), 2.0, " %", 2),
    ]


def absent(count: int) -> list[Line]:
    """Fit a member that is not there."""
    recipe = Recipe(magnitude=(20.5, 23.5), fainter=(20.0, 20.0), separation_arcsec=(0.6, 2.0))
    scenes = draw_scenes(recipe, count // 4, SEED + 400)
    fluxes = Fluxes.of(run_fit(scenes), scenes, members=slice(1, None))
    return [at_least("absent member", "flux within 2 sigma of zero", fluxes.within(2.0), 94)]


def stars(count: int) -> list[Line]:
    """Fit a star beside a galaxy, its saturated core masked; and one that is not saturated."""
    lines = []
    for row, magnitude, fainter, masked in (
        ("saturated star", (17.5, 19.0), (2.5, 4.0), True),
        ("star", (20.5, 22.5), (-1.0, 1.0), False),
    ):
        recipe = Recipe(
            magnitude=magnitude, fainter=fainter, separation_arcsec=(0.8, 2.0), stars=(0,)
        )
        scenes = draw_scenes(recipe, count // 8, SEED + 500 + masked)
        weights = np.full_like(scenes.images, NOISE_NJY**-2)
        if masked:
            # What passes the level of a 19.5 mag star's middle pixel is clipped.
            weights[scenes.images > 0.25 * 10 ** (-0.4 * (19.5 - 31.4))] = 0.0
        fit = run_fit(scenes, weights=weights)
        is_star = 100 * fit.is_star.double().mean(dim=0)
        star, other = (Fluxes.of(fit, scenes, members=slice(k, k + 1)) for k in (0, 1))
        lines += [
            Line(row, "pixels masked, mean", f"{np.mean((weights == 0).sum(axis=(1, 2, 3))):.1f}"),
            limited(row, "star's median flux bias", star.median_bias, 1.0, " %", 2),
            limited(row, "neighbour's median flux bias", other.median_bias, 2.0, " %", 2),
            Line(row, "taken for stars: star, galaxy", f"{is_star[0]:.1f}, {is_star[1]:.1f} %"),
            Line(row, "68 % true: star, galaxy", f"{star.within(1):.0f}, {other.within(1):.0f} %"),
        ]
    return lines


def bands(count: int) -> list[Line]:
    """Fit three bands of one PSF each, together and one by one."""
    fwhm = (0.17, 0.20, 0.25)
    scenes = draw_scenes(Recipe(fwhm_arcsec=fwhm, within_range=True), count // 8, SEED + 600)
    together = run_fit(scenes, fwhm)
    alone = [
        run_fit(replace(scenes, images=scenes.images[:, [band]]), (fwhm[band],))
        for band in range(3)
    ]
    joint = [Fluxes.of(together, scenes, band).magnitude for band in range(3)]
    single = [
        Fluxes.of(alone[band], replace(scenes, flux=scenes.flux[:, [band]])).magnitude
        for band in range(3)
    ]
    lines = []
    for one, other in ((0, 1), (1, 2)):
        here, there = nmad(joint[one] - joint[other]), nmad(single[one] - single[other])
        lines.append(
            Line(
                "3 bands",
                f"colour {one} - {other}: scatter, mag",
                f"{here:.4f}",
                f"< {there:.4f} apart",
                here < there,
            )
        )
    for band in range(3):
        here, there = nmad(joint[band]), nmad(single[band])
        lines.append(
            Line(
                "3 bands",
                f"band {band}: NMAD, mag",
                f"{here:.4f}",
                f"<= {there:.4f} alone",
                here <= there,
            )
        )
    return lines


def wrong_psf(count: int) -> list[Line]:
    """Fit with a PSF whose width is wrong."""
    scenes = draw_scenes(Recipe(within_range=True), count // 5, SEED + 700)
    lines = []
    for factor in (0.9, 0.95, 1.05, 1.1):
        fluxes = Fluxes.of(run_fit(scenes, (factor * PSF_FWHM_ARCSEC,)), scenes)
        measured = f"NMAD {nmad(fluxes.magnitude):.4f}, bias {np.median(fluxes.magnitude):+.4f} mag"
        lines.append(Line("wrong PSF", f"FWHM x {factor:g}", measured))
    return lines


def speed(_: int) -> list[Line]:
    """Measure stamps per second on one core, in turns with the network at its own size."""
    network = load_model(_NETWORK)
    size = network.card.stamp_size
    rng = np.random.default_rng(SEED)
    noise = rng.normal(0, 1, (64, size, size)).astype(np.float32)
    companion = rng.uniform(size / 2 - 12, size / 2 + 12, (64, 2)).astype(np.float32)
    sigma = np.ones(64, np.float32)
    scenes = {
        members: draw_scenes(
            Recipe(members=members, separation_arcsec=(lowest, 2.0), within_range=True),
            128,
            SEED + 800,
        )
        for members, lowest in ((2, 0.3), (5, 0.6))
    }
    tasks: dict[str, tuple[int, Callable[[], object]]] = {
        "network": (64, lambda: network.predict(noise, companion, sigma=sigma)),
        "2": (128, lambda: run_fit(scenes[2])),
        "5": (128, lambda: run_fit(scenes[5])),
    }
    took: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(6):
        for task, (rows, call) in tasks.items():
            started = time.process_time()
            call()
            if turn:  # the first warms up
                took[task].append((time.process_time() - started) / rows)
    rate = {task: 1.0 / float(np.min(seconds)) for task, seconds in took.items()}
    lines = [Line("speed", f"{_NETWORK}, {size} px", f"{rate['network']:.0f} stamps/s")]
    for members, target in ((2, 0.9), (5, 0.3)):
        ratio = rate[str(members)] / rate["network"]
        what = f"fit, {members} members, {STAMP_PX} px"
        lines.append(
            Line(
                "speed",
                what,
                f"{rate[str(members)]:.0f} /s = {ratio:.2f} of it",
                f">= {target}",
                ratio >= target,
            )
        )
    return lines


ROWS: dict[str, Callable[[int], list[Line]]] = {
    "pairs": pairs,
    "deeper": deeper,
    "fainter": fainter,
    "groups": groups,
    "background": background,
    "third": third,
    "absent": absent,
    "stars": stars,
    "bands": bands,
    "wrong-psf": wrong_psf,
    "speed": speed,
}


def main() -> None:
    """Run the rows asked for and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--pairs", type=int, default=2000, help="scenes of the first row")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.rows.split(",")) - set(ROWS))
    if unknown:
        parser.error(f"no row {unknown[0]!r}; the rows are {', '.join(ROWS)}")
    torch.set_num_threads(1)
    print(f"one core; load {os.getloadavg()[0]:.1f}; seed {SEED}")
    for name in chosen.rows.split(","):
        started = time.perf_counter()
        for line in ROWS[name](chosen.pairs):
            verdict = {None: "", True: "reached", False: "MISSED"}[line.good]
            print(
                f"{line.row:22} {line.what:34} {line.measured:34} {line.target:18} {verdict}",
                flush=True,
            )
        print(f"{'':22} ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
