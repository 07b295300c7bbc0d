"""Pairs of galaxies that training never sees: what a network makes of them, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deblend_batch.evaluation.metrics import iou, measure
from deblend_batch.models.card import Domain
from deblend_batch.models.networks.estimate import estimate
from deblend_batch.models.networks.preprocess import PreprocessConfig
from deblend_batch.models.uncertainty import Evidence, crowding
from deblend_batch.simulate.galaxies.pool import Split
from deblend_batch.train.data import Batch, PairSource, to_tensors
from deblend_batch.train.step import prepare_batch

_CHUNK = 256
_BATCH = 64


@dataclass(frozen=True)
class Outcome:
    """What a network predicted for held-out pairs, beside the truth.

    Parameters
    ----------
    flux, true_flux : ndarray of float32, shape (n, 2)
        Central and companion, image units.
    iou : ndarray of float64, shape (n, 2), or None
        Intersection over union of both members' masks, for networks that have masks.
    evidence : Evidence
        What the error model judges by.
    """

    flux: NDArray[np.float32]
    true_flux: NDArray[np.float32]
    iou: NDArray[np.float64] | None
    evidence: Evidence

    def metrics(self) -> dict[str, float]:
        """Return the metrics of :func:`deblend_batch.evaluation.metrics.measure`, pooled and by member.

        Returns
        -------
        dict of str to float
            ``flux_mape``, ``bias``, ``sigma``, ``nmad``, ``outlier_fraction``,
            ``flux_mape_central``, ``flux_mape_companion`` and, with masks, ``iou``; those that are
            not defined are absent.
        """
        pooled = measure(self.flux.ravel(), self.true_flux.ravel())
        names = ("flux_mape", "bias", "sigma", "nmad", "outlier_fraction")
        found = {name: float(getattr(pooled, name)) for name in names}
        for member, role in enumerate(("central", "companion")):
            one = measure(self.flux[:, member], self.true_flux[:, member])
            found[f"flux_mape_{role}"] = one.flux_mape
        if self.iou is not None:
            found["iou"] = float(self.iou.mean())
        return {name: value for name, value in found.items() if math.isfinite(value)}


class HeldOut:
    """A fixed set of pairs of one split, kept in memory.

    Parameters
    ----------
    source : PairSource
        The pairs of the training.
    split : {"validation", "test"}
        Which galaxies.
    n : int
        Number of pairs.
    with_masks : bool
        Whether to keep the true masks.
    """

    def __init__(self, source: PairSource, split: Split, n: int, *, with_masks: bool) -> None:
        sampler = source.of(split).sampler()
        self._chunks: list[Batch] = []
        facts, crowded = [], []
        for start in range(0, n, _CHUNK):
            pairs = sampler.draw_range(start, min(start + _CHUNK, n))
            self._chunks.append(to_tensors(pairs, with_masks=with_masks))
            seen = np.hypot(*(pairs.companion_yx - pairs.central_yx).T)
            facts.append(np.stack([seen, pairs.sigma, pairs.psf_fwhm_px]))
            crowded.append(crowding(pairs.central_yx, pairs.companion_yx, pairs.neighbours_yx))
        self._separation_px, self._sigma, self._psf_fwhm_px = np.concatenate(facts, axis=1)
        self._crowding = np.concatenate(crowded)
        self._true_flux = np.concatenate([chunk["flux"].numpy() for chunk in self._chunks])

    @torch.inference_mode()
    def outcome(self, network: nn.Module, preprocess: PreprocessConfig) -> Outcome:
        """Run a network on all pairs."""
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        flux, hints, ious = [], [], []
        for chunk in self._chunks:
            for start in range(0, len(chunk["flux"]), _BATCH):
                rows = slice(start, start + _BATCH)
                batch = {name: column[rows].to(device) for name, column in chunk.items()}
                found = estimate(network, prepare_batch(batch, preprocess))
                flux.append(found.flux.cpu().numpy())
                hints.append(found.hints.cpu().numpy())
                if found.masks is not None:
                    masks = found.masks[:, 1:].cpu().numpy()
                    ious.append(iou(masks, chunk["masks"][rows, 1:].numpy()))
        network.train(was_training)
        evidence = self._evidence(np.concatenate(flux), np.concatenate(hints))
        return Outcome(
            np.concatenate(flux), self._true_flux, np.concatenate(ious) if ious else None, evidence
        )

    def _evidence(self, flux: NDArray[np.float32], hints: NDArray[np.float32]) -> Evidence:
        return Evidence(flux, self._separation_px, self._crowding, hints, self._sigma)

    def domain(self) -> Domain:
        """Return the ranges that the pairs cover, without the outermost half per cent, for a model card."""
        faint = self._true_flux.min(axis=1) / self._sigma
        return Domain(
            psf_fwhm_px=_range(self._psf_fwhm_px),
            separation_px=_range(self._separation_px),
            snr=_range(faint),
        )


def _range(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(values, [0.5, 99.5])
    return round(float(low), 3), round(float(high), 3)
