"""The sources of a field between two rounds of fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detect.bits import MERGED
from deblend_batch.detections.table import Detections
from deblend_batch.field.healpix import healpix_29
from deblend_batch.field.layout import Field
from deblend_batch.field.photometry import magnitude


@dataclass(frozen=True)
class Sources:
    """Sources as columns; row ``i`` of each array is source ``i``.

    Parameters
    ----------
    id : ndarray of int64, shape (n,)
        Of the place where it was first seen: it stays when the source moves.
    yx : ndarray of float64, shape (n, 2)
        Position, 0-based pixel centres.
    yx_err : ndarray of float64, shape (n, 2)
        Its one-sigma errors, px.
    flux, flux_err : ndarray of float64, shape (n,)
        In the band of the detection, nJy.
    radius_arcsec : ndarray of float64, shape (n,)
        Half-light radius; NaN where unknown.
    flags : ndarray of int32, shape (n,)
        Those of the detection; of an added one that it was parted from another.
    is_added : ndarray of bool, shape (n,)
        Whether a fit's residual showed it, not the detection.
    round : ndarray of int16, shape (n,)
        Of the fit that these values are of; 0 for those of the detection.
    """

    id: NDArray[np.int64]
    yx: NDArray[np.float64]
    yx_err: NDArray[np.float64]
    flux: NDArray[np.float64]
    flux_err: NDArray[np.float64]
    radius_arcsec: NDArray[np.float64]
    flags: NDArray[np.int32]
    is_added: NDArray[np.bool_]
    round: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Sources:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def detected(cls, found: Mapping[str, NDArray[Any]]) -> Sources:
        """Return what a detection found, from the columns of its table."""
        n = len(found["id"])
        return cls(
            found["id"],
            np.stack([found["y"], found["x"]], axis=1),
            np.stack([found["y_err"], found["x_err"]], axis=1).astype(np.float64),
            found["flux"].astype(np.float64),
            found["flux_err"].astype(np.float64),
            found["radius"].astype(np.float64),
            found["flags"],
            np.zeros(n, bool),
            np.zeros(n, np.int16),
        )

    @classmethod
    def joined(cls, parts: list[Sources]) -> Sources:
        """Put sources end to end, and order them by id."""
        columns = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)
        }
        return cls(**columns)[np.argsort(columns["id"], kind="stable")]

    @classmethod
    def added(
        cls, yx: NDArray[np.float64], flux: NDArray[np.float64], field: Field, known: Sources
    ) -> Sources:
        """Return new sources at some positions, less those whose id is taken.

        Parameters
        ----------
        yx : ndarray of float64, shape (n, 2)
            Where they are, px.
        flux : ndarray of float64, shape (n,)
            A first guess, nJy.
        field : Field
            The field.
        known : Sources
            Those that there are.
        """
        ids = healpix_29(*field.pixel_to_world(yx).T)
        _, first = np.unique(ids, return_index=True)
        rows = first[~np.isin(ids[first], known.id)]
        unknown = np.full(len(rows), np.nan)
        return cls(
            ids[rows],
            yx[rows],
            np.full((len(rows), 2), np.nan),
            flux[rows],
            unknown,
            unknown,
            np.full(len(rows), MERGED, np.int32),
            np.ones(len(rows), bool),
            np.zeros(len(rows), np.int16),
        )

    def as_detections(self, field: Field) -> Detections:
        """Return them as the tiling wants them."""
        radec = field.pixel_to_world(self.yx)
        return Detections(
            id=self.id,
            ra=radec[:, 0],
            dec=radec[:, 1],
            yx=self.yx,
            mag=magnitude(self.flux).astype(np.float32),
            radius_arcsec=self.radius_arcsec.astype(np.float32),
        )
