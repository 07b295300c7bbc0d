"""The flag registry: each quality bit is defined once, here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Flag:
    """One bit of the ``flags`` column.

    Parameters
    ----------
    bit : int
        Position, 0 to 30.
    name : str
        Upper-case name.
    description : str
        What a set bit means for the row.
    advice : str
        What to do about it.
    """

    bit: int
    name: str
    description: str
    advice: str

    @property
    def value(self) -> int:
        """The bit as a number, to be or-ed into ``flags``."""
        return 1 << self.bit

    def where(self, condition: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return the bit where ``condition`` holds, else 0."""
        return np.where(condition, np.int32(self.value), np.int32(0))


EDGE: Final = Flag(
    0,
    "EDGE",
    "the stamp reaches over the edge of the image",
    "keep it: what is there was measured; trust the error",
)
BAD_PIXELS: Final = Flag(
    1,
    "BAD_PIXELS",
    "bad pixels in the stamp: networks take them for background, fits leave them out",
    "keep fits; of networks look at BAD_CENTRE",
)
BAD_CENTRE: Final = Flag(
    2,
    "BAD_CENTRE",
    "a bad pixel within two pixels of this member's position",
    "leave out for photometry by networks; fits are sound where their errors are",
)
CROWDED: Final = Flag(
    3,
    "CROWDED",
    "networks: more than two sources in the stamp; fits: a tenth or more of the light within its own profile "
    "is others'",
    "fits: keep it, and use flux_corr beside the error; networks: compare with a fit",
)
NOT_POSITIVE: Final = Flag(
    4,
    "NOT_POSITIVE",
    "the flux is not positive in at least one band",
    "use the flux with its error, not the magnitude; it may be no source at all",
)
OUT_OF_DOMAIN: Final = Flag(
    5,
    "OUT_OF_DOMAIN",
    "networks: PSF, separation or signal outside the training; fits: a PSF too narrow for the pixels or too "
    "wide for the stamp",
    "measure it with the other kind of model",
)
COMPANION_OUTSIDE: Final = Flag(
    6,
    "COMPANION_OUTSIDE",
    "the companion lies outside the stamp; its flux is NaN",
    "take the companion's own row; or choose a smaller pairs.max_separation",
)
NO_DATA: Final = Flag(
    7,
    "NO_DATA",
    "no usable pixel in at least one band; its flux is NaN there",
    "use the other bands",
)
OUTSIDE_IMAGE: Final = Flag(
    8,
    "OUTSIDE_IMAGE",
    "this member's position lies outside the image",
    "take its row from another field",
)
ROLE_BY_ID: Final = Flag(
    9,
    "ROLE_BY_ID",
    "a magnitude is unknown, so the smaller id is the central",
    "nothing, unless you use the roles",
)
COINCIDENT: Final = Flag(
    10,
    "COINCIDENT",
    "the members are less than one pixel apart",
    "add their fluxes: they cannot be told apart",
)
GROUP_DIVIDED: Final = Flag(
    11,
    "GROUP_DIVIDED",
    "more linked sources than one fit takes: this one was measured with its nearest neighbours alone",
    "keep it; raise blends.max_members where it matters",
)
LARGER_THAN_STAMP: Final = Flag(
    12,
    "LARGER_THAN_STAMP",
    "the members' light reaches beyond the largest stamp",
    "do not use for total fluxes of large galaxies; rebin the image for these",
)
SATURATED: Final = Flag(
    13,
    "SATURATED",
    "a saturated pixel within two pixels of this member's position",
    "fits leave the pixels out: keep it with its error; networks: leave out",
)
NOT_CONVERGED: Final = Flag(
    14,
    "NOT_CONVERGED",
    "the search for the best fit did not end",
    "leave out where per cents matter",
)
POOR_FIT: Final = Flag(
    15,
    "POOR_FIT",
    "the model leaves more than noise: chi2 per pixel is high in at least one band",
    "look at the image: spiral arms, a merger, an artefact; the flux is good to several per cent",
)
SKY_OFFSET: Final = Flag(
    16,
    "SKY_OFFSET",
    "a background was left in the image, in at least one band, and fitted",
    "keep it: the flux is without that background; mend the image's background",
)
UNRECOGNISED: Final = Flag(
    17,
    "UNRECOGNISED",
    "the residual holds a significant source that was not detected",
    "detect more deeply, and measure again",
)
PSF_UNCERTAIN: Final = Flag(
    18,
    "PSF_UNCERTAIN",
    "the PSF at this place is not known, or not described well, in at least one band",
    "give the field kernels of its PSF; compact sources may be off by several per cent",
)
NEAR_BRIGHT_STAR: Final = Flag(
    19,
    "NEAR_BRIGHT_STAR",
    "the mask says that a bright star's halo is within two pixels of this member's position",
    "look at the image: it may be a part of the halo or of a spike; its flux is that above the halo",
)
LEAST_SNR, LEAST_SURE = 1.5, 1.0
"""Of a flux over its noise, and over its whole error: with less it is consistent with zero."""
INSIGNIFICANT: Final = Flag(
    20,
    "INSIGNIFICANT",
    f"its flux is consistent with zero in every band: less than {LEAST_SNR:g} times its noise, or than its "
    "whole error",
    "there may be no source: look at the image, or let detect refine a table of its own",
)

REGISTRY: Final = (
    EDGE,
    BAD_PIXELS,
    BAD_CENTRE,
    CROWDED,
    NOT_POSITIVE,
    OUT_OF_DOMAIN,
    COMPANION_OUTSIDE,
    NO_DATA,
    OUTSIDE_IMAGE,
    ROLE_BY_ID,
    COINCIDENT,
    GROUP_DIVIDED,
    LARGER_THAN_STAMP,
    SATURATED,
    NOT_CONVERGED,
    POOR_FIT,
    SKY_OFFSET,
    UNRECOGNISED,
    PSF_UNCERTAIN,
    NEAR_BRIGHT_STAR,
    INSIGNIFICANT,
)


def decode(flags: int) -> list[str]:
    """Name the bits that are set in ``flags``.

    Examples
    --------
    >>> decode(9)
    ['EDGE', 'CROWDED']
    """
    return [flag.name for flag in REGISTRY if flags & flag.value]


def count(flags: NDArray[np.integer[Any]]) -> dict[str, int]:
    """Count the rows that have each bit set, for the bits that occur.

    Parameters
    ----------
    flags : ndarray of int, shape (n,)
        The ``flags`` column.
    """
    totals = {flag.name: int(np.count_nonzero(flags & flag.value)) for flag in REGISTRY}
    return {name: total for name, total in totals.items() if total}


def add_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up several results of :func:`count`, in the registry's order."""
    collected = list(counts)
    totals = {flag.name: sum(each.get(flag.name, 0) for each in collected) for flag in REGISTRY}
    return {name: total for name, total in totals.items() if total}
