"""What a stranger's Zarr may ask for: sizes, codecs, bombs; memory is measured."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pyarrow as pa
import pytest
import zarr
from numcodecs.abc import Codec
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from deblend_batch import storage
from deblend_batch.arrays.bounds import MAX_DOCUMENT_BYTES
from deblend_batch.errors import BadDataError, FieldError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import noise_image
from tests.support import edit_array, grid, make_meta

EDGE = 256
CHUNK = 128
IMAGE = noise_image((EDGE, EDGE))
BOMB_BYTES = 512 << 20
SPARE_BYTES = 64 << 20  # what a read of this small field may take, threads and all


@contextmanager
def bounded_memory(spare: int = SPARE_BYTES) -> Iterator[None]:
    """Fail if the process' peak memory grows by more than ``spare`` bytes meanwhile."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status_bytes("VmRSS")
    yield
    assert status_bytes("VmHWM") - before < spare


def status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def write_field(url: str, **array: Any) -> zarr.Array[Any]:
    """Write a field as another tool would."""
    group = zarr.open_group(url, mode="w", zarr_format=array.pop("zarr_format", 3))
    chunks = array.pop("chunks", (CHUNK, CHUNK))
    image = group.create_array("image", shape=IMAGE.shape, dtype="f4", chunks=chunks, **array)
    image[...] = IMAGE
    group.attrs.update(make_meta().to_attributes())
    return image


def sharding(*edges: int, index: str = "crc32c") -> list[dict[str, Any]]:
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    index_codecs = [*codecs, {"name": index, "configuration": {}}]
    configuration = {"chunk_shape": edges, "codecs": codecs, "index_codecs": index_codecs}
    return [{"name": "sharding_indexed", "configuration": configuration}]


@pytest.mark.parametrize(
    "array",
    [
        {},
        {"compressors": None},
        {"compressors": BloscCodec(cname="lz4")},
        {"compressors": [BloscCodec(cname="zstd"), Crc32cCodec()]},
        {"compressors": [Crc32cCodec(), ZstdCodec()]},
        {"compressors": ZstdCodec(level=3, checksum=True)},
        {"compressors": GzipCodec()},
        {"compressors": ZstdCodec(), "filters": TransposeCodec(order=(1, 0))},
        {"shards": (EDGE, EDGE)},
        {"shards": (EDGE, EDGE), "chunks": (64, CHUNK), "compressors": BloscCodec()},
        {"shards": (CHUNK, EDGE), "compressors": None},
        {"zarr_format": 2},
        {"zarr_format": 2, "compressors": None},
        {"zarr_format": 2, "compressors": numcodecs.LZ4(), "order": "F"},
        {"zarr_format": 2, "compressors": numcodecs.GZip()},
        {"zarr_format": 2, "compressors": numcodecs.Zlib(), "filters": numcodecs.Shuffle(4)},
        {"zarr_format": 2, "compressors": numcodecs.Zstd(), "filters": numcodecs.CRC32C()},
        {"zarr_format": 2, "compressors": numcodecs.Blosc("zlib")},
    ],
)
def test_what_other_tools_write_is_read(array: dict[str, Any], tmp_path: Path) -> None:
    url = f"{tmp_path}/a.zarr"
    write_field(url, **array)
    tile = read_tile(Field.open(url), Box(10, 20, 250, 240))
    np.testing.assert_array_equal(tile.image[0], IMAGE[10:250, 20:240])


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_consolidated_metadata_are_no_hindrance(zarr_format: int, tmp_path: Path) -> None:
    """Many tools write them; members that a field may lack are then absent from them, too."""
    url = f"{tmp_path}/a.zarr"
    write_field(url, zarr_format=zarr_format)
    zarr.consolidate_metadata(url)
    assert Field.open(url).shape_yx == IMAGE.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_grid": grid(100_000, 100_000)}, "40,000,000,000 bytes to decode one"),
        ({"shape": [9_000_000, 9_000_000]}, r"\(9000000, 9000000\), more than 4,398,046,511,104"),
        ({"shape": [40_000_000, 40_000_000]}, "rows and columns must be 1 to 10000000"),
        ({"chunk_grid": grid(1, 1), "shape": [9_000, 9_000]}, r"\(1, 1\), too small to be read"),
        (
            {"chunk_grid": grid(1 << 17, 1 << 17), "codecs": sharding(512, 512)},
            "68,719,476,736 bytes in 65,536 chunks, more than",
        ),
        (
            {"chunk_grid": grid(1 << 14, 1 << 14), "codecs": sharding(32, 32)},
            "in 262,144 chunks, more than",
        ),
        (
            {"codecs": sharding(64, 64, index="gzip")},
            "shards whose index has the codec 'gzip'",
        ),
        (
            {"codecs": [*sharding(64, 64), {"name": "crc32c"}]},
            "shards inside another codec",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_what_asks_for_too_much_is_refused_at_once(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_field(f"{tmp_path}/a.zarr")
    edit_array(f"{tmp_path}/a.zarr", "image", **changes)
    with bounded_memory(), pytest.raises(FieldError, match=rf"a\.zarr: 'image' .*{message}"):
        Field.open(f"{tmp_path}/a.zarr")


@pytest.mark.parametrize(
    ("zarr_format", "name"),
    [
        (3, "zarr.json"),
        (3, "image/zarr.json"),
        (2, ".zgroup"),
        (2, ".zattrs"),
        (2, "image/.zarray"),
        (2, "image/.zattrs"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_metadata_are_read_up_to_a_size(
    zarr_format: int, name: str, scheme: str, tmp_path: Path
) -> None:
    """All of it is valid JSON, so that nothing but its size is wrong."""
    url = f"{scheme}{tmp_path}/a.zarr"
    write_field(url, zarr_format=zarr_format)
    document = storage.join(url, name)
    content = storage.read_bytes(document)
    storage.write_bytes(document, content + b" " * MAX_DOCUMENT_BYTES)
    with pytest.raises(FieldError, match=rf"a\.zarr: cannot read .*{name} holds more than the 4,1"):
        Field.open(url)
    storage.write_bytes(document, content + b" " * (MAX_DOCUMENT_BYTES - len(content)))
    assert Field.open(url).shape_yx == IMAGE.shape


def test_metadata_of_any_size_take_no_memory(tmp_path: Path) -> None:
    write_field(f"{tmp_path}/a.zarr")
    with (tmp_path / "a.zarr" / "image" / "zarr.json").open("r+b") as file:
        file.truncate(BOMB_BYTES)  # sparse: costs the stranger nothing
    with bounded_memory(), pytest.raises(FieldError, match=r"json holds more than the 4,194,304"):
        Field.open(f"{tmp_path}/a.zarr")


class Harmful(Codec):  # type: ignore[misc]
    """Stands for a codec of a package that happens to be installed."""

    codec_id = "harmful"

    def encode(self, buf: Any) -> Any:
        return buf

    def decode(self, buf: Any, out: Any = None) -> Any:
        raise AssertionError("was run")


numcodecs.register_codec(Harmful)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": [{"id": "pickle", "protocol": 5}]}, "'image' .*'pickle'"),
        ({"filters": [{"id": "json2"}]}, "'image' .*'json2'"),
        ({"filters": [{"id": "delta", "dtype": "f4"}]}, "the filter 'delta', which is not read"),
        ({"compressor": {"id": "pickle"}}, "'image' .*'pickle'"),
        ({"compressor": {"id": "lzma"}}, "the compressor 'lzma', which is not read"),
        ({"compressor": {"id": "harmful"}}, "the compressor 'harmful', which is not read"),
        ({"compressor": {"id": "nobody-knows"}}, "nobody-knows"),
    ],
)
def test_no_codec_is_read_but_those_listed(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_field(f"{tmp_path}/a.zarr", zarr_format=2)
    path = tmp_path / "a.zarr" / "image" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(FieldError, match=message):
        Field.open(f"{tmp_path}/a.zarr")


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["bytes", "numcodecs.lzma"], "the codec 'lzma', which is not read"),
        (["vlen-bytes"], "the codec 'vlen-bytes', which is not read"),
        (["numcodecs.delta", "bytes"], "the codec 'delta', which is not read"),
        (["bytes", "gzip", "gzip"], "the codec 'gzip' twice"),
        (["bytes", "nobody-knows"], "cannot read 'image' .*nobody-knows"),
    ],
)
def test_no_codec_of_format_3_is_read_but_those_listed(
    names: list[str], message: str, tmp_path: Path
) -> None:
    write_field(f"{tmp_path}/a.zarr")
    codecs = [
        {"name": name, "configuration": {"dtype": "<f4"} if "delta" in name else {}}
        for name in names
    ]
    edit_array(f"{tmp_path}/a.zarr", "image", codecs=codecs)
    with pytest.raises(FieldError, match=message):
        Field.open(f"{tmp_path}/a.zarr")


@cache
def deflated(wbits: int) -> bytes:
    encoder, block = zlib.compressobj(1, wbits=wbits), bytes(1 << 24)
    parts = [encoder.compress(block) for _ in range(BOMB_BYTES // len(block))]
    return b"".join([*parts, encoder.flush()])


@cache
def zstd_frames(*, announced: bool) -> bytes:
    if announced:
        return bytes(numcodecs.Zstd().encode(np.zeros(BOMB_BYTES, np.uint8)))
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for _ in range(BOMB_BYTES >> 24):
            stream.write(bytes(1 << 24))
    return bytes(sink.getvalue().to_pybytes())


def harmless_then_bomb() -> bytes:
    """Return two zstd frames, of which the first is what it should be."""
    first = numcodecs.Zstd().encode(np.zeros(4 * CHUNK * CHUNK, np.uint8))
    return bytes(first) + zstd_frames(announced=True)


def lying_blosc(announced: int) -> bytes:
    content = bytearray(numcodecs.Blosc().encode(np.zeros(4 * CHUNK * CHUNK, np.uint8)))
    content[4:8] = announced.to_bytes(4, "little")
    return bytes(content)


def whole_blosc() -> bytes:
    return bytes(numcodecs.Blosc("zstd", 1).encode(np.zeros(BOMB_BYTES, np.uint8)))


def lying_lz4() -> bytes:
    content = bytes(numcodecs.LZ4().encode(np.zeros(4 * CHUNK * CHUNK, np.uint8)))
    return BOMB_BYTES.to_bytes(4, "little") + content[4:]


BOMBS: dict[str, tuple[dict[str, Any], Callable[[], bytes], str]] = {
    "zstd": (
        {"compressors": ZstdCodec()},
        lambda: zstd_frames(announced=True),
        "announces 536,870,912 bytes where the array's chunks have 65,536",
    ),
    "zstd, not announced": (
        {"compressors": ZstdCodec()},
        lambda: zstd_frames(announced=False),
        "Zstd decompression error",
    ),
    "zstd, second frame": ({"compressors": ZstdCodec()}, harmless_then_bomb, "too small"),
    "gzip": ({"compressors": GzipCodec()}, lambda: deflated(31), "holds more than"),
    "gzip, stored small": (
        {"compressors": GzipCodec()},
        lambda: deflated(31)[:60_000],
        "decodes to more bytes than the 65,536",
    ),
    "blosc": ({"compressors": BloscCodec()}, whole_blosc, "holds more than|announces 536,870,912"),
    "blosc, lying": (
        {"compressors": BloscCodec()},
        lambda: lying_blosc(BOMB_BYTES),
        "announces 536,870,912 bytes",
    ),
    "blosc, short": (
        {"compressors": BloscCodec()},
        lambda: lying_blosc(100),
        "announces 100 bytes",
    ),
    "lz4, format 2": (
        {"zarr_format": 2, "compressors": numcodecs.LZ4()},
        lying_lz4,
        "announces 536,870,912 bytes",
    ),
    "zlib, format 2": (
        {"zarr_format": 2, "compressors": numcodecs.Zlib()},
        lambda: deflated(15)[:60_000],
        "decodes to more bytes",
    ),
    "zstd, format 2": (
        {"zarr_format": 2, "compressors": numcodecs.Zstd()},
        lambda: zstd_frames(announced=True),
        "announces 536,870,912 bytes",
    ),
    "a large object": (
        {"compressors": None},
        lambda: bytes(BOMB_BYTES),
        "holds more than the 70,656 bytes that it can need",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_bad_data_and_takes_no_memory(name: str, tmp_path: Path) -> None:
    array, make, message = BOMBS[name]
    url = f"{tmp_path}/a.zarr"
    write_field(url, **array)
    key = "0.0" if "zarr_format" in array else "c/0/0"
    (tmp_path / "a.zarr" / "image" / key).write_bytes(make())
    field = Field.open(url)
    with bounded_memory(), pytest.raises(BadDataError, match=rf"a\.zarr: .*({message})"):
        read_tile(field, Box(0, 0, EDGE, EDGE))
    with bounded_memory(), pytest.raises(BadDataError, match=rf"a\.zarr: .*({message})"):
        field.plane(0, slice(0, EDGE), slice(0, EDGE))


def test_a_shard_s_index_that_points_to_too_much_is_bad_data(tmp_path: Path) -> None:
    url = f"{tmp_path}/a.zarr"
    write_field(url, shards=(EDGE, EDGE), compressors=None)
    shard = tmp_path / "a.zarr" / "image" / "c" / "0" / "0"
    content = shard.read_bytes()
    index = np.frombuffer(content[-68:-4], "<u8").reshape(4, 2).copy()
    index[:, 1] = 1 << 40
    checksum = numcodecs.CRC32C().encode(index.view("u1").ravel())  # in front, unlike the codec's
    with shard.open("r+b") as file:
        file.truncate(len(content) - 68)
        file.seek(BOMB_BYTES)  # sparse: costs the stranger nothing
        file.write(index.tobytes() + bytes(checksum[-4:]))
    with bounded_memory(), pytest.raises(BadDataError, match="holds more than the 70,656 bytes"):
        read_tile(Field.open(url), Box(0, 0, CHUNK, CHUNK))
    with bounded_memory(), pytest.raises(BadDataError, match="holds more than the 282,692 bytes"):
        read_tile(Field.open(url), Box(0, 0, EDGE, EDGE))


def test_a_fill_value_of_megabytes_is_not_shown_whole(tmp_path: Path) -> None:
    write_field(f"{tmp_path}/a.zarr")
    edit_array(f"{tmp_path}/a.zarr", "image", fill_value="x" * 3_000_000)
    with pytest.raises(FieldError, match=r"a\.zarr: cannot read 'image'") as refused:
        Field.open(f"{tmp_path}/a.zarr")
    assert len(str(refused.value)) < 400 + len(str(tmp_path))
