"""From a gWCS to the cards of a FITS WCS, where they are proven to say the same.

A gWCS is a pipeline of models that a file's tags name. It is built from those that are known here, from a
document that holds it alone, by the libraries ``asdf`` and ``gwcs``.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import yaml
from astropy.io import fits
from astropy.modeling.rotations import RotateNative2Celestial
from numpy.typing import NDArray

from deblend_batch.errors import ConfigError, DeblendError, FieldError
from deblend_batch.field.wcs.cards import celestial_cards, is_wcs_keyword
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.files.asdf import tree
from deblend_batch.ingest.files.asdf.arrays import Array
from deblend_batch.ingest.files.asdf.blocks import Blocks
from deblend_batch.text import cause, shown

MOST_RESIDUAL_PX = 0.01
"""Between the gWCS and the cards of a field, at any of the points that are looked at."""

_PACKAGES = ("asdf", "asdf_astropy", "gwcs")
_PROOF_EDGE = 65
_MOST_VALUES = 1 << 16
_MOST_UNIT = 64
_LONG_INTEGER = re.compile(r"(?<![.\d])\d{4}")
_KNOWN = re.compile(
    r"tag:yaml\.org,2002:\w+"
    r"|tag:stsci\.(edu|org):gwcs/[a-z0-9_]+-[\d.]+"
    r"|tag:stsci\.(edu|org):asdf/(transform/[a-z0-9_]+|core/ndarray|unit/(unit|quantity)|time/time)-[\d.]+"
    r"|tag:astropy\.org:astropy/(coordinates/frames/[a-z0-9_]+|units/[a-z0-9_]+)-[\d.]+"
)
_UNIT = re.compile(r".*unit/unit-[\d.]+|.*units/[a-z0-9_]+-[\d.]+")
_OLD_ROMAN = re.compile(r"asdf://stsci\.edu/datamodels/roman/tags/wcs-[\d.]+")
_HEAD = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n--- "


def check_installed(url: str) -> None:
    """Refuse, in one line, what needs the extra ``roman`` where it is not installed."""
    if any(find_spec(name) is None for name in _PACKAGES):
        raise ConfigError(
            f"{url}: is ASDF, which takes packages that are not installed; "
            "run: pip install 'deblend-batch[roman]'"
        )


def fits_cards(
    node: yaml.Node, blocks: Blocks, shape_yx: tuple[int, int], where: str
) -> fits.Header:
    """Return the cards of a FITS WCS that says what a gWCS does.

    Parameters
    ----------
    node : yaml.Node
        The gWCS in the file's tree.
    blocks : Blocks
        Where its arrays lie.
    shape_yx : tuple of int
        Rows and columns of the image.
    where : str
        The image, for messages.

    Returns
    -------
    astropy.io.fits.Header
        Gnomonic, with SIP polynomials where there is distortion; at no point of a fine grid over the image
        further than :data:`MOST_RESIDUAL_PX` from the gWCS.
    """
    known = _checked(node, blocks, where)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            model = _built(known)
            sky = _sky_of(model)
            found = [
                (_residual_px(cards, sky, shape_yx), cards)
                for cards in _candidates(model, shape_yx)
            ]
    except DeblendError:
        raise
    except Exception as error:
        raise FieldError(
            f"{where}: its gWCS cannot be understood ({cause(error)}); resample the image to a plain "
            "projection, or write it as FITS"
        ) from error
    residual, cards = min(found, key=lambda each: each[0], default=(np.inf, fits.Header()))
    if not residual < MOST_RESIDUAL_PX:
        said = f"{residual:.3g} px off" if np.isfinite(residual) else "not to be had"
        raise FieldError(
            f"{where}: its gWCS as a FITS WCS is {said}, and may be {MOST_RESIDUAL_PX:g}; resample the "
            "image to a plain projection first (romancal's resample, drizzle)"
        )
    return cards


def _checked(node: yaml.Node, blocks: Blocks, where: str) -> yaml.Node:
    """Return a gWCS of known tags alone, whose arrays stand in it."""
    for each in tree.walk(node):
        if _OLD_ROMAN.fullmatch(each.tag):
            continue
        if not _KNOWN.fullmatch(each.tag):
            raise FieldError(
                f"{where}: its gWCS has the tag {shown(each.tag)}, which is not read; write the image as FITS"
            )
        is_text = isinstance(each, yaml.ScalarNode)
        if _UNIT.fullmatch(each.tag) and is_text and not _is_unit(each.value):
            raise FieldError(f"{where}: its gWCS has the unit {shown(each.value)}; mend it")
    left = _MOST_VALUES
    for each in list(tree.walk(node)):
        if tree.is_array(each) and tree.at(each, "source") is not None:
            array = Array.of("of the gWCS", each, "", f"{where}: an array of its gWCS")
            left -= int(np.prod(array.shape))
            if left < 0:
                raise FieldError(
                    f"{where}: its gWCS has tables of more than {_MOST_VALUES:,} values"
                )
            _write_out(each, array.open(blocks).whole().reshape(array.shape))
    return node


def _is_unit(text: str) -> bool:
    """Tell whether a text may be given to astropy: a long power would keep it busy for hours."""
    return len(text) <= _MOST_UNIT and not _LONG_INTEGER.search(text)


def _write_out(node: Any, values: NDArray[Any]) -> None:
    """Put the values of an array into its node, in the place of where they lie."""
    kept = {"datatype", "shape"}
    node.value = [pair for pair in node.value if pair[0].value in kept]
    node.value.append((_scalar("data"), _nested(values.tolist())))


def _nested(values: Any) -> yaml.Node:
    if isinstance(values, list):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [_nested(each) for each in values])
    kind = "float" if isinstance(values, float) else "int"
    special = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
    return yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", special.get(repr(values), repr(values)))


def _scalar(text: str) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text)


def _built(node: yaml.Node) -> Any:
    """Make the gWCS, from a document that holds nothing else."""
    import asdf

    top = yaml.MappingNode("tag:stsci.edu:asdf/core/asdf-1.1.0", [(_scalar("wcs"), node)])
    content = _HEAD + yaml.serialize(top, encoding="utf-8") + b"...\n"
    with asdf.open(io.BytesIO(content), lazy_load=False) as file:
        model = file["wcs"]
    model.bounding_box = None  # some end half a pixel early, and all pixels are looked at
    return model


Sky = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def _sky_of(model: Any) -> Sky:
    """Return the gWCS as a function of pixels (x, y), in ICRS degrees."""

    def sky(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        found = model.pixel_to_world(x, y).icrs
        return np.stack([found.ra.deg, found.dec.deg], axis=1)

    return sky


def _candidates(model: Any, shape_yx: tuple[int, int]) -> Iterator[fits.Header]:
    """Yield FITS descriptions: about the projection's own point, where it is plain; about the middle."""
    height, width = shape_yx
    box = ((-0.5, width - 0.5), (-0.5, height - 0.5))
    for point, degree in [*((each, 1) for each in _own_points(model)), (None, None)]:
        try:
            header = model.to_fits_sip(
                bounding_box=box,
                crpix=point,
                degree=degree,
                max_pix_error=MOST_RESIDUAL_PX / 2,
                max_inv_pix_error=None,
            )
        except (ValueError, RuntimeError, ArithmeticError):  # it does not reach the residual
            continue
        yield fits.Header([card for card in header.cards if is_wcs_keyword(card.keyword)])


def _own_points(model: Any) -> Iterator[list[float]]:
    """Yield the point about which a gWCS without distortion projects, pixels from 1; it may be far away."""
    try:
        inverse = model.forward_transform.inverse
    except NotImplementedError:  # there is distortion, and no cards without it will do
        return
    for part in model.forward_transform.traverse_postorder():
        if isinstance(part, RotateNative2Celestial):
            x, y = inverse(float(part.lon.value), float(part.lat.value))
            if np.isfinite([x, y]).all():
                yield [float(x) + 1, float(y) + 1]


def _residual_px(cards: fits.Header, sky: Sky, shape_yx: tuple[int, int]) -> float:
    """How far the cards are from the gWCS: at the nodes of a grid to the image's very edges."""
    y, x = (
        axis.ravel()
        for axis in np.meshgrid(
            *(np.linspace(-0.5, edge - 0.5, _PROOF_EDGE) for edge in shape_yx), indexing="ij"
        )
    )
    try:
        grid = SkyGrid(celestial_cards(dict(cards)), shape_yx)
    except ValueError:
        return np.inf
    back = grid.world_to_pixel(*sky(x, y).T)
    offset = np.abs(back - np.stack([y, x], axis=1))
    return float(offset.max()) if np.isfinite(offset).all() else np.inf
