"""URLs that nothing here can open say what to install or use."""

from __future__ import annotations

import pytest

from deblend_batch import storage
from deblend_batch.errors import StorageError


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "gopher://x/y",
            r"^gopher://x/y: unknown protocol; use a local path, s3://, gs://, az:// or http\(s\)://$",
        ),
        ("gs://bucket/x", r"cannot open gs:// URLs here; pip install 'deblend-batch\[gcs\]'"),
    ],
)
def test_unknown_schemes_say_what_to_install_or_use(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        storage.read_bytes(url)
