"""A survey across buckets: images by ranges, a public field, an output with a key of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.run import process_field
from deblend_batch.errors import StorageError
from deblend_batch.field.layout import Field
from deblend_batch.ingest.ingest import ingest
from tests.ingest.fits_files import noise_image, write_image
from tests.storage_s3.bucket import DETECTIONS, MODEL, shards_of
from tests.storage_s3.proxy import Proxy
from tests.storage_s3.seaweedfs import CATALOGS, PUBLIC, SeaweedFS
from tests.support import SmallField

pytest.importorskip("s3fs")

FIELD = f"s3://{PUBLIC}/field.zarr"
OUTPUT = f"s3://{CATALOGS}/cosmos/run1"


@pytest.fixture(scope="module")
def spread(inputs: dict[str, Any], s3: SeaweedFS, small_field: SmallField) -> dict[str, Any]:
    """A config whose field is public; its tables need the reader's key, and its output one of its own."""
    folder = Path(small_field.url)
    for path in folder.rglob("*"):
        if path.is_file():
            url = storage.join(FIELD, str(path.relative_to(folder)))
            storage.write_bytes(url, path.read_bytes(), s3.options)
    return {
        **inputs,
        "field": FIELD,
        "output": OUTPUT,
        "storage_options": {
            **s3.read_only,
            f"s3://{PUBLIC}": s3.anonymous,
            f"s3://{CATALOGS}": s3.catalogs_only,
        },
    }


def test_each_bucket_is_used_with_its_own_options(
    spread: dict[str, Any], undisturbed: dict[str, bytes], s3: SeaweedFS
) -> None:
    """The rows are those of local files; and it resumes, with what it lost done again."""
    options = spread["storage_options"]
    assert process_field(spread).exit_code == 0
    assert shards_of(OUTPUT, options) == undisturbed
    ledger = Ledger(Output(OUTPUT, options))
    storage.remove(ledger.output.shard_url(ledger.output.receipts()[0]), options)
    assert process_field(spread).exit_code == 0
    assert shards_of(OUTPUT, options) == undisturbed
    assert verify_run(Output(OUTPUT, options)).problems == ()
    assert read_status(Output(OUTPUT, options)).state == "complete"
    written = storage.read_bytes(storage.join(OUTPUT, "run.json"), options).decode()
    for given in (s3.read_only, s3.catalogs_only):
        assert given["secret"] not in written
        assert given["key"] not in written


@pytest.mark.parametrize("url", [DETECTIONS, MODEL, f"{OUTPUT}/run.json"])
def test_nobody_else_reads_what_is_not_public(
    spread: dict[str, Any], s3: SeaweedFS, url: str
) -> None:
    """So that the run above shows that each URL was opened with its own options."""
    with pytest.raises(StorageError, match=r"permission denied"):
        storage.read_bytes(url, s3.anonymous)
    assert Field.open(FIELD, s3.anonymous).n_bands == 1


def test_the_key_of_one_bucket_opens_no_other(s3: SeaweedFS) -> None:
    for bucket in ("survey", PUBLIC):
        with pytest.raises(StorageError, match=r"permission denied"):
            storage.write_bytes(f"s3://{bucket}/x", b"x", s3.catalogs_only)


def test_images_are_ingested_by_ranges_without_a_local_copy(
    s3: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, n_block = noise_image((1200, 1000)), 1 << 18
    content = Path(write_image(tmp_path / "a.fits", image)).read_bytes()
    url, scratch = f"s3://{PUBLIC}/a.fits", tmp_path / "scratch"
    storage.write_bytes(url, content, s3.options)
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with Proxy(s3.endpoint) as proxy:
        reader = {**proxy.through(s3.anonymous), "default_block_size": n_block}
        options = {**s3.options, f"s3://{PUBLIC}": reader}
        made = "s3://survey/made/a.zarr"
        ingest([url], made, zero_points=[25.0], psf_fwhm_arcsec=[0.3], options=options)
        largest = proxy.largest[f"/{PUBLIC}/a.fits"]
    assert 0 < largest < len(content) / 2
    np.testing.assert_array_equal(
        Field.open(made, s3.options).plane(0, slice(None), slice(None)), image
    )
    assert list(scratch.iterdir()) == []
