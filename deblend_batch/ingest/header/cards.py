"""From an image's header to the WCS cards of a field."""

from __future__ import annotations

from astropy.io.fits import Header
from astropy.io.fits.card import Undefined
from astropy.io.fits.verify import VerifyError

from deblend_batch.errors import FieldError
from deblend_batch.field.wcs import cards as wcs_cards
from deblend_batch.field.wcs.cards import Card
from deblend_batch.field.wcs.sky_grid import SkyGrid


def celestial_cards(header: Header, shape_yx: tuple[int, int], where: str) -> dict[str, Card]:
    """Return the cards of an image's celestial WCS, distortion (SIP, TPV and the like) included.

    Parameters
    ----------
    header : astropy.io.fits.Header
        The image's header.
    shape_yx : tuple of int
        Rows and columns of the image.
    where : str
        The image, for messages.
    """
    try:
        cards = wcs_cards.celestial_cards(_values(header))
        SkyGrid(cards, shape_yx)
    except ValueError as error:
        raise FieldError(
            f"{where}: no celestial WCS in its header ({error}); solve its astrometry, or give the "
            "image (HDU) that has CTYPE, CRVAL, CRPIX and CD or CDELT cards"
        ) from error
    return cards


def remarks(header: Header) -> tuple[str, ...]:
    """Say what :func:`celestial_cards` decided between cards that contradict each other."""
    return wcs_cards.remarks(_values(header))


def _values(header: Header) -> dict[str, object]:
    """Values of the cards that a WCS may have, the last one where there are several of a name."""
    values: dict[str, object] = {}
    for card in header.cards:
        if wcs_cards.is_wcs_keyword(card.keyword):
            try:
                value = card.value
            except VerifyError as error:
                raise ValueError(f"{card.keyword} has no value that can be read") from error
            values[card.keyword] = None if isinstance(value, Undefined) else value
    return values
