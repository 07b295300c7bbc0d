"""Tables that announce or unpack to more than they are: one line at once, in little memory."""

from __future__ import annotations

import base64
import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.limited import run_limited

MIB = 1 << 20
READER = """
import sys, time, warnings
from deblend_batch.detections.table import read_detections
from deblend_batch.errors import UserError
warnings.simplefilter("error")
for url in sys.argv[1:]:
    started = time.monotonic()
    try:
        rows = sum(map(len, read_detections(url)))
        print(f"READ {rows} rows of {url}")
    except UserError as error:
        print(f"{time.monotonic() - started:.1f} {error}")
"""


@dataclass(frozen=True)
class Zipped:
    """What is in a gzipped file: pieces, each so many times, since its members may repeat."""

    pieces: Sequence[tuple[bytes, int]]

    def write_to(self, path: Path) -> None:
        with path.open("wb") as file:
            for piece, times in self.pieces:
                file.write(gzip.compress(piece) * times)


def endless(start: bytes, filling: bytes) -> dict[str, bytes | Zipped]:
    """Return a start with 3 MB after it, and zipped with 20 GB after it: a file of 20 MB."""
    block = filling * (MIB // len(filling))
    return {"": start + block * 3, ".gz": Zipped([(start, 1), (block, 20_000)])}


def votable(fields: str, data: str = "", attributes: str = "") -> bytes:
    return (
        f"<VOTABLE version='1.4'><RESOURCE><TABLE {attributes}>{fields}<DATA>{data}</DATA></TABLE></RESOURCE>"
        "</VOTABLE>"
    ).encode()


ID = '<FIELD name="id" datatype="long"/>'
POSITION = '<FIELD name="ra" datatype="double"/><FIELD name="dec" datatype="double"/>'
OPEN = votable(ID + POSITION, "<TABLEDATA>").partition(b"</DATA>")[0]


def binary(content: bytes) -> str:
    text = base64.b64encode(content).decode()
    return f"<BINARY><STREAM encoding='base64'>{text}</STREAM></BINARY>"


def card(key: str, value: object) -> bytes:
    return f"{key:8}= {value!s:>20}".ljust(80).encode()


def header(*cards: bytes) -> bytes:
    text = b"".join([*cards, b"END".ljust(80)])
    return text + b" " * (-len(text) % 2880)


PRIMARY = header(card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 0))


def fits_table(**changed: object) -> bytes:
    cards = {"XTENSION": "'BINTABLE'", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 24, "NAXIS2": 2}
    cards |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": 3}
    for n, (name, form) in enumerate((("id", "K"), ("ra", "D"), ("dec", "D")), 1):
        cards |= {f"TTYPE{n}": f"'{name}'", f"TFORM{n}": f"'{form}'"}
    rows = np.array([(1, 150.0, 2.0), (2, 150.1, 2.1)], dtype=">i8,>f8,>f8").tobytes()
    return (
        PRIMARY
        + header(*(card(k, v) for k, v in (cards | changed).items()))
        + rows.ljust(2880, b"\0")
    )


NO_END = card("SIMPLE", "T") + card("COMMENT", 1) * 35

ECSV = b"# %ECSV 1.0\n# ---\n"
TYPES = b"# datatype:\n# - {name: id, datatype: int64}\n" + b"".join(
    b"# - {name: %s, datatype: float64}\n" % name for name in (b"ra", b"dec")
)
LAUGHS = b"# a0: &a0 {x: 1}\n" + b"".join(
    b"# a%d: &a%d {<<: [%s]}\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 10)
)
VARIABLE = ID + POSITION + '<FIELD name="s" datatype="unsignedByte" arraysize="*"/>'
IMAGE = {"XTENSION": "'IMAGE   '", "BITPIX": -64, "NAXIS": 2, "NAXIS1": 10**6, "NAXIS2": 10**6}

HOSTILE: dict[str, dict[str, bytes | Zipped]] = {
    "csv": {
        **{f"zeros{k}": v for k, v in endless(b"id,ra,dec\n", b"\0").items()},
        **{f"header{k}": v for k, v in endless(b"id,ra,dec", b"x").items()},
        **{f"columns{k}": v for k, v in endless(b"id,ra,dec", b",").items()},
        **{f"row{k}": v for k, v in endless(b"id,ra,dec\n1,2,", b"3").items()},
        **{f"quotes{k}": v for k, v in endless(b'id,ra,dec\n1,2,"', b"3\n").items()},
        "rows.gz": Zipped([(b"id,ra,dec\n", 1), ((b"1,2,3" + b" " * 5_000 + b"\n") * 200, 20_000)]),
        "names": b"id," * 20_000 + b"ra,dec\n",
    },
    "vot": {
        **{f"zeros{k}": v for k, v in endless(b"<VOTABLE>", b"\0").items()},
        **{f"tag{k}": v for k, v in endless(b"<VOTABLE version='", b"1").items()},
        **{f"comment{k}": v for k, v in endless(b"<VOTABLE><!--", b"x").items()},
        **{f"value{k}": v for k, v in endless(OPEN + b"<TR><TD>", b"1").items()},
        "blanks.gz": endless(b"<VOTABLE>", b" ")[".gz"],
        "deep": b"<VOTABLE>" + b"<RESOURCE>" * 200_000,
        "elements": b"<VOTABLE>" + b"".join(b"<e%d/>" % n for n in range(200_000)),
        "attributes": b"<VOTABLE " + b" ".join(b"a%d='1'" % n for n in range(90_000)) + b">",
        "fields": votable('<FIELD name="x" datatype="long"/>' * 200_000),
        "long_field": votable(f'<FIELD name="{"x" * 900_000}" datatype="long"/>' * 3),
        "array": votable(
            ID + POSITION + '<FIELD name="a" datatype="double" arraysize="99999999999"/>'
        ),
        "arrays": votable(
            ID + POSITION + '<FIELD name="a" datatype="int" arraysize="9999x9999x9999"/>'
        ),
        "many_arrays": votable(
            ID + '<FIELD name="a" datatype="double" arraysize="1000000"/>' * 9_000
        ),
        "nothing_rows": votable(
            ID.replace('"/>', '" arraysize="0x1"/>') + POSITION, binary(bytes(MIB))
        ),
        "variable": votable(
            VARIABLE, binary(bytes(24) + struct.pack(">I", 2**32 - 1) + bytes(3 * MIB))
        ),
        "encoded": votable(ID + POSITION, binary(b"").replace("base64", "gzip")),
        "null": votable(ID + POSITION, attributes="nrows='1000000000000000'") + b"<a/>",
    },
    "ecsv": {
        **{f"header{k}": v for k, v in endless(ECSV, b"# x\n").items()},
        **{f"blank{k}": v for k, v in endless(ECSV, b"\n").items()},
        **{f"line{k}": v for k, v in endless(ECSV + b"# ", b"x").items()},
        **{f"names{k}": v for k, v in endless(ECSV + TYPES + b"id ra dec", b" x").items()},
        **{f"row{k}": v for k, v in endless(ECSV + TYPES + b"id ra dec\n", b"0").items()},
        **{f"quotes{k}": v for k, v in endless(ECSV + TYPES + b'id ra dec\n1 2 "', b"0\n").items()},
        "laughs": ECSV + LAUGHS + TYPES + b"id ra dec\n1 2 3\n",
        "nested": ECSV + b"# meta: " + b"[" * 5_000 + b"\nid ra dec\n1 2 3\n",
    },
    "fits": {
        "header": NO_END * 1_000,
        "header.gz": Zipped([(NO_END, 1), (b" " * 2880 * 300, 20_000)]),
        "wide": fits_table(NAXIS1=10**15),
        "long": fits_table(NAXIS2=10**15),
        "fields": fits_table(TFIELDS=10**9),
        "form": fits_table(TFORM3="'2000000000D'"),
        "heap": fits_table(PCOUNT=10**15, NAXIS2=3 * 10**9),
        "negative": fits_table(NAXIS2=-1),
        "no_number": fits_table(NAXIS1="'24'"),
        "no_bytes": fits_table(NAXIS1=0, NAXIS2=10**15),
        "axes": header(card("SIMPLE", "T"), card("BITPIX", 8), card("NAXIS", 10**9)),
        "image": PRIMARY + header(*(card(k, v) for k, v in IMAGE.items())) + bytes(2880),
        "image.gz": Zipped(
            [(PRIMARY + header(*(card(k, v) for k, v in IMAGE.items())), 1), (bytes(MIB), 20_000)]
        ),
        "rows.gz": Zipped([(fits_table(NAXIS2=10**12), 1), (bytes(MIB), 20_000)]),
        "truncated": fits_table(NAXIS2=10**6),
    },
}


def test_what_asks_for_too_much_is_one_line_at_once(tmp_path: Path) -> None:
    """All in one process, whose imports take longer than its answers."""
    paths = []
    for form, contents in HOSTILE.items():
        for name, content in contents.items():
            stem, _, suffix = name.partition(".")
            paths.append(tmp_path / f"{stem}.{form}{suffix and '.'}{suffix}")
            if isinstance(content, Zipped):
                content.write_to(paths[-1])
            else:
                paths[-1].write_bytes(content)
    words = ["python", "-c", READER, *map(str, paths)]
    ended = run_limited(words, memory=550_000_000, seconds=300, disk=MIB)
    lines = ended.out.splitlines()
    assert (ended.code, ended.err, len(lines)) == (0, "", len(paths))
    for line, path in zip(lines, paths, strict=True):
        assert line.split(" ", 1)[1].startswith(f"{path}: "), line
        assert len(line) < 800
        assert float(line.split()[0]) < 30, line
