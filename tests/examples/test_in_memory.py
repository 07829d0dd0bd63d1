"""The notebook runs, and what is stored in it is what it computes, small and without a trace of the machine."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "in_memory.ipynb"
LARGEST = 400_000
"""Bytes of the notebook."""


def cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def texts(cells):
    """The text that each cell gives, apart from pictures."""
    found = []
    for output in (output for cell in cells for output in cell["outputs"]):
        data = output.get("data", {})
        if not {"text/html", "image/png"} & set(data):
            found.append("".join(output.get("text") or data["text/plain"]).strip())
    return found


def test_it_holds_its_outputs_and_nothing_of_a_machine():
    assert NOTEBOOK.stat().st_size <= LARGEST
    words = "\n".join([*texts(cells()), *("".join(cell["source"]) for cell in cells())])
    assert not re.search(r"/(home|root|work|tmp|Users)/|[A-Z]:\\", words)
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    assert any("text/html" in output.get("data", {}) for cell in cells() for output in cell["outputs"])
    assert any("image/png" in output.get("data", {}) for cell in cells() for output in cell["outputs"])


def test_it_runs_and_gives_what_is_stored():
    for library in ("nbclient", "ipykernel", "nbformat"):
        pytest.importorskip(library, reason=f'{library} is not installed; pip install ".[notebook]"')
    spec = importlib.util.spec_from_file_location("make_pictures", NOTEBOOK.parent / "make_pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    book = module.execute(NOTEBOOK)
    ours, stored = texts([cell for cell in book.cells if cell.cell_type == "code"]), texts(cells())
    assert [strip_numbers(text) for text in ours] == [strip_numbers(text) for text in stored]
    for mine, theirs in zip(map(numbers, ours), map(numbers, stored), strict=True):
        assert mine == pytest.approx(theirs, rel=0.02, abs=0.5)  # processors round differently


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


def strip_numbers(text):
    return re.sub(r"\d+\.\d+", "", text).split()
