"""No verb writes over what it reads, into it, into another output or into the system: one line, exit 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deblend_batch.cli.main import main
from tests.ingest.fits_files import noise_image, write_image
from tests.support import SmallField, run_file


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["ingest", "{}/f.zarr/a.fits", "{}/f.zarr", "--overwrite"],
            "field: .* would hold .*a\\.fits",
        ),
        (["ingest", "{}/a.fits", "{}/a.fits", "--overwrite"], "field: .* is .*a\\.fits, which is"),
        (
            ["ingest", "{}/a.fits", "{}/m.fits/x", "--mask-hdu", "{}/m.fits"],
            "field: .* lies in .*m\\.fits, which is read",
        ),
        (["ingest", "{}/a.fits", "{}/run/x.zarr"], "field: .* lies in the output of a run"),
        (["ingest", "{}/a.fits", "/sys/x.zarr"], "field: /sys/x.zarr is in /sys, which holds"),
        (["ingest", "{}/a.fits", "zip://x.zarr"], "zip://x.zarr: unknown protocol"),
        (["detect", "{field}", "{field}/t.parquet"], "detections: .* lies in .*, which is read"),
        (["detect", "{field}", "{}/run/t.parquet"], "detections: .* lies in the output of a run"),
        (["detect", "{field}", "https://h/t.parquet"], "read-only; write to a local path"),
        (["simulate", "field", "{}/run/x.zarr"], "field: .* lies in the output of a run"),
        (["simulate", "field", "github://a:b@/x.zarr"], "holds? credentials|unknown protocol"),
        (["simulate", "pairs", "{}/run/x.zarr"], "data set: .* lies in the output of a run"),
        (
            ["simulate", "pairs", "{}", "--candels-blender", "{}/candels"],
            "data set: .* would hold .*candels.*, which is read",
        ),
        (["train", "{}/run/x"], "output: .* lies in the output of a run"),
        (["train", "/dev/x"], "output: /dev/x is in /dev"),
        (["demo", "--output", "{}/run/x"], "--output: .* lies in the output of a run"),
        (
            ["evaluate", "--paper-table", "{}/t.csv", "--html", "{}/t.csv"],
            "--html: .*t\\.csv is .*t\\.csv, which is read",
        ),
        (
            ["evaluate", "--pairs", "{}/p", "--html", "{}/p/x.html"],
            "--html: .* lies in .*/p, which",
        ),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_no_verb_writes_where_it_must_not(
    words: list[str],
    said: str,
    small_field: SmallField,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(run_file()))
    for name in ("a.fits", "m.fits"):
        write_image(tmp_path / name, noise_image((20, 20)))
    before = sorted(tmp_path.rglob("*"))
    code = main([word.format(tmp_path, field=small_field.url) for word in words])
    error = capfd.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert sorted(tmp_path.rglob("*")) == before
