"""Pixel positions in the frame that an image was cut from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.engine.inputs.index.other_units import OtherUnits
from deblend_batch.errors import DetectionsError
from deblend_batch.field.layout import Field
from deblend_batch.ingest.ingest import ingest
from tests.ingest.fits_files import noise_image, write_image
from tests.support import make_meta

ORIGIN_YX = (8000.0, 4000.0)


@pytest.fixture
def field(tmp_path: Path) -> Field:
    """A patch of a tract, as its header says."""
    image = noise_image((60, 70))
    cards = {"LTV1": -ORIGIN_YX[1], "LTV2": -ORIGIN_YX[0], "BUNIT": "nJy", "PSF_FWHM": 0.3}
    url = write_image(tmp_path / "a.fits", image, **cards)
    ingest([url], f"{tmp_path}/a.zarr", bands=["i"])
    return Field.open(f"{tmp_path}/a.zarr")


def table(folder: Path) -> str:
    rows = {"id": [1, 2], "x": [4010.0, 4020.5], "y": [8005.0, 8050.0]}
    pq.write_table(pa.table(rows), folder / "d.parquet")
    return str(folder / "d.parquet")


def read(url: str, field: Field, **how: Any) -> Detections:
    (found,) = read_detections(url, parent_yx=field.meta.parent_yx, **how)
    return found


def test_positions_of_the_tract_become_those_of_the_patch(field: Field, tmp_path: Path) -> None:
    found = read(table(tmp_path), field, origin="parent")
    np.testing.assert_array_equal(found.yx, [[5.0, 10.0], [50.0, 20.5]])


def test_a_table_of_which_none_is_in_the_patch_is_asked(field: Field, tmp_path: Path) -> None:
    units = OtherUnits(field)
    units.look(read(table(tmp_path), field))
    with pytest.raises(
        DetectionsError, match=r"frame that it was cut from .* 2 would be: say so with"
    ):
        units.check("d.parquet")


def test_a_field_that_knows_no_such_frame_is_asked_for_it(field: Field, tmp_path: Path) -> None:
    plain = Field(field.url, None, replace(field.meta, parent_yx=None), field.shape_yx, frozenset())
    with pytest.raises(
        DetectionsError, match=r"LTV1.*set its attribute 'parent_origin' to \[y, x\]"
    ):
        read(table(tmp_path), plain, origin="parent")


def test_it_stands_in_the_attributes() -> None:
    attributes = make_meta(parent_yx=ORIGIN_YX).to_attributes()
    assert attributes["parent_origin"] == [8000.0, 4000.0]
