"""The site builds without a warning, has every page that it lists, and loads nothing from the network."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REMOTE = re.compile(r"""<(?:link|script|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
needs_mkdocs = pytest.mark.skipif(
    not (find_spec("mkdocs") and find_spec("material") and find_spec("mkdocstrings")),
    reason="mkdocs is not installed; the extra docs brings it",
)


class Loader(yaml.SafeLoader):
    """Reads `mkdocs.yml`, in which a tag may name a Python function."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def pages_of(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages_of(value)


NAV = list(pages_of(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]))


def test_every_page_of_the_navigation_exists():
    assert [page for page in NAV if not (ROOT / "docs" / page).exists()] == []
    assert len(set(NAV)) == len(NAV)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder of the site, and how the build went; without --quiet, which would hide warnings from --strict."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    return out, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@needs_mkdocs
def test_the_site_builds_without_a_warning(built):
    _, done = built
    warnings = [line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR"))]
    assert done.returncode == 0, "\n".join(warnings) or done.stderr


@needs_mkdocs
def test_the_site_has_a_page_for_every_entry_of_the_navigation(built):
    site, _ = built
    assert [page for page in NAV if not (site / page).with_suffix(".html").exists()] == []


@needs_mkdocs
def test_no_page_loads_anything_from_the_network(built):
    site, _ = built
    assert list(site.rglob("*.html"))
    remote = {
        path.name: found[0]
        for path in site.rglob("*.html")
        for found in [REMOTE.search(path.read_text("utf-8"))]
        if found
    }
    assert not remote
    assert not [
        path for path in site.rglob("*.css") if re.search(r"(?:url\(|@import)\s*[\"']?https?:", path.read_text("utf-8"))
    ]


@pytest.mark.parametrize(
    ("tag", "remote"),
    [
        ('<link rel="stylesheet" href="https://fonts.example/css">', True),
        ('<script src="//cdn.example/x.js"></script>', True),
        ('<img alt="a" src="http://example/x.png">', True),
        ('<img alt="a" src="images/x.png">', False),
        ('<a href="https://example">', False),
    ],
)
def test_what_counts_as_remote(tag, remote):
    assert bool(REMOTE.search(tag)) is remote
