"""What the documents tell a reader to type exists, with these flags; and the files that they name are there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from brainsegnet.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.yaml")),
]


def leaves(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb, those of groups too."""
    for name in group:
        if name.startswith("-"):
            continue
        if group[name].default_command is None:
            yield from leaves(group[name], (*path, name))
        else:
            yield *path, name


def command_of(verb: tuple[str, ...]) -> App:
    found = app
    for name in verb:
        found = found[name]
    return found


VERBS = list(leaves(app))
DOCSTRINGS = {verb: str(command_of(verb).default_command.__doc__) for verb in VERBS}


def commands_in(text: str) -> list[str]:
    """Lines of a listing, of a comment in YAML, or of an example of a docstring."""
    whole = text.replace("\\\n", " ")
    return re.findall(r"^(?:    |#   )?(?: *Example: )?(brainsegnet [a-z].*)$", whole, re.MULTILINE)


def parse(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_commands_are_found():
    assert len(commands_in((ROOT / "README.md").read_text())) >= 5
    assert all(commands_in(text) for text in DOCSTRINGS.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_can_be_typed(page):
    for command in commands_in(page.read_text(encoding="utf-8")):
        parse(command)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_example_of_a_verb_can_be_typed(verb):
    for command in commands_in(DOCSTRINGS[verb]):
        parse(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_script_that_a_page_names_is_there(page):
    scripts = re.findall(r"\b(?:benchmarks|examples)/[\w./-]+\.\w+", page.read_text(encoding="utf-8"))
    assert not [script for script in scripts if not (ROOT / script).exists()]
