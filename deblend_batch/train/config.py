"""The training config: YAML in, one frozen record out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from deblend_batch import storage
from deblend_batch.settings import Section, checked, read_mapping
from deblend_batch.simulate.galaxies.variation import Variation
from deblend_batch.simulate.pairs.rules import PairRules

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


class PoolConfig(Section):
    """The isolated galaxies; see :class:`deblend_batch.simulate.galaxies.variation.Variation`."""

    size: int = Field(20000, ge=64)
    """Number of galaxies, over all three splits."""
    seed: int = Field(1, ge=0)
    """Seed of the pool."""
    psf_fwhm_px: Range | None = (1.6, 5.0)
    """Narrowest and widest PSF, px; null for the preset's own PSF."""
    own_psf_fraction: Fraction = 0.3
    """Share of the PSFs that are the preset's own all the same."""
    radius_factor: tuple[Positive, Positive] = (0.6, 1.5)
    """Range of a factor on all radii."""
    processes: int = Field(1, ge=1)
    """Ray tasks that draw the galaxies at a time; with 1 no Ray. The pool does not depend on it."""
    url: str | None = None
    """An existing pool to use instead of drawing one; the other keys are then without effect."""

    @property
    def variation(self) -> Variation:
        """How the pool departs from its preset."""
        return Variation(self.psf_fwhm_px, self.own_psf_fraction, self.radius_factor)


class PairsConfig(Section):
    """How galaxies are paired; see :class:`deblend_batch.simulate.pairs.rules.PairRules`."""

    noise_factor: tuple[Positive, Positive] = (0.5, 60.0)
    """Range of a factor on the preset's noise."""
    least_snr: float = Field(5.0, ge=0)
    """Signal to noise that both members have at least; the noise is lowered where needed."""
    noise_correlation: tuple[Fraction, Fraction] = (0.0, 0.4)
    """Range of the weight of adjacent pixels that correlates the noise."""
    flux_jitter_mag: float = Field(0.4, ge=0)
    """Each member is brightened or faded by up to this."""
    free_offset_fraction: Fraction = 0.25
    """Share of the pairs whose distance does not follow from their radii."""
    neighbours_per_stamp: float = Field(0.3, ge=0)
    """Mean number of third galaxies."""
    close_neighbour_fraction: Fraction = 0.1
    """Share of those that may come close to a member."""
    background_error: float = Field(0.05, ge=0)
    """Scatter of a constant background left in the stamp, in units of the noise."""

    def rules(self, stamp_size: int) -> PairRules:
        """Return the simulator's rules.

        Parameters
        ----------
        stamp_size : int
            Edge of the stamps, px.
        """
        return PairRules(stamp_size=stamp_size, **self.model_dump())


class TrainConfig(Section):
    """Everything that decides the weights."""

    model: str = "blend2flux-small"
    """A recipe: architecture, size and preprocessing."""
    name: str | None = None
    """Name on the card; the recipe's if absent."""
    preset: str = "candels-h"
    """Survey that the galaxies are drawn for."""
    seed: int = Field(0, ge=0)
    """Seed of the weights and of the pairs."""
    pool: PoolConfig = PoolConfig()
    pairs: PairsConfig = PairsConfig()
    initial: str | None = None
    """Weights file whose tensors, where name and shape agree, are the start."""
    steps: int = Field(12000, ge=1)
    """Optimiser steps; training may end earlier, see ``patience``."""
    batch_size: int = Field(64, ge=1)
    """Pairs in a step."""
    learning_rate: Positive = 2e-3
    """Highest learning rate; cosine decay to 0 after the warm-up."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(1e-4, ge=0)
    clip_norm: Positive = 1.0
    """Longest gradient, as a norm over all weights."""
    ema_decay: float = Field(0.998, ge=0, lt=1)
    """Decay per step of the moving average of the weights, which is what is kept."""
    mask_weight: float = Field(0.5, ge=0)
    """Weight of the masks' cross-entropy beside the flux loss, for networks that have masks."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the networks in training; bfloat16 pays on GPUs and on CPUs with AVX512-BF16."""
    device: str = "cpu"
    """Torch device; with several replicas ``cpu`` or ``cuda``, which then means one GPU each."""
    replicas: int = Field(1, ge=1)
    """Copies of the network that train together under Ray Train, each on an equal share of every batch."""
    threads: int | None = Field(None, ge=1)
    """Torch threads of a replica; if absent torch's own choice, or 1 where there are several replicas."""
    workers: int = Field(1, ge=0)
    """Processes that simulate a replica's pairs; with 0 the training process does. Changes no result."""
    validation_pairs: int = Field(4096, ge=2)
    """Pairs of validation galaxies, for early stopping and for the error model."""
    test_pairs: int = Field(5000, ge=2)
    """Pairs of test galaxies, for the metrics on the card."""
    evaluate_every: int = Field(500, ge=1)
    """Steps between two validations; each also writes a checkpoint."""
    patience: int | None = Field(None, ge=1)
    """Validations without an improvement after which training ends; never if absent."""


def load_train_config(
    url: str,
    overrides: Mapping[str, Any] | None = None,
    options: storage.Options | None = None,
) -> TrainConfig:
    """Read a training config.

    Parameters
    ----------
    url : str
        Path or URL of a YAML file.
    overrides : mapping, optional
        Dotted keys and the values that replace the file's; None values are ignored.
    options : mapping, optional
        fsspec ``storage_options`` to read the file with.
    """
    return make_train_config(read_mapping(url, options), overrides, where=url)


def make_train_config(
    values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, where: str = "train"
) -> TrainConfig:
    """Build a training config from a mapping, as :func:`load_train_config` does from a file."""
    return checked(TrainConfig, values, overrides, where)
