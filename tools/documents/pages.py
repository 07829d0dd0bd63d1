"""Fill in the generated tables of the pages, and write the page of the command line."""

import re
from collections.abc import Iterable
from pathlib import Path

from documents.command_line import describe_commands
from documents.fields import fields_pages
from documents.records import ROOT
from documents.tables import TABLES

COMMAND_LINE = Path("docs/reference/command-line.md")
LAB_NOTES = Path("docs/lab-notes")

_MARKERS = re.compile(r"^<!-- table: (.*?) -->\n(.*?)^<!-- /table -->$", re.MULTILINE | re.DOTALL)
_ANY_MARKER = re.compile(r"^\s*<!-- (?:table: .*?|/table) -->", re.MULTILINE)


class UnknownTableError(Exception):
    """A page asks for a table that there is not, or one of its markers stands alone."""


def find_pages(root: Path = ROOT) -> list[Path]:
    """The pages that may hold tables, relative to the root: the front page and the site without its lab notes."""
    site = (path.relative_to(root) for path in sorted((root / "docs").rglob("*.md")))
    return [Path("README.md"), *(path for path in site if LAB_NOTES not in path.parents)]


def names_in(text: str) -> list[str]:
    r"""The tables that a page asks for.

    >>> names_in("<!-- table: headline -->\n<!-- /table -->\n")
    ['headline']
    """
    return [found[1] for found in _MARKERS.finditer(text)]


def fill_tables(text: str, page: Path) -> str:
    """The page with every pair of markers filled in.

    Raises:
        UnknownTableError: a name is not in `TABLES`, or a marker has no partner.
    """
    if len(_ANY_MARKER.findall(text)) != 2 * len(names_in(text)):
        raise UnknownTableError(
            f"{page}: a marker of a table has no partner; write <!-- table: NAME --> and <!-- /table --> on lines alone"
        )
    for name in names_in(text):
        if name not in TABLES:
            raise UnknownTableError(f"{page}: there is no table {name!r}; there are {', '.join(TABLES)}")

    def fill(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n\n{TABLES[found[1]]().to_markdown()}\n<!-- /table -->"

    return _MARKERS.sub(fill, text)


def make_pages(root: Path = ROOT) -> dict[Path, str]:
    """Every page with generated parts, as it should read; paths relative to the root."""
    pages = {page: fill_tables((root / page).read_text(encoding="utf-8"), page) for page in find_pages(root)}
    with_tables = {page: text for page, text in pages.items() if names_in(text)}
    return with_tables | {COMMAND_LINE: describe_commands()} | fields_pages(root)


def find_changes(pages: dict[Path, str], root: Path = ROOT) -> dict[Path, str]:
    """Those pages that read differently now."""
    return {page: text for page, text in pages.items() if _read(root / page) != text}


def write_pages(pages: dict[Path, str], root: Path = ROOT) -> Iterable[Path]:
    """Write these pages, and name each."""
    for page, text in pages.items():
        (root / page).parent.mkdir(parents=True, exist_ok=True)
        (root / page).write_text(text, encoding="utf-8", newline="\n")
        yield page


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
