"""URLs that nothing here can open say what to install or use."""

from __future__ import annotations

import sys

import pytest

from deblend_batch import storage
from deblend_batch.errors import StorageError


@pytest.mark.parametrize(
    ("url", "missing", "message"),
    [
        (
            "gopher://x/y",
            (),
            r"^gopher://x/y: unknown protocol; use a local path, s3://, gs://, az:// or http\(s\)://$",
        ),
        (
            "gs://bucket/x",
            ("gs", "gcsfs"),
            r"cannot open gs:// URLs here; pip install 'deblend-batch\[gcs\]'",
        ),
        (
            "az://bucket/x",
            ("az", "adlfs"),
            r"cannot open az:// URLs here; pip install 'deblend-batch\[azure\]'",
        ),
    ],
)
def test_unknown_schemes_say_what_to_install_or_use(
    url: str, missing: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    with pytest.raises(StorageError, match=message):
        storage.read_bytes(url)
