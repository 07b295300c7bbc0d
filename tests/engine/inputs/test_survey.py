"""The fields of a run are looked at before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch.config import make_config
from deblend_batch.engine.inputs.access import check_tables
from deblend_batch.engine.inputs.survey import open_fields
from deblend_batch.errors import FieldError, StorageError
from deblend_batch.field.layout import create_field, finish_field
from tests.support import make_meta


def test_bands_that_would_share_a_column_are_refused(tmp_path: Path) -> None:
    pair = {"zero_point": (25.0, 25.0), "psf_fwhm_arcsec": (0.3, 0.3), "noise_sigma": (1.0, 1.0)}
    meta = make_meta(bands=("h", "err_h"), **pair)
    url = str(tmp_path / "field.zarr")
    finish_field(create_field(url, meta, (100, 100), with_variance=False), meta)
    (tmp_path / "d.csv").write_text("id,x,y\n1,5,5\n")
    config = make_config(
        {"field": url, "detections": str(tmp_path / "d.csv"), "output": str(tmp_path / "out")}
    )
    with pytest.raises(
        FieldError, match=r"field.zarr: attribute 'bands': 'h' and 'err_h' both make .*'flux_err_h'"
    ):
        open_fields(config)


def test_a_table_on_a_server_that_cannot_be_reached_is_not_called_absent() -> None:
    table = "http://127.0.0.1:9/d.parquet"
    with pytest.raises(StorageError, match=f"^{table}: Cannot connect .*; check the URL, the net"):
        check_tables([table], {})
