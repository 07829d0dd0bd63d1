"""Each script of the gallery makes its picture and is on the page, with a picture that is small."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
PICTURES = ROOT / "docs" / "images" / "gallery"
SCRIPTS = sorted((ROOT / "examples" / "gallery").glob("*.py"))
TORCH = "simulator"
LARGEST = 120_000
"""Bytes of a picture."""


def load(script):
    spec = importlib.util.spec_from_file_location(f"gallery_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_makes_its_picture(script, one_thread, tmp_path):
    if script.stem == TORCH:
        pytest.importorskip("torch")
    load(script).main(tmp_path)
    (picture,) = tmp_path.iterdir()
    assert picture.name == f"{script.stem}.webp"
    with Image.open(picture) as made, Image.open(PICTURES / picture.name) as shown:
        assert made.size == shown.size and made.convert("L").getextrema()[1] > 200


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_short_and_says_what_it_shows(script):
    text = script.read_text(encoding="utf-8")
    title, *rest = ast.get_docstring(ast.parse(text)).splitlines()
    assert title.endswith(".") and len(rest) >= 2
    assert len(text.splitlines()) <= 45


def test_the_page_shows_every_script_with_its_picture():
    names = {script.stem for script in SCRIPTS}
    assert set(re.findall(r'--8<-- "examples/gallery/(\w+)\.py"', PAGE)) == names
    assert set(re.findall(r"\(images/gallery/(\w+)\.webp\)", PAGE)) == names
    assert {path.stem for path in PICTURES.iterdir()} == names
    assert all(path.stat().st_size <= LARGEST for path in PICTURES.iterdir())
