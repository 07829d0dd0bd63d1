"""A page that holds all it shows: HTML with its pictures and styles inside, to read offline, mail or print.

It is XHTML as well, so an XML parser reads it; it holds no script and no address of anything outside.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

Cell = str | tuple[str, str]
"""A figure, or a figure and a fainter line below it."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        body: HTML.
        notes: Fainter sentences below.
    """

    title: str
    body: str
    notes: Sequence[str] = ()


def page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The whole page.

    Args:
        title: Heading, and title of the window.
        subtitle: A line below it.
        sections: What it shows, in this order.
        footer: Last line.

    >>> page("Run 1", "", [Section("Scores", "<p>0.86</p>")], "").count("<section")
    1
    """
    style = files("brainsegnet.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#part{number}">{escape(part.title)}</a>\n' for number, part in enumerate(sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p>{escape(subtitle)}</p>
<nav>
{links}</nav>
</header>
{"".join(_section(number, part) for number, part in enumerate(sections))}<footer>{escape(footer)}</footer>
</main>
</body>
</html>
"""


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Large figures side by side, each with a name above and a line below."""
    parts = (
        f'<div class="tile"><span class="name">{escape(name)}</span><b>{escape(figure)}</b>'
        f"<span>{escape(line)}</span></div>\n"
        for name, figure, line in figures
    )
    return f'<div class="tiles">\n{"".join(parts)}</div>\n'


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], words: int = 1) -> str:
    """A table whose first columns hold words and are flush left; figures are flush right.

    >>> print(table(["Region", "Dice"], [["whole", ("0.86", "0.80 to 0.90")]]).splitlines()[-3])
    <tr><td class="word">whole</td><td>0.86<br/><small>0.80 to 0.90</small></td></tr>
    """
    heads = "".join(f"<th{_word(place < words)}>{escape(heading)}</th>" for place, heading in enumerate(headings))
    lines = ["".join(f"<td{_word(place < words)}>{_cell(c)}</td>" for place, c in enumerate(row)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>\n'


def facts(rows: Sequence[Sequence[str]]) -> str:
    """Names and what is known under them."""
    body = "\n".join(f'<tr><td class="word">{escape(n)}</td><td class="word">{escape(v)}</td></tr>' for n, v in rows)
    return f'<table class="facts">\n<tbody>\n{body}\n</tbody>\n</table>\n'


def picture(data: bytes, kind: str, alternative: str, caption: str = "", style: str = "") -> str:
    """A PNG or SVG inside the page.

    Args:
        data: Bytes of the file.
        kind: `png` or `svg`.
        alternative: What it shows, for those who do not see it.
        caption: HTML below it.
        style: Class of the figure.
    """
    media = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    source = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
    below = f"\n<figcaption>{caption}</figcaption>" if caption else ""
    start = f'<figure class="{style}">' if style else "<figure>"
    return f'{start}<img alt="{escape(alternative)}" src="{source}"/>{below}</figure>\n'


def listing(lines: Sequence[str]) -> str:
    """Commands as they are typed."""
    return f"<pre>{escape(chr(10).join(lines), quote=False)}</pre>\n"


def _section(number: int, part: Section) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in part.notes)
    below = f'<ul class="notes">{notes}</ul>\n' if notes else ""
    return f'<section id="part{number}">\n<h2>{escape(part.title)}</h2>\n{part.body}{below}</section>\n'


def _word(is_word: bool) -> str:
    return ' class="word"' if is_word else ""


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    figure, line = cell
    return f"{escape(figure)}<br/><small>{escape(line)}</small>" if line else escape(figure)
