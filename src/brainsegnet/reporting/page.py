"""A page that holds all it shows: HTML with its pictures and styles inside, to read offline, mail or print.

What stands on it is data; `report.html.j2` writes the HTML. It is well-formed XML too, and holds no script and no
address of anything outside.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from brainsegnet.metrics.table import Table


@dataclass(frozen=True)
class Tiles:
    """Large figures side by side: each a name, the figure, and a line below."""

    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Facts:
    """Names and what is known of each, below a heading if there is one."""

    rows: Sequence[tuple[str, str]]
    heading: str = ""


@dataclass(frozen=True)
class Listing:
    """Commands as they are typed."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Charts:
    """Drawings of `inline_svg` side by side, each with a heading above that may be empty."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A PNG, if there is one, what it shows for readers who do not see it, and a name and a line below."""

    png: bytes | None
    alternative: str
    name: str
    line: str

    @property
    def source(self) -> str:
        """The PNG as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png or b'').decode('ascii')}"


Part = Table | Tiles | Facts | Listing | Charts | Picture


@dataclass(frozen=True)
class Section:
    """A titled part of the page, with fainter sentences below."""

    title: str
    parts: Sequence[Part] = ()
    notes: Sequence[str] = ()


def render_page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page as HTML.

    Args:
        title: Heading, and title of the window.
        subtitle: A line below it.
        sections: What the page shows, in this order.
        footer: Last line.

    >>> render_page("Run 1", "", [Section("Card", [Facts([("name", "<mine>")])])], "").count("&lt;mine&gt;")
    1
    """
    from jinja2 import Environment, StrictUndefined

    home = files("brainsegnet.reporting")
    writer = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = writer.from_string(home.joinpath("report.html.j2").read_text(encoding="utf-8"))
    style = home.joinpath("report.css").read_text(encoding="utf-8")
    content = {"title": title, "subtitle": subtitle, "sections": sections, "footer": footer, "style": style}
    return template.render(content, kind=lambda part: type(part).__name__)
