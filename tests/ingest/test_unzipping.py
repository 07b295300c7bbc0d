"""Gzipped FITS unpack to what their headers announce, within bounds, beside the field."""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblend_batch.errors import FieldError, StorageError, TooLargeError
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.ingest import ingest
from deblend_batch.ingest.reference import ImageRef
from tests.ingest.fits_files import noise_image, write_image
from tests.ingest.hostile_files import BLOCK, GIB, extension, padded, primary, zeros_gzipped
from tests.limited import run_limited

PIXELS = np.arange(12, dtype=">f4").reshape(3, 4)
SMALL = primary(-32, (4, 3)) + padded(PIXELS.tobytes())
_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 27, 1 << 27))
from deblend_batch.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def read(path: Path, content: bytes, hdu: int | None = None) -> np.ndarray:
    path.write_bytes(content)
    with open_files(scratch=str(path.parent)) as files:
        plane = files.plane(ImageRef(str(path), hdu))
        return plane.read(slice(0, 3), slice(0, 4))


def test_gigabytes_that_a_header_announces_are_refused_before_they_are_unpacked(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.fits.gz"
    path.write_bytes(zeros_gzipped(6 * GIB, primary(32, (40_000, 40_000))))
    words = ["ingest", str(path), str(tmp_path / "a.zarr")]
    ended = run_limited(["python", "-c", _LIMITED, *words], memory=600_000_000)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert f"{path}: announces 6,400,00" in ended.err
    assert "unpacked to more than 2,7" in ended.err
    assert sorted(os.listdir(tmp_path)) == ["a.fits.gz"]


@pytest.mark.parametrize("hdu", [None, 0])
def test_gigabytes_behind_the_last_hdu_are_not_unpacked(
    hdu: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = recorded(monkeypatch)
    np.testing.assert_array_equal(
        read(tmp_path / "a.fits.gz", zeros_gzipped(4 * GIB, SMALL), hdu), PIXELS
    )
    assert [os.path.getsize(copy) for copy in copies] == [len(SMALL) + BLOCK]


def test_nor_is_what_a_later_hdu_announces(tmp_path: Path) -> None:
    start = SMALL + extension("IMAGE", 8, (10**6, 10**6))
    with pytest.raises(TooLargeError, match=r"announces 1,000,000,0.* unpack it yourself"):
        read(tmp_path / "a.fits.gz", zeros_gzipped(GIB, start))


def test_a_mask_of_zeros_is_read_though_it_packs_a_thousandfold(tmp_path: Path) -> None:
    edge = 5000
    packed = zeros_gzipped(edge * edge * 4 + (1 << 24), primary(32, (edge, edge)))
    assert len(packed) < edge * edge * 4 / 950
    assert not read(tmp_path / "a.fits.gz", packed).any()


def test_what_does_not_fit_on_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(TooLargeError, match=rf"takes 5,760 bytes in {tmp_path}, where 1,000 are"):
        read(tmp_path / "a.fits.gz", gzip.compress(SMALL))


def test_a_full_disk_while_unpacking_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("r+b", 0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
        with pytest.raises(StorageError, match=r"unpacking .*a\.fits\.gz.: no space"):
            read(tmp_path / "a.fits.gz", gzip.compress(SMALL))


def test_an_image_that_is_cut_inside_its_stream_is_truncated(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="truncated: its data end at byte"):
        read(tmp_path / "a.fits.gz", gzip.compress(SMALL[: -BLOCK + 10]))


def test_a_local_field_s_disk_is_used_and_nothing_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []
    real = tempfile.TemporaryFile

    def recording(*args: Any, **options: Any) -> Any:
        folders.append(options["dir"])
        return real(*args, **options)

    write_image(tmp_path / "a.fits", noise_image((100, 100)), magzero=25.0, psf_fwhm=0.4)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    monkeypatch.setattr("deblend_batch.ingest.files.unzipping.tempfile.TemporaryFile", recording)
    ingest([str(tmp_path / "a.fits.gz")], str(tmp_path / "out" / "a.zarr"))
    assert set(folders) == {str(tmp_path / "out")}
    assert os.listdir(tmp_path / "out") == ["a.zarr"]
    ingest([str(tmp_path / "a.fits.gz")], f"memory://{tmp_path.name}/a.zarr")
    assert folders[-1] == tempfile.gettempdir()


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the unpacked files names, and list them."""
    names: list[str] = []

    def named(**options: Any) -> Any:
        file = tempfile.NamedTemporaryFile(delete=False, **options)  # noqa: SIM115
        names.append(file.name)
        return file

    monkeypatch.setattr("deblend_batch.ingest.files.unzipping.tempfile.TemporaryFile", named)
    return names
