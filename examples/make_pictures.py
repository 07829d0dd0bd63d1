"""Make the pictures of the gallery and the outputs of the notebook again: `python examples/make_pictures.py`.

Needs the extra `notebook`, and torch for the simulated gliomas. Names of gallery scripts, or `in_memory`, may be given
as arguments; by default all are run.
"""

import base64
import io
import re
import runpy
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

EXAMPLES = Path(__file__).parent
NOTEBOOK = EXAMPLES / "in_memory.ipynb"
PICTURES = EXAMPLES.parent / "docs" / "images" / "gallery"
WIDTH, COLOURS = 900, 96


def execute(notebook: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs, run in its own folder with the interpreter of this script."""
    book = nbformat.read(notebook, as_version=4)
    where = {"metadata": {"path": str(notebook.parent)}}
    NotebookClient(book, timeout=600, kernel_name="python3", resources=where, record_timing=False).execute()
    return book


def shrink(book: nbformat.NotebookNode) -> None:
    """Make the pictures of a notebook small, and keep none of the text that a picture replaces."""
    for output in (output for cell in book.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        if "text/html" in data:
            data["text/html"] = re.sub("(?<=base64,)[^']+", lambda found: smaller(found[0]), data["text/html"])
            del data["text/plain"]
        if "image/png" in data:
            data["image/png"] = smaller(data["image/png"])


def smaller(png: str) -> str:
    """A PNG in base64, narrower and in few colours if it is wide."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    if picture.width <= WIDTH:
        return png
    picture, memory = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width))), io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(memory, "PNG", optimize=True)
    return base64.b64encode(memory.getvalue()).decode()


def main(names: list[str]) -> None:
    """Run what is named, or everything."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for script in sorted((EXAMPLES / "gallery").glob("*.py")):
        if not names or script.stem in names:
            runpy.run_path(str(script))["main"](PICTURES)
    if not names or NOTEBOOK.stem in names:
        book = execute(NOTEBOOK)
        shrink(book)
        book.metadata.pop("language_info", None)
        nbformat.write(book, NOTEBOOK)


if __name__ == "__main__":
    main(sys.argv[1:])
