"""A model's card: everything that must travel with its weights, as JSON in the weights file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from deblend_batch.errors import ModelError

METADATA_KEY = "deblend_batch_model"
PROFILE_FIT = "profile-fit"
"""Architecture of the one model that is no network, and takes blends of any number of members."""
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class Domain:
    """What the training pairs covered, as (low, high); beyond it a result is an extrapolation.

    Parameters
    ----------
    psf_fwhm_px : (float, float)
        FWHM of the PSF, px.
    separation_px : (float, float)
        Separation of the members, px.
    snr : (float, float)
        Flux of the fainter member over the background rms of one pixel.
    """

    psf_fwhm_px: tuple[float, float]
    separation_px: tuple[float, float]
    snr: tuple[float, float]


@dataclass(frozen=True, config=STRICT)
class ModelCard:
    """What a model is, what it was trained for and how well it does.

    Parameters
    ----------
    name : str
        Name under which the model is asked for.
    architecture : str
        ``blend2flux``, ``unet`` or ``blend2mask2flux``, networks that take pairs; or ``profile-fit``.
    stamp_size : int
        Edge of the stamps it takes, px; of a fit, that of the largest.
    has_masks : bool
        Whether it predicts masks.
    network, preprocess : mapping
        Fields of the architecture's config and of
        :class:`~deblend_batch.models.networks.preprocess.PreprocessConfig`.
    domain : Domain or None
        Ranges covered in training; None for a fit, which has had none.
    trained_on : str
        One line on the training set.
    test_metrics : mapping of str to float
        Metrics on pairs of galaxies that training never saw.
    uncertainty : mapping or None
        Fields of :class:`~deblend_batch.models.uncertainty.ErrorModel`.
    training : mapping
        Config, steps and library versions that made the weights.
    activation_bytes : int
        Outputs of all layers of the network for one stamp, counted when the weights are written; of a fit,
        what the fit of one blend takes.
    schema : int
        Version of this layout.
    parameters : int
        Number of weights; counted, not stored.
    sha256 : str
        Of the weights file; computed, not stored.
    default : bool
        Whether it is used where none is named; not stored.
    """

    name: str
    architecture: str
    stamp_size: Annotated[int, Field(ge=8, le=1024)]
    has_masks: bool
    network: dict[str, Any]
    preprocess: dict[str, Any]
    domain: Domain | None
    trained_on: str
    test_metrics: dict[str, float] = Field(default_factory=dict)
    uncertainty: dict[str, Any] | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    activation_bytes: Annotated[int, Field(ge=0)] = 0
    schema: Literal[1] = 1
    parameters: int = 0
    sha256: str = ""
    default: bool = False

    @property
    def takes_pairs(self) -> bool:
        """Whether it takes exactly two members, one band at a time; else any number, in all bands."""
        return self.architecture != PROFILE_FIT

    def to_metadata(self) -> dict[str, str]:
        """Return the card as safetensors metadata; floats survive the round trip exactly.

        Returns
        -------
        dict of str to str
            One key, whose value is JSON.
        """
        values = dataclasses.asdict(self)
        stored = {name: value for name, value in values.items() if name not in _COMPUTED}
        return {METADATA_KEY: json.dumps(stored, sort_keys=True, allow_nan=False)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> ModelCard:
        """Read a card back.

        Parameters
        ----------
        metadata : mapping of str to str
            The safetensors metadata.
        where : str
            URL of the file, for messages.

        Returns
        -------
        ModelCard
            The card, without what is computed from the file.

        Raises
        ------
        ModelError
            If there is no card, or one of another schema, or a key is missing, unknown or of the
            wrong kind.
        """
        if METADATA_KEY not in metadata:
            raise ModelError(
                f"{where}: safetensors without a model card (metadata key {METADATA_KEY!r}); "
                "use weights that 'deblend-batch train' wrote"
            )
        try:
            return TypeAdapter(cls).validate_json(metadata[METADATA_KEY])
        except ValidationError as error:
            raise ModelError(f"{where}: model card: {describe(error)}") from error

    def to_json(self) -> dict[str, Any]:
        """Return everything on the card as JSON-able values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values


_COMPUTED = frozenset({"parameters", "sha256", "default"})


def describe(error: ValidationError) -> str:
    """Say in one line what is wrong with a card or a network config.

    Parameters
    ----------
    error : pydantic.ValidationError
        What pydantic found.

    Returns
    -------
    str
        Key, reason and remedy of the first error.
    """
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the whole"
    return (
        f"{key}: {first['msg']} (got {str(first['input'])[:60]!r}); "
        "use weights that this version of deblend-batch wrote"
    )
