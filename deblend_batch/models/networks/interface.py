"""What flows into a network and out of it: the two nouns that all architectures share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class NetworkInput(NamedTuple):
    """A batch of stamps after preprocessing; every tensor lives on one device.

    Parameters
    ----------
    image : Tensor of float32, shape (n, c, y, x)
        Compressed image, unit-free, and whatever position channels the card asks for.
    linear : Tensor of float32, shape (n, y, x)
        The same pixels, uncompressed, in units of ``scale``.
    scale : Tensor of float32, shape (n,)
        Flux scale of each stamp, of degree 1 in the pixels and positive, in units of ``unit``.
    unit : Tensor of float32, shape (n,)
        Power of two that the pixels were divided by; flux in the caller's units is ``unit`` times
        that here.
    split_logit : Tensor of float32, shape (n,)
        Logit of the central's share of the flux under the split by nearest position.
    octant : Tensor of int64, shape (n,)
        How the stamp was turned; see :mod:`deblend_batch.models.networks.geometry`.
    usable : Tensor of bool, shape (n,)
        False where the stamp or a position is not finite, or the stamp is empty.
    """

    image: Tensor
    linear: Tensor
    scale: Tensor
    unit: Tensor
    split_logit: Tensor
    octant: Tensor
    usable: Tensor


class NetworkOutput(NamedTuple):
    """What a network says of a batch.

    Parameters
    ----------
    flux : Tensor of float32, shape (n, 2)
        Flux of central and companion, in the pixels' units over ``unit``.
    mask_logits : Tensor of float32, shape (n, 3, y, x), or None
        Logits of [overlap, central, companion], for networks that have masks; in the turned frame.
    """

    flux: Tensor
    mask_logits: Tensor | None


class Estimate(NamedTuple):
    """A network's output in the caller's terms.

    Parameters
    ----------
    flux : Tensor of float32, shape (n, 2)
        Flux of central and companion, in the stamps' unit; NaN where a stamp is not usable.
    hints : Tensor of float32, shape (n, 2)
        What the output itself says of its errors. Extent: log of the total flux over the flux scale
        of a fixed window. Shift: logit of the central's share less that of the split by nearest
        position.
    masks : Tensor of float32, shape (n, 3, y, x), or None
        Probabilities of [overlap, central, companion], in the stamps' own frame.
    """

    flux: Tensor
    hints: Tensor
    masks: Tensor | None
