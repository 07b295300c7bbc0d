from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from deblend_batch.pages.page import Figure, Number, Section, Table, render_page
from deblend_batch.version import __version__

PNG = b"\x89PNG\r\n\x1a\n"


class Tags(HTMLParser):
    """Collects tags and fails on ones that are not closed."""

    VOID = ("meta", "img", "br", "hr", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, tag: str, attribute: str) -> list[str | None]:
        return [
            attrs[attribute] for name, attrs in self.found if name == tag and attribute in attrs
        ]


def _page(**changes: object) -> str:
    values = {
        "text": "First.\n\nSecond.",
        "numbers": [Number("pairs", "12", "of 13")],
        "table": Table(["name", "n"], [["a", "1"], ["b", "–"]], "Rows."),
        "figures": [Figure(PNG, "a sky", "The sky.", wide=True)],
    }
    section = Section("The numbers", **(values | changes))  # type: ignore[arg-type]
    return render_page("Title", "subtitle", [section], footer="made today")


def test_the_page_is_well_formed_and_whole() -> None:
    page = _page()
    assert Tags(page).open == []
    for text in ("First.", "Second.", "of 13", "Rows.", "The sky.", "made today", __version__):
        assert text in page


def test_the_page_refers_to_nothing_outside_itself() -> None:
    tags = Tags(_page())
    assert all(str(uri).startswith("data:image/png;base64,") for uri in tags.values("img", "src"))
    assert not [tag for tag, _ in tags.found if tag in {"script", "link", "iframe"}]
    assert not re.search(r"https?://|@import|url\(", _page())


def test_links_lead_to_sections() -> None:
    sections = [Section(title) for title in ("One", "Two & three", "Four (4)")]
    tags = Tags(render_page("T", "s", sections))
    assert tags.values("a", "href") == [f"#{anchor}" for anchor in tags.values("section", "id")]


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "<script>x</script>"},
        {"numbers": [Number("<script>", "<script>", "<script>")]},
        {"table": Table(["<script>"], [["<script>"]], "<script>")},
        {"figures": [Figure(PNG, '"><script>', "<script>")]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_all_text_is_escaped(changes: dict[str, object]) -> None:
    assert "<script" not in _page(**changes)


def test_what_is_empty_is_left_out() -> None:
    tags = Tags(render_page("T", "s", [Section("Only")]))
    assert not {"table", "figure", "p", "nav"} & {tag for tag, _ in tags.found[:-1]} - {"p"}
    assert "cards" not in tags.values("div", "class")


@pytest.mark.parametrize(
    ("cell", "numeric"),
    [
        ("12", True),
        ("-0.25", True),
        ("+0.015", True),
        ("12.4 %", True),
        ("1,234", True),
        ("1e-05", True),
        ("3.2 GB", True),
        ("0.1 to 0.2", True),
        ("–", True),
        ("", True),
        ("nan", True),
        ("blend2flux", False),
        ("t0001-0002", False),
        ("3 of 4 pairs", False),
    ],
)
def test_columns_of_numbers_are_recognised(cell: str, numeric: bool) -> None:
    assert Table(["name", "x"], [["a", cell]]).numeric == (False, numeric)


def test_a_table_as_text_is_aligned() -> None:
    text = Table(["name", "n"], [["long name", "7"], ["b", "123"]], "Caption.").to_text()
    assert text.splitlines() == [
        "Caption.",
        "name         n",
        "---------  ---",
        "long name    7",
        "b          123",
    ]


def test_a_table_without_rows_is_shown() -> None:
    assert Table(["a", "b"], []).to_text() == "a  b\n-  -"


def test_a_row_must_have_a_cell_per_column() -> None:
    with pytest.raises(ValueError, match="has 1 cells, not 2"):
        Table(["a", "b"], [["x"]])
