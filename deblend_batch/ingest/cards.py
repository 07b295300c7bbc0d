"""From an image's header to the WCS cards of a field, proven to give the same positions."""

from __future__ import annotations

import re

import numpy as np
from astropy.io.fits import Header
from astropy.wcs import WCS
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.field.wcs import Card, SkyGrid, celestial_wcs

_TOLERANCE_PX = 1e-3
_SCALE_ARCSEC = (1e-4, 600.0)
_WCS_KEYWORD = re.compile(
    r"^(WCSAXES|(CTYPE|CRPIX|CRVAL|CDELT|CUNIT|CROTA)[12]|(CD|PC)[12]_[12]|PV[12]_\d+|LONPOLE|LATPOLE"
    r"|RADESYS|RADECSYS|EQUINOX|EPOCH|MJD-OBS|DATE-OBS|(A|B|AP|BP)_(ORDER|DMAX|\d_\d))$"
)


def celestial_cards(header: Header, shape_yx: tuple[int, int], where: str) -> dict[str, Card]:
    """Return the cards of an image's celestial WCS, distortion (SIP, TPV and the like) included.

    Positions on a grid over the image are computed from the cards and from the header and must agree
    to 1e-3 px. Astropy's own rewriting of the WCS is tried first; where it loses a distortion, the
    header's cards are taken as they stand.

    Parameters
    ----------
    header : astropy.io.fits.Header
        The image's header.
    shape_yx : tuple of int
        Rows and columns of the image.
    where : str
        The image, for messages.

    Returns
    -------
    dict
        JSON-able header cards.

    Raises
    ------
    FieldError
        If the image has no celestial WCS, or one that header cards alone cannot carry.
    """
    try:
        wcs = celestial_wcs(header)
        truth = SkyGrid(wcs, shape_yx)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise FieldError(
            f"{where}: no celestial WCS in its header ({reason}); solve its astrometry, or give the "
            "image (HDU) that has CTYPE, CRVAL, CRPIX and CD or CDELT cards"
        ) from error
    scale = truth.pixel_scale_arcsec()
    if not _SCALE_ARCSEC[0] < scale < _SCALE_ARCSEC[1]:
        raise FieldError(
            f"{where}: its WCS has pixels of {scale:.3g} arcsec; mend CD or CDELT in the header"
        )
    yx = _grid(shape_yx)
    for cards in (_rewritten(wcs), _verbatim(header)):
        if _largest_error_px(cards, truth, yx, shape_yx) < _TOLERANCE_PX:
            return cards
    raise FieldError(
        f"{where}: its WCS has a distortion that header cards cannot carry (lookup tables); resample "
        "the image to a plain projection first (SWarp, drizzle)"
    )


def _grid(shape_yx: tuple[int, int]) -> NDArray[np.float64]:
    rows, columns = (np.linspace(-0.5, edge - 0.5, 9) for edge in shape_yx)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _largest_error_px(
    cards: dict[str, Card], truth: SkyGrid, yx: NDArray[np.float64], shape_yx: tuple[int, int]
) -> float:
    """Largest distance, px, of positions by ``cards`` from positions by ``truth``; inf if unusable."""
    radec = truth.pixel_to_world(yx)
    shown = np.isfinite(radec).all(axis=1)
    if not shown.any():
        return float("inf")
    try:
        back = SkyGrid.from_cards(cards, shape_yx, "").world_to_pixel(*radec[shown].T)
    except FieldError:
        return float("inf")
    error = np.abs(back - yx[shown]).max()
    return float(error) if np.isfinite(error) else float("inf")


def _rewritten(wcs: WCS) -> dict[str, Card]:
    return _plain(wcs.to_header(relax=True))


def _verbatim(header: Header) -> dict[str, Card]:
    return _plain(Header([card for card in header.cards if _WCS_KEYWORD.match(card.keyword)]))


def _plain(header: Header) -> dict[str, Card]:
    """JSON-able cards: no comments, no undefined values."""
    kept: dict[str, Card] = {}
    for card in header.cards:
        if card.keyword and isinstance(card.value, str | int | float | bool):
            kept[card.keyword] = card.value
    return kept
