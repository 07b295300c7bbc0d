"""Which bits a file's mask has, by its header or by its survey, and which of them make a pixel bad."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from deblend_batch.errors import ConfigError
from deblend_batch.field.mask_bits import MaskBits, marks_sources
from deblend_batch.ingest.headers import Headers, number, text

SURVEY_BITS: dict[str, tuple[str, ...]] = {
    # https://www.legacysurvey.org/dr10/bitmasks/#maskbits
    "legacy-dr10": (
        *("NPRIMARY", "BRIGHT", "SATUR_G", "SATUR_R", "SATUR_Z", "ALLMASK_G", "ALLMASK_R"),
        *("ALLMASK_Z", "WISEM1", "WISEM2", "BAILOUT", "MEDIUM", "GALAXY", "CLUSTER", "SATUR_I"),
        *("ALLMASK_I", "SUB_BLOB"),
    ),
    # maskbits of despyfits, Morganson et al. 2018 (doi:10.1088/1538-3873/aab4ef)
    "des-y6": (
        *("BPM", "SATURATE", "INTERP", "BADAMP", "CRAY", "STAR", "TRAIL", "EDGEBLEED", "SSXTALK"),
        *("EDGE", "STREAK", "SUSPECT", "FIXED", "NEAREDGE", "TAPEBUMP"),
    ),
    # https://roman-pipeline.readthedocs.io, data quality flags; roman_datamodels.dqflags.pixel
    "roman": (
        *("DO_NOT_USE", "SATURATED", "JUMP_DET", "DROPOUT", "GW_AFFECTED_DATA", "PERSISTENCE"),
        *(
            "AD_FLOOR",
            "OUTLIER",
            "UNRELIABLE_ERROR",
            "NON_SCIENCE",
            "DEAD",
            "HOT",
            "WARM",
            "LOW_QE",
        ),
        *("RESERVED_14", "TELEGRAPH", "NONLINEAR", "BAD_REF_PIXEL", "NO_FLAT_FIELD"),
        *("NO_GAIN_VALUE", "NO_LIN_CORR", "NO_SAT_CHECK", "UNRELIABLE_BIAS", "UNRELIABLE_DARK"),
        *("UNRELIABLE_SLOPE", "UNRELIABLE_FLAT", "RESERVED_5", "RESERVED_6", "UNRELIABLE_RESET"),
        *("RESERVED_7", "OTHER_BAD_PIXEL", "REFERENCE_PIXEL"),
    ),
}
"""Names of the bits from 0 on, of masks whose headers do not tell them."""

# The pixel holds what the sky gave, or the mean of what good inputs gave.
_REMARKS = re.compile(
    r"INTE?RP.*|INTRP|CLIPPED|REJECTED|INEXACT_PSF|SUSPECT|DETECTION_EDGE|SENSOR_EDGE|NEAREDGE|FIXED"
    r"|CROSSTALK|NOT_DEBLENDED|NPRIMARY|BRIGHT(_OBJECT)?|MEDIUM|GALAXY|CLUSTER|SUB_BLOB|BAILOUT|STAR"
    r"|WISEM\d|RESOLVED|TAPEBUMP|COSMIC_RAY|PARTLY_VIGNETTED",
    re.IGNORECASE,
)
_SUMMED = ("DO_NOT_USE", "NON_SCIENCE")
"""Roman's and Webb's pipelines set the first wherever one of the others spoils a pixel."""
_OF_BAND = re.compile(r"(SATUR|ALLMASK)_(?P<band>[A-Z]\d?)")
_AFW = re.compile(r"MP_(?P<name>\w+)")
_NAMED = re.compile(r"MSKN(?P<number>\d{4})")


def named_bits(headers: Headers, url: str) -> dict[str, int]:
    """Return the bits that a mask's header names, or that its survey's files are known to have.

    ``MP_NAME`` cards hold numbers of bits (Rubin's afw, HSC), ``MSKNnnnn`` and ``MSKMnnnn`` names and
    masks (Rubin's images).

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        The mask's, then the primary.
    url : str
        The file: Legacy Surveys' masks say ``maskbits`` in their names, and nothing inside.
    """
    own = headers[0]
    found: dict[str, int] = {}
    for key in own:
        if (match := _AFW.fullmatch(key)) and (bit := _bit(number([own], key))) is not None:
            found[match["name"]] = bit
        elif match := _NAMED.fullmatch(key):
            mask = number([own], f"MSKM{match['number']}")
            bit = None if not mask or mask <= 0 else _bit(float(int(mask).bit_length() - 1))
            name = text([own], key)
            if name and bit is not None and int(mask or 0) == 1 << bit:
                found[name] = bit
    if not found and "maskbits" in url.rsplit("/", 1)[-1]:
        return survey_bits("legacy-dr10")
    return found


def survey_bits(survey: str) -> dict[str, int]:
    """Return the bits of a survey's masks, by name."""
    return {name: bit for bit, name in enumerate(SURVEY_BITS[survey])}


def choose_bits(
    named: Mapping[str, int], chosen: Sequence[str], band: str, where: str
) -> MaskBits | None:
    """Say which bits make a pixel bad.

    Parameters
    ----------
    named : mapping
        Bits that have names.
    chosen : sequence of str
        What the user says: names or numbers of bits that are bad, or a survey's name, whose table then
        counts; else all are that are no remark.
    band : str
        Name of the band: what is said of others is left out.
    where : str
        The mask, for messages.

    Returns
    -------
    MaskBits or None
        None where nothing is known: any bit is bad.
    """
    if len(chosen) == 1 and chosen[0] in SURVEY_BITS:
        named, chosen = survey_bits(chosen[0]), ()
    bits = {name: bit for name, bit in named.items() if _is_of(name, band)}
    bad = [_chosen(each, bits, where) for each in chosen]
    if not bits:
        return None
    return MaskBits(bits, tuple(bad or _usually_bad(bits)))


def _chosen(text: str, bits: dict[str, int], where: str) -> str:
    """Return the name of a bit that the user chose; one that has none gets one."""
    if text.isdecimal():
        number = _bit(float(text))
        if number is None:
            raise ConfigError(f"--mask-bits: {text} is no bit; they are 0 (the lowest) to 63")
        name = next((name for name, bit in bits.items() if bit == number), f"BIT{number}")
        bits.setdefault(name, number)
    else:
        name = next((each for each in bits if each.upper() == text.upper()), "")
    if not name:
        near = difflib.get_close_matches(text.upper(), bits, n=1)
        known = f"it has {', '.join(bits)}" if bits else "its header names none; give their numbers"
        raise ConfigError(
            f"--mask-bits: {where} has no bit {text!r}; {f'did you mean {near[0]}? ' if near else ''}{known}"
        )
    if marks_sources(name):
        raise ConfigError(
            f"--mask-bits: {name} marks the sources themselves; leave it out, or nothing is left to measure"
        )
    return name


def _usually_bad(bits: Mapping[str, int]) -> list[str]:
    """Return the bits that say that a pixel is damaged or empty; where one sums them up, that one."""
    summed = [name for name in bits if name in _SUMMED]
    return summed if "DO_NOT_USE" in summed else [name for name in bits if _is_bad(name)]


def _is_bad(name: str) -> bool:
    return not marks_sources(name) and not _REMARKS.fullmatch(name)


def _is_of(name: str, band: str) -> bool:
    match = _OF_BAND.fullmatch(name)
    return match is None or match["band"] == band.upper()


def _bit(value: float | None) -> int | None:
    return int(value) if value is not None and value == int(value) and 0 <= value < 64 else None
