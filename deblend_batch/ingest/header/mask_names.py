"""Which bits a file's mask has, by its header or by its survey, and which of them make a pixel bad."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from astropy.io.fits import Header

from deblend_batch.errors import ConfigError
from deblend_batch.field.mask_bits import MaskBits, marks_sources
from deblend_batch.ingest.header.headers import Headers, number, text
from deblend_batch.storage import Options
from deblend_batch.surveys.record import MaskConfig
from deblend_batch.surveys.shipped import is_record_file, load_survey, shipped_surveys

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
_VALUED = re.compile(r"(?P<key>MSKN|MSKNAM)(?P<number>\d{2,4})")
_VALUES = {"MSKN": "MSKM", "MSKNAM": "MSKVAL"}
_NUMBERED = re.compile(r"BIT(?P<number>\d{2})")
_UNUSED = re.compile(r"RESERVED.*|UNUSED.*|SPARE.*", re.IGNORECASE)
_MAX_NAME = 64


@dataclass(frozen=True)
class BitChoice:
    """What is said of a mask's bits, beside its header.

    Parameters
    ----------
    words : tuple of str
        Names or numbers of the bits that make a pixel bad; their own sense counts if empty.
    names : mapping of str to int
        Names of all bits, which then count for more than the header's; those of the header if empty.
    """

    words: tuple[str, ...] = ()
    names: Mapping[str, int] | None = None

    @classmethod
    def of_words(cls, given: Sequence[str], options: Options | None = None) -> BitChoice:
        """Read ``--mask-bits``: names and numbers, or a survey's name, whose record then counts."""
        if len(given) == 1 and (given[0] in shipped_surveys() or is_record_file(given[0])):
            mask = load_survey(given[0], options).mask
            if mask is None or not mask.bits:
                raise ConfigError(
                    f"--mask-bits: the record of {given[0]} has no table of bits (the mask's header names "
                    "them, or there is no mask); give their names or numbers"
                )
            return cls.of_record(mask)
        return cls(tuple(word for each in given for word in each.replace(",", " ").split()))

    @classmethod
    def of_record(cls, mask: MaskConfig | None) -> BitChoice:
        """Take what a survey's record says."""
        if mask is None:
            return cls()
        return cls(tuple(mask.bad or ()), mask.bits or None)


NO_CHOICE = BitChoice()
"""Where nothing is said of bits."""


def named_bits(headers: Headers, url: str) -> dict[str, int]:
    """Return the bits that a mask's header names, or that its survey's files are known to have.

    ``MP_NAME`` cards hold numbers of bits (Rubin's afw, HSC); ``MSKNnnnn`` and ``MSKMnnnn`` names and
    masks (Rubin's images), as do ``MSKNAMnn`` and ``MSKVALnn`` (Pan-STARRS); ``BITnn`` names in their
    comments (ZTF).

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
        name, bit = _named_by(own, key)
        if name and bit is not None:
            found[name] = bit
    if not found and "maskbits" in url.rsplit("/", 1)[-1]:
        return survey_bits("legacy-dr10")
    return found


def _named_by(header: Header, key: str) -> tuple[str, int | None]:
    """Return the name and the number of the bit that a card tells of; nothing where it tells of none."""
    if match := _AFW.fullmatch(key):
        return match["name"], _bit(number([header], key))
    if match := _VALUED.fullmatch(key):
        value = number([header], f"{_VALUES[match['key']]}{match['number']}")
        return text([header], key), _only_bit(value)
    match = _NUMBERED.fullmatch(key)
    if match is None or number([header], key) != int(match["number"]):
        return "", None
    return _as_name(header.comments[key]), _bit(float(match["number"]))


def _only_bit(value: float | None) -> int | None:
    """Return the bit that a number consists of."""
    if not value or value < 0 or value != int(value) or int(value).bit_count() != 1:
        return None
    return _bit(float(int(value).bit_length() - 1))


def _as_name(comment: str) -> str:
    """Make a name of what a comment says; nothing of what is not in use."""
    words = re.findall(r"[A-Za-z0-9]+", comment.partition("(")[0])
    name = "_".join(words).upper()[:_MAX_NAME]
    return "" if _UNUSED.fullmatch(name) else name


def survey_bits(name: str) -> dict[str, int]:
    """Return the bits that a survey's record names."""
    mask = load_survey(name).mask
    return {} if mask is None else dict(mask.bits)


def choose_bits(
    named: Mapping[str, int], choice: BitChoice, band: str, where: str
) -> MaskBits | None:
    """Say which bits make a pixel bad.

    Parameters
    ----------
    named : mapping
        Bits that have names.
    choice : BitChoice
        What the user or a survey's record says; else all are bad that are no remark.
    band : str
        Name of the band: what is said of others is left out.
    where : str
        The mask, for messages.

    Returns
    -------
    MaskBits or None
        None where nothing is known: any bit is bad.
    """
    named = choice.names or named
    bits = {name: bit for name, bit in named.items() if _is_of(name, band)}
    bad = [_chosen(each, bits, where) for each in choice.words if _is_of(each, band)]
    if not bits:
        return None
    return MaskBits(bits, tuple(bad if choice.words else _usually_bad(bits)))


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
