"""What is known of a survey's files, as one record of settings."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from deblend_batch.settings import Section
from deblend_batch.surveys.names import NamePattern
from deblend_batch.table_columns import Columns

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,40}")


def _check_pattern(text: str) -> str:
    NamePattern(text)
    return text


Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""A pattern of names, as :class:`~deblend_batch.surveys.names.NamePattern` reads it."""


class LayoutConfig(Section):
    """What tells a survey's files from others."""

    cards: dict[str, str] = Field(default_factory=dict)
    """Cards of the primary's or the image's header; the values may end in ``*``."""
    hdus: list[str] = Field(default_factory=list)
    """Names of HDUs that all must be there."""


class ImageConfig(Section):
    """Where the pixels are."""

    file: Pattern | None = None
    """How its file is called."""
    hdu: str | int | None = None
    """Its HDU; the first image if absent."""


class PlaneConfig(Section):
    """A plane that belongs to an image: in its file, or in one of its own beside it."""

    file: Pattern | None = None
    """How its file is called; the image's own if absent."""
    hdu: str | int | None = None
    """Its HDU."""
    optional: bool = False
    """Whether a field is read without it where it is not there."""
    bands: list[str] | None = None
    """Bands that have one, as the files' names call them; all if absent."""

    @property
    def is_placed(self) -> bool:
        """Whether it says where the plane is."""
        return self.file is not None or self.hdu is not None

    @model_validator(mode="after")
    def check_place(self) -> PlaneConfig:
        """Refuse a plane that is nowhere."""
        if not self.is_placed:
            raise ValueError("give 'file', 'hdu' or both")
        return self


class NoiseConfig(PlaneConfig):
    """The noise plane."""

    kind: Literal["rms", "weight", "variance"]
    """What it holds; a weight is an inverse variance."""


class MaskConfig(PlaneConfig):
    """The mask."""

    bits: dict[str, Annotated[int, Field(ge=0, le=63)]] = Field(default_factory=dict)
    """Names of its bits, 0 the lowest, where its header does not tell them; SAT, SATUR...: saturated."""
    bad: list[str] | None = None
    """Those that make a pixel bad; all that are no remark if absent."""

    @model_validator(mode="after")
    def check_place(self) -> MaskConfig:
        """Refuse a mask of which nothing is said; of some formats the file tells where it is."""
        if not self.is_placed and not self.bits:
            raise ValueError("give 'file', 'hdu' or 'bits'")
        return self

    @model_validator(mode="after")
    def check_bits(self) -> MaskConfig:
        """Refuse bad bits that are not named, and two names of one bit."""
        unknown = [name for name in self.bad or () if self.bits and name not in self.bits]
        if unknown:
            raise ValueError(f"'bad' names {unknown[0]!r}, which is none of 'bits'")
        if len(set(self.bits.values())) < len(self.bits):
            raise ValueError("'bits' gives two names to one bit")
        return self


class TableConfig(Section):
    """How the survey's catalogue is read."""

    columns: Columns
    """Names of its columns; ``{band}`` in them is the band."""
    band: str | None = None
    """The band that is meant where the config names none."""
    where: str | None = None
    """Condition of the rows that are sources, once each."""
    origin: Literal[0, 1, "parent"] | None = None
    """What the first pixel is called in pixel positions."""


class SurveyRecord(Section):
    """What is known of a survey's files."""

    doc: ClassVar[str] = "docs/surveys.md"
    name: str
    """What ``--survey`` calls it."""
    title: str
    """What it is, in a line."""
    source: list[str]
    """Documents that this record follows."""
    known_from: str
    """How well it is known: from real files, from documents, or from memory."""
    format: Literal["fits", "asdf"] = "fits"
    """Of the images."""
    layout: LayoutConfig = LayoutConfig()
    """What tells its files from others; the image's name does, too."""
    image: ImageConfig = ImageConfig()
    """Where the pixels are."""
    band: Literal["header", "name"] = "header"
    """Whether the band is read from the header, or from the part ``{band}`` of the file's name."""
    zero_point: float | None = Field(None, ge=-60, le=60)
    """AB magnitude of one image unit, where the header does not tell it."""
    noise: NoiseConfig | None = None
    """The noise plane; measured if absent."""
    mask: MaskConfig | None = None
    """The mask."""
    psf: PlaneConfig | None = None
    """What holds the PSF; the header or stars if absent."""
    detections: TableConfig | None = None
    """How its catalogue is read."""
    notes: str = ""
    """What is to be known beside it."""

    @model_validator(mode="after")
    def check_names(self) -> SurveyRecord:
        """Refuse patterns that ask for parts that the image's name does not have."""
        if not _NAME.fullmatch(self.name):
            raise ValueError("'name' must be of small letters, digits, '-', '_' and '.'")
        image = NamePattern(self.image.file) if self.image.file else None
        if self.band == "name" and (image is None or "band" not in image.parts):
            raise ValueError("'band: name' needs a part {band} in 'image.file'")
        for key in ("noise", "mask", "psf"):
            plane = getattr(self, key)
            if plane is None or plane.file is None:
                continue
            known = () if image is None else image.parts
            missing = [part for part in NamePattern(plane.file).parts if part not in known]
            if missing:
                raise ValueError(
                    f"'{key}.file' has a part {{{missing[0]}}} that 'image.file' does not have"
                )
        return self
