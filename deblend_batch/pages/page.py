"""One self-contained HTML page from sections of text, numbers, tables and figures.

Every report of the package is rendered here, so that they look alike: no scripts, no remote files,
readable at the width of a phone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from deblend_batch.text import printable_lines
from deblend_batch.version import __version__

_ONE_NUMBER = r"[+−±<>~≥≤-]? ?\d[\d., ]*(e[+-]?\d+)?"
_NUMBER = re.compile(rf"({_ONE_NUMBER}( to {_ONE_NUMBER})?([^\d\w]?\D{{0,5}})?|nan|inf|–|)")


@dataclass(frozen=True)
class Number:
    """A headline number, shown as a card.

    Parameters
    ----------
    label : str
        What the number is.
    value : str
        The number as it is to be read, with its unit.
    note : str
        A short qualification under it.
    colour : str
        Of the card's edge, as ``#rrggbb``: that of the same thing in figures. The page's own if empty.
    """

    label: str
    value: str
    note: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text; columns of numbers are recognised and set flush right.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : sequence of sequence of str
        Cells, as many per row as there are headings.
    caption : str
        What the rows are; shown above the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table row {row!r} has {len(row)} cells, not {len(self.columns)}")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers (or ranges of them) only; never the first, which names the row."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        return (False, *(all(map(_NUMBER.fullmatch, column)) for column in columns[1:]))

    def to_text(self) -> str:
        """Return the table as aligned plain text, its caption first."""
        grid = [tuple(self.columns), *map(tuple, self.rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*grid, strict=True)]
        rule = "  ".join("-" * width for width in widths)
        lines = ["  ".join(self._aligned(row, widths)).rstrip() for row in grid]
        return "\n".join(filter(None, [self.caption, lines[0], rule, *lines[1:]]))

    def _aligned(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        columns = zip(row, widths, self.numeric, strict=True)
        return [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in columns]


@dataclass(frozen=True)
class Figure:
    """A picture inside the page.

    Parameters
    ----------
    png : bytes
        The picture.
    alt : str
        What it shows, for those who cannot see it.
    caption : str
        What to read off it.
    wide : bool
        Whether it takes the whole width of a desktop page rather than one column of two.
    """

    png: bytes
    alt: str
    caption: str = ""
    wide: bool = False

    @property
    def data_uri(self) -> str:
        """The picture as a ``data:`` URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Section:
    """One part of a page; what is empty is left out.

    Parameters
    ----------
    title : str
        Heading, unique in the page.
    text : str
        Plain text; a blank line starts a paragraph.
    numbers : sequence of Number
        Cards.
    table : Table or sequence of Table, optional
        Tables, shown below the cards.
    figures : sequence of Figure
        Figures, shown last, two in a row where the page is wide enough.
    """

    title: str
    text: str = ""
    numbers: Sequence[Number] = ()
    table: Table | Sequence[Table] | None = None
    figures: Sequence[Figure] = ()

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def paragraphs(self) -> list[str]:
        """The text, split at blank lines."""
        return [part.strip() for part in re.split(r"\n\s*\n", self.text) if part.strip()]

    @property
    def tables(self) -> Sequence[Table]:
        """The tables, none or more."""
        if self.table is None:
            return ()
        return (self.table,) if isinstance(self.table, Table) else self.table


def render_page(title: str, subtitle: str, sections: Sequence[Section], footer: str = "") -> str:
    """Render a self-contained HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deblend_batch.pages", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable_lines(value) if type(value) is str else value,
    )
    template = environment.get_template("page.html")
    return template.render(
        title=title, subtitle=subtitle, sections=sections, footer=footer, version=__version__
    )
