"""No table makes us read, or ask for, what its user did not name."""

from __future__ import annotations

import base64
import contextlib
import gzip
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from deblend_batch.detections.formats.scan import scan_table
from deblend_batch.detections.table import read_detections
from deblend_batch.errors import DetectionsError
from tests.limited import run_limited

FIELDS = "".join(
    f'<FIELD name="{name}" datatype="{kind}"/>'
    for name, kind in (("id", "long"), ("ra", "double"), ("dec", "double"))
)
ROW = np.array([(7, 150.0, 2.0)], dtype=">i8,>f8,>f8").tobytes()


@dataclass(frozen=True)
class Door:
    """A port on which nobody is expected."""

    listener: socket.socket

    @property
    def address(self) -> str:
        return "127.0.0.1:{1}".format(*self.listener.getsockname())

    def was_knocked_at(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def door() -> Iterator[Door]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Door(listener)


def document(data: str, *, before: str = "", prefix: str = "") -> str:
    made = f'<VOTABLE version="1.4"><RESOURCE><TABLE>{FIELDS}<DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>'
    if prefix:
        made = (
            made.replace("</", "<//")
            .replace("<", f"<{prefix}:")
            .replace(f"<{prefix}://", f"</{prefix}:")
        )
        made = made.replace(f"<{prefix}:VOTABLE", f'<{prefix}:VOTABLE xmlns:{prefix}="urn:v"', 1)
    return f"{before}{made}"


def stream(attributes: str, kind: str = "BINARY") -> str:
    return f"<{kind}><STREAM {attributes}></STREAM></{kind}>"


HTTP = "http://DOOR/rows"
DOCUMENTS = {
    "http": document(stream(f'href="{HTTP}"')),
    "binary2": document(stream(f'href="{HTTP}" encoding="gzip"', "BINARY2")),
    "fits": document(stream(f'href="{HTTP}"', "FITS")),
    "parquet": document(f'<PARQUET type="VOTable-remote-file"><STREAM href="{HTTP}"/></PARQUET>'),
    "file": document(stream('href="file://SECRET" encoding="base64"')),
    "no scheme": document(stream('href="SECRET"')),
    "ftp": document(stream('href="ftp://DOOR/rows"')),
    "httpg": document(stream('href="httpg://DOOR/rows"')),
    "gopher": document(stream('href="gopher://DOOR/rows"')),
    "upper case": document(stream(f'HREF="{HTTP}"')),
    "single quotes": document(stream(f"type='locator'\n\thref\n=\n'{HTTP}'")),
    "prefix of the attribute": document(stream(f'xmlns:xlink="urn:x" xlink:href="{HTTP}"')),
    "prefix of all elements": document(stream(f'href="{HTTP}"'), prefix="v"),
    "character references": document(stream('href="&#104;ttp://DOOR/rows"')),
    "after inline rows": document(
        stream('encoding="base64"').replace("></", f">{base64.b64encode(ROW).decode()}</", 1)
        + stream(f'href="{HTTP}"')
    ),
    "in a resource without a table": document("").replace(
        "</RESOURCE>", f'</RESOURCE><RESOURCE><STREAM href="{HTTP}"/></RESOURCE>'
    ),
    "inclusion": document(
        f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{HTTP}" parse="text"/>'
    ),
    "stylesheet": document("", before=f'<?xml-stylesheet type="text/xsl" href="{HTTP}"?>'),
    "model": document("", before=f'<?xml-model href="{HTTP}"?>'),
    "document type": document("", before=f'<!DOCTYPE VOTABLE SYSTEM "{HTTP}">'),
    "external entity": document(
        "<TABLEDATA><TR><TD>&x;</TD><TD>1</TD><TD>1</TD></TR></TABLEDATA>",
        before='<!DOCTYPE v [<!ENTITY x SYSTEM "file://SECRET">]>',
    ),
    "href in an entity": document(
        stream('href="&x;"'), before=f'<!DOCTYPE v [<!ENTITY x "{HTTP}">]>'
    ),
    "parameter entity": document("", before=f'<!DOCTYPE v [<!ENTITY % p SYSTEM "{HTTP}"> %p;]>'),
    "billion laughs": document(
        "<TABLEDATA><TR><TD>&b9;</TD><TD>1</TD><TD>1</TD></TR></TABLEDATA>",
        before="<!DOCTYPE v [<!ENTITY b0 '1'>"
        + "".join(f"<!ENTITY b{n} '{f'&b{n - 1};' * 10}'>" for n in range(1, 10))
        + "]>",
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("coding", ["utf-8", "utf-16", "gzip"])
def test_a_document_that_refers_to_anything_is_refused(
    name: str, coding: str, door: Door, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(ROW)
    text = DOCUMENTS[name].replace("DOOR", door.address).replace("SECRET", str(secret))
    content = gzip.compress(text.encode()) if coding == "gzip" else text.encode(coding)
    (tmp_path / "a.vot").write_bytes(content)
    message = r"a\.vot: .*(no reference out of a table is followed|remove the DOCTYPE)"
    with pytest.raises(DetectionsError, match=message) as caught:
        list(scan_table(f"{tmp_path}/a.vot", lambda names: names))
    assert "\n" not in str(caught.value)
    assert not door.was_knocked_at()


def test_the_command_line_ends_with_2(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "a.vot"
    path.write_text(DOCUMENTS["http"].replace("DOOR", door.address))
    ended = run_limited(["deblend-batch", "evaluate", "--paper-table", str(path)])
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert not door.was_knocked_at()


@pytest.mark.parametrize(
    "harmless",
    [
        '<LINK href="http://127.0.0.1:9/about" content-role="doc"/>',
        '<INFO name="source" value="http://127.0.0.1:9/about"/>',
        '<DESCRIPTION>see <a href="http://127.0.0.1:9/about">there</a></DESCRIPTION>',
        '<!-- href="http://127.0.0.1:9/about" --><?pi nothing?>',
    ],
)
def test_references_that_are_for_people_may_stay(harmless: str, tmp_path: Path) -> None:
    text = document("<TABLEDATA><TR><TD>7</TD><TD>150</TD><TD>2</TD></TR></TABLEDATA>")
    text = text.replace("<TABLE>", f"<TABLE>{harmless}")
    (tmp_path / "a.vot").write_text(
        '<?xml version="1.0"?>'
        + text.replace("<VOTABLE", '<VOTABLE xmlns="http://www.ivoa.net/xml/VOTable/v1.3"')
    )
    (part,) = read_detections(f"{tmp_path}/a.vot")
    assert part.id.tolist() == [7]


def test_members_of_a_fits_group_are_names_and_nothing_else(door: Door, tmp_path: Path) -> None:
    secret = tmp_path / "secret.fits"
    columns = [
        fits.Column("id", "K", array=[1, 2]),
        fits.Column("ra", "D", array=[150.0, 150.1]),
        fits.Column("dec", "D", array=[2.0, 2.1]),
        fits.Column("MEMBER_URI_TYPE", "3A", array=["URL", "URL"]),
        fits.Column(
            "MEMBER_LOCATION", "80A", array=[f"http://{door.address}/m", f"file://{secret}"]
        ),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="GROUPING")
    table.header["GRPNAME"] = "all"
    table.header["GRPID1"] = -1
    table.header["GRPLC1"] = table.header["GRPLOC1"] = f"http://{door.address}/group.fits"
    table.writeto(tmp_path / "a.fits")
    (part,) = read_detections(f"{tmp_path}/a.fits")
    assert part.id.tolist() == [1, 2]
    assert not door.was_knocked_at()


@pytest.mark.parametrize(
    "line",
    [
        "!!python/object/apply:os.system [touch MARK]",
        "!include SECRET",
        "!astropy.table.SerializedColumn {__class__: os.system, command: touch MARK}",
        "{__serialized_columns__: {id: {__class__: subprocess.getoutput, cmd: touch MARK}}}",
        "{__serialized_columns__: {id: {__class__: builtins.open, file: MARK, mode: w}}}",
    ],
)
def test_an_ecsv_header_makes_no_objects(line: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    fields = "".join(f"# - {{name: {n}, datatype: float64}}\n" for n in ("ra", "dec"))
    (tmp_path / "a.ecsv").write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: id, datatype: int64}\n"
        f"{fields}# meta: {line.replace('MARK', str(mark)).replace('SECRET', '/etc/hostname')}\n"
        "id ra dec\n1 150 2\n"
    )
    with contextlib.suppress(DetectionsError):
        list(read_detections(f"{tmp_path}/a.ecsv"))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["a.asdf", "a", "a.csv"])
def test_asdf_is_not_read(name: str, door: Door, tmp_path: Path) -> None:
    text = f"#ASDF 1.0.0\n%YAML 1.1\n--- !core/asdf-1.1.0\nid: {{$ref: 'http://{door.address}/i'}}\n...\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(DetectionsError, match=f"{name}: is ASDF; unpack or convert it"):
        list(read_detections(f"{tmp_path}/{name}"))
    assert not door.was_knocked_at()
