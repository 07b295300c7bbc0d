"""What the profile fit does on a GPU: ``python benchmarks/fit_gpu.py``.

For pairs and groups of five, and batches of growing size: blends/s and the most memory that a blend took
on the GPU, beside blends/s of the host's CPU (one thread) on the smallest batch, and how far the fluxes of
both differ.
Without a CUDA device it says so and ends.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import torch

from benchmarks.fit_scenes import (
    NOISE_NJY,
    PIXEL_ARCSEC,
    POSITION_ERR_PX,
    PSF_FWHM_ARCSEC,
    Recipe,
    Scenes,
    draw_scenes,
)
from deblend_batch.models.profile_fit.fit import fit_blends
from deblend_batch.models.profile_fit.light.psf import PsfStack, psf_from_fwhm
from deblend_batch.models.profile_fit.result import BlendFit

SEED = 20_272
DRAWN = 128
"""Scenes drawn; larger batches repeat them with fresh noise."""


def batch_of(scenes: Scenes, rows: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and given positions of a batch."""
    generator = torch.Generator().manual_seed(SEED)
    which = torch.arange(rows) % len(scenes.images)
    images = torch.from_numpy(scenes.images)[which]
    if rows > len(scenes.images):
        images = images + 0.1 * NOISE_NJY * torch.randn(images.shape, generator=generator)
    return images.to(device), torch.from_numpy(scenes.given_yx)[which].to(device)


def fit_on(images: torch.Tensor, given: torch.Tensor) -> BlendFit:
    """Fit a batch where it lies."""
    rows, device = len(images), images.device
    one = PsfStack.of([[psf_from_fwhm(PSF_FWHM_ARCSEC / PIXEL_ARCSEC)]])
    psf = PsfStack(*(each.to(device).expand(rows, *each.shape[1:]) for each in one))
    weights = torch.full_like(images, NOISE_NJY**-2)
    members = torch.full((rows,), given.shape[1], device=device)
    return fit_blends(images, weights, given, POSITION_ERR_PX, members, psf, PIXEL_ARCSEC)


def seconds_of(images: torch.Tensor, given: torch.Tensor) -> tuple[float, BlendFit]:
    """Return the time that a fit took, and the fit."""
    started = time.perf_counter()
    fit = fit_on(images, given)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, fit


def measure(scenes: Scenes, batches: list[int]) -> None:
    """Print the lines of one number of members."""
    members = scenes.yx.shape[1]
    smallest = min(*batches, len(scenes.images))
    on_cpu, host = seconds_of(*batch_of(scenes, smallest, "cpu"))
    print(f"{members} members: one CPU thread {smallest / on_cpu:10,.0f} blends/s")
    for rows in batches:
        images, given = batch_of(scenes, rows, "cuda")
        seconds_of(images, given)  # compiles, loads libraries, fills the allocator
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        took, fit = seconds_of(images, given)
        peak = (torch.cuda.max_memory_allocated() - before) / rows / 1e3
        line = f"{members} members: batch {rows:7,} {rows / took:10,.0f} blends/s {peak:9,.0f} kB/blend"
        if rows == smallest:
            apart = ((fit.flux.cpu() - host.flux) / host.flux_err).abs()
            middle, most = np.quantile(apart[apart.isfinite()].numpy(), [0.5, 0.99])
            line += f"; from the CPU's: median {middle:.1e}, 99 % {most:.1e} sigma"
        print(line, flush=True)


def main() -> None:
    """Run the benchmark and print its lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batches", default="128,1024,8192,32768", help="sizes of batches")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: run this where there is one")
        return
    torch.set_num_threads(1)
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}")
    batches = [int(each) for each in chosen.batches.split(",")]
    for members, nearest in ((2, 0.3), (5, 0.6)):
        recipe = Recipe(members=members, separation_arcsec=(nearest, 2.0), within_range=True)
        measure(draw_scenes(recipe, DRAWN, SEED), batches)


if __name__ == "__main__":
    main()
