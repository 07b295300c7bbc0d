"""ASDF as a container: any array comes back by windows, and files of strangers are one line."""

from __future__ import annotations

import bz2
import hashlib
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import LZ4

from deblend_batch.errors import FieldError, TooLargeError, UserError
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.reference import ImageRef

HEAD = "#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- !core/asdf-1.1.0\n"
IMAGE = (
    "data: !core/ndarray-1.1.0 {source: 0, datatype: float32, byteorder: little, shape: [4, 5]}\n"
)
ZEROS = bytes(80)


def packed(content: bytes, packing: str) -> bytes:
    if packing == "lz4":
        pieces = [bytes(LZ4().encode(content[at : at + 64])) for at in range(0, len(content), 64)]
        return b"".join(struct.pack(">I", len(piece)) + piece for piece in pieces)
    packers: dict[str, Callable[[bytes], bytes]] = {"zlib": zlib.compress, "bzp2": bz2.compress}
    return packers[packing](content) if packing else content


def block(content: bytes, packing: str = "", **changes: int | bytes) -> bytes:
    """Return a block; ``changes`` are of its header."""
    stored = packed(content, packing)
    digest = hashlib.md5(content).digest()  # as asdf does: before the packing
    said = {
        "flags": 0, "name": packing.encode(), "allocated": len(stored), "used": len(stored),
        "size": len(content), "digest": digest, **changes,
    }  # fmt: skip
    header = struct.pack(">I4sQQQ16s", *said.values())
    return b"\xd3BLK" + struct.pack(">H", len(header)) + header + stored


def written(path: Path, tree: str, *blocks: bytes, padding: int = 0) -> str:
    path.write_bytes(f"{HEAD}{tree}...\n".encode() + bytes(padding) + b"".join(blocks))
    return str(path)


@settings(max_examples=40)
@given(
    data=st.data(),
    kind=st.sampled_from(["i1", "u1", "i2", "u4", "i8", "f2", "f4", "f8"]),
    order=st.sampled_from(["little", "big"]),
    packing=st.sampled_from(["", "zlib", "bzp2", "lz4"]),
    offset=st.integers(0, 9),
)
def test_any_array_comes_back_by_windows(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject, kind: str, order: str, packing: str, offset: int,
) -> None:  # fmt: skip
    height, width = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    dtype = np.dtype(("<" if order == "little" else ">") + kind)
    values = np.random.default_rng(width).integers(0, 100, (height, width)).astype(dtype)
    name = {"i": "int", "u": "uint", "f": "float"}[kind[0]] + str(8 * dtype.itemsize)
    tree = (
        f"a: {{sci: !core/ndarray-1.0.0 {{source: 1, datatype: {name}, byteorder: {order}, "
        f"shape: [{height}, {width}], offset: {offset}}}}}\n"
    )
    path = tmp_path_factory.mktemp("asdf") / "a.asdf"
    content = bytes(offset) + values.tobytes()
    url = written(path, tree, block(b"other"), block(content, packing), padding=offset)
    rows, columns = (
        slice(*sorted(data.draw(st.lists(st.integers(0, edge), min_size=2, max_size=2))))
        for edge in values.shape
    )
    with open_files(scratch=str(path.parent)) as files:
        plane = files.plane(ImageRef(url))
        assert (plane.label, plane.shape_yx) == (f"{url}[a.sci]", values.shape)
        np.testing.assert_array_equal(plane.values(rows, columns), values[rows, columns])
        bits, unknown = plane.read_bits(rows, columns)
        np.testing.assert_array_equal(bits, values[rows, columns].astype(np.uint64))
        assert not unknown.any()


def test_planes_of_bits_are_one_mask(tmp_path: Path) -> None:
    stack = np.zeros((3, 4, 5), "<u4")
    stack[0, 1], stack[2, :, 3] = 1, 8
    tree = "data: !core/ndarray-1.1.0 {source: 0, datatype: uint32, byteorder: little, shape: [3, 4, 5]}\n"
    url = written(tmp_path / "a.asdf", tree, block(stack.tobytes()))
    with open_files() as files:
        bits, _ = files.plane(ImageRef(url)).read_bits(slice(0, 4), slice(1, 5))
    np.testing.assert_array_equal(bits, np.bitwise_or.reduce(stack)[:, 1:])


def test_an_image_larger_than_memory_is_read_by_windows(tmp_path: Path) -> None:
    edge = 30_000
    tree = IMAGE.replace("[4, 5]", f"[{edge}, {edge}]")
    size = 4 * edge * edge
    url = written(
        tmp_path / "a.asdf", tree, block(b"", allocated=size, used=size, digest=bytes(16))
    )
    with Path(url).open("r+b") as file:
        file.truncate(Path(url).stat().st_size + size)  # a hole, which takes no disk
    tracemalloc.start()
    with open_files() as files:
        window = files.plane(ImageRef(url)).read(slice(edge - 512, edge), slice(99, 611))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert window.shape == (512, 512)
    assert peak < 8 * window.nbytes


def aliases(level: int) -> str:
    return ", ".join([f"*a{level - 1}"] * 9) if level else "1"


HOSTILE: dict[str, tuple[Callable[[Path], str], type[Exception], str]] = {
    "reference": (
        lambda p: written(p, "roman: {data: {$ref: 'file:///etc/hostname#/a'}}\n"),
        FieldError, "refers to 'file:///etc/hostname#/a', and references are not followed",
    ),
    "external array": (
        lambda p: written(p, IMAGE.replace("source: 0", "source: '/etc/hostname'")),
        FieldError, "an array in another file, and references are not followed",
    ),
    "external array of a URL": (
        lambda p: written(p, "data: !core/externalarray-1.0.0 {fileuri: 'http://x/y'}\n"),
        FieldError, "an array in another file",
    ),
    "no end": (
        lambda p: str(p.write_bytes(HEAD.encode()) and p), FieldError, "its tree has no end",
    ),
    "no YAML": (lambda p: written(p, "a: [\n"), FieldError, "its tree is no YAML"),
    "an alias bomb": (
        lambda p: written(p, "".join(f"k{n}: &a{n} [{aliases(n)}]\n" for n in range(9))),
        TooLargeError, "its tree holds more than 200,000 values, its aliases followed",
    ),
    "endless values": (
        lambda p: written(p, "a: [" + "1," * 300_000 + "1]\n"), TooLargeError, "more than 200,000 values",
    ),
    "endless depth": (
        lambda p: written(p, "a: " + "[" * 100_000 + "\n"), TooLargeError, "more than 100 levels",
    ),
    "an alias in itself": (
        lambda p: written(p, "a: &a [*a]\n"), TooLargeError, "an alias is inside its anchor",
    ),
    "a petabyte": (
        lambda p: written(p, IMAGE.replace("[4, 5]", "[99999999, 99999999]"), block(ZEROS)),
        TooLargeError, "announces 9,999,999,800,000,001 pixels",
    ),
    "more than its block": (
        lambda p: written(p, IMAGE.replace("[4, 5]", "[4, 6]"), block(ZEROS)),
        FieldError, "block 0 holds 80 bytes, and an array needs 96",
    ),
    "no block": (lambda p: written(p, IMAGE), FieldError, "has no block 0"),
    "a block that is cut": (
        lambda p: written(p, IMAGE, block(ZEROS)[:-8]), FieldError, "truncated: a block ends at byte",
    ),
    "a block beyond the file": (
        lambda p: written(p, IMAGE, block(ZEROS, allocated=1 << 60, used=1 << 60)),
        FieldError, "truncated: a block ends at byte",
    ),
    "a streamed block": (
        lambda p: written(p, IMAGE, block(ZEROS, flags=1)), FieldError, "a streamed block",
    ),
    "damage": (
        lambda p: written(p, IMAGE, block(ZEROS, digest=b"1" * 16)), FieldError, "its checksum",
    ),
    "damage under a packing": (
        lambda p: written(p, IMAGE, block(ZEROS, "lz4", digest=b"1" * 16)), FieldError, "its checksum",
    ),
    "another packing": (
        lambda p: written(p, IMAGE, block(ZEROS, name=b"blsc")), FieldError, "packed with 'blsc'",
    ),
    "a bomb": (
        lambda p: written(p, IMAGE, block(bytes(1 << 22), "zlib", size=80)),
        TooLargeError, "holds more than the 80 bytes that it announces",
    ),
    "a bomb of pieces": (
        lambda p: written(p, IMAGE, block(bytes(1 << 12), "lz4", size=80)),
        TooLargeError, "holds more than the 80 bytes",
    ),
    "exabytes announced": (
        lambda p: written(p, IMAGE, block(ZEROS, "lz4", size=1 << 60)),
        TooLargeError, "unpack it yourself if you trust it",
    ),
    "less than announced": (
        lambda p: written(p, IMAGE, block(ZEROS, "bzp2", size=160)), FieldError, "ends after 80 of 160",
    ),
    "no such packing": (
        lambda p: written(p, IMAGE, block(ZEROS, name=b"lz4")), FieldError, "cannot be unpacked",
    ),
    "an object array": (
        lambda p: written(p, IMAGE.replace("float32", "[{datatype: float32}]"), block(ZEROS)),
        FieldError, "no plain array of numbers",
    ),
    "strides": (
        lambda p: written(p, IMAGE.replace("shape:", "strides: [-20, 4], shape:"), block(ZEROS)),
        FieldError, "no plain array of numbers",
    ),
    "written out": (
        lambda p: written(p, "data: !core/ndarray-1.1.0 {data: [[1.0]], datatype: float64, shape: [1, 1]}\n"),
        FieldError, "is written into the tree",
    ),
    "nothing": (lambda p: written(p, "a: 1\n"), FieldError, "holds no array"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_of_a_stranger_is_one_line(what: str, tmp_path: Path) -> None:
    make, error, message = HOSTILE[what]
    url = make(tmp_path / "a.asdf")
    with (
        open_files(scratch=str(tmp_path)) as files,
        pytest.raises(error, match=re.escape(message)) as caught,
    ):
        files.plane(ImageRef(url))
    assert "\n" not in str(caught.value)


WCS = "meta: {{wcs: !<tag:stsci.edu:gwcs/wcs-1.4.0> {{name: '', steps: [{step}]}}}}\n"
LARGE = IMAGE[6:-1].replace("4, 5", "400, 500")
STEP = "!<tag:stsci.edu:gwcs/step-1.3.0> {{frame: a, transform: {transform}}}"


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("!!python/object/apply:os.system ['touch MARK']", "the tag 'tag:yaml.org,2002:python/object"),
        ("!<tag:example.org:mine/run-1.0.0> {}", "the tag 'tag:example.org:mine/run-1.0.0'"),
        ("!unit/unit-1.0.0 m99999999", "the unit 'm99999999'"),
        (f"!unit/unit-1.0.0 {'m' * 70}", "the unit"),
        ("!transform/nothing-1.0.0 {}", "its gWCS cannot be understood"),
        ("!transform/shift-1.2.0 {offset: {a: 1}}", "its gWCS cannot be understood"),
        (f"!transform/polynomial-1.2.0 {{coefficients: {LARGE}}}", "tables of more than 65,536 values"),
        ("null", "its gWCS"),
    ],
)  # fmt: skip
def test_a_gwcs_is_made_of_what_is_known(transform: str, message: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    step = STEP.format(transform=transform.replace("MARK", str(mark)))
    url = written(tmp_path / "a.asdf", IMAGE + WCS.format(step=step), block(ZEROS))
    with open_files() as files, pytest.raises(UserError, match="its gWCS") as caught:
        _ = files.plane(ImageRef(url)).unsettled
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_without_a_wcs_it_is_refused(tmp_path: Path) -> None:
    url = written(tmp_path / "a.asdf", IMAGE, block(ZEROS))
    with open_files() as files, pytest.raises(FieldError, match="no celestial WCS in its tree"):
        _ = files.plane(ImageRef(url)).unsettled
