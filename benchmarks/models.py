"""What the shipped models cost.

``python benchmarks/models.py`` prints, for each model, from one run on this machine,

* its parameters, and its multiply-accumulate operations a stamp (half the operations that torch counts);
* stamps/s on one core, one thread, everything from raw stamps to fluxes with error bars included;
* the same at 64 px, where its network takes that size: the trade of stamp size against cost.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from deblend_batch.models import list_models
from deblend_batch.models.model import Model
from deblend_batch.models.registry import resolve
from deblend_batch.models.weights import read_weights

COMMON_SIZE_PX = 64
BATCH = 64


def load(name: str, size: int) -> Model:
    """Load a shipped model with stamps of another size; its fluxes are then of no use, its cost is."""
    weights = read_weights(resolve(name))
    card = weights.card
    if size != card.stamp_size:
        network = dict(card.network)
        if "unet" in network:
            network["unet"] = {**network["unet"], "stamp_size": size}
        else:
            network["stamp_size"] = size
        card = dataclasses.replace(card, network=network, stamp_size=size)
        weights = dataclasses.replace(weights, card=card)
    return Model.from_weights(weights, name)


def stamps_of(size: int, n: int = BATCH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, companions near the middle, and the noise's rms."""
    rng = np.random.default_rng(0)
    stamps = rng.normal(0, 1, (n, size, size)).astype(np.float32)
    companion = rng.uniform(size / 2 - 12, size / 2 + 12, (n, 2)).astype(np.float32)
    return stamps, companion, np.ones(n, np.float32)


def mega_macs(model: Model) -> float:
    """Count a stamp's multiply-accumulate operations, in millions."""
    stamps, companion, sigma = stamps_of(model.card.stamp_size)
    with FlopCounterMode(display=False) as counter:
        model.predict(stamps, companion, sigma=sigma, batch_size=BATCH)
    return float(counter.get_total_flops()) / 2 / BATCH / 1e6


def stamps_per_second(model: Model, seconds: float) -> float:
    """Measure the model on one core."""
    stamps, companion, sigma = stamps_of(model.card.stamp_size)
    model.predict(stamps, companion, sigma=sigma, batch_size=BATCH)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        model.predict(stamps, companion, sigma=sigma, batch_size=BATCH)
        done += BATCH
    return done / (time.perf_counter() - started)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"one core; load {os.getloadavg()[0]:.1f}")
    print(f"{'model':24} {'parameters':>12} {'stamp':>7} {'MMAC':>7} {'stamps/s/core':>14}")
    for card in list_models():
        resizable = "unet" in card.architecture or card.architecture == "blend2mask2flux"
        sizes = [card.stamp_size]
        if resizable:
            sizes = sorted({COMMON_SIZE_PX, card.stamp_size, 96, 128})
        for size in sizes:
            model = load(card.name, size)
            speed = stamps_per_second(model, chosen.seconds)
            own = "" if size == card.stamp_size else "  (its network at this size)"
            row = f"{card.name:24} {card.parameters:12,} {size:4} px {mega_macs(model):7.1f}"
            print(f"{row} {speed:14,.0f}{own}", flush=True)


if __name__ == "__main__":
    main()
