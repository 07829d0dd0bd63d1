"""Figures as bytes: files that are the same each time, and SVG that stands inside HTML."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from brainsegnet._atomic import replacing
from brainsegnet.errors import OutputError

_METADATA: Mapping[str, Mapping[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""By format, the entries that would tell the version or the hour."""
_REFERENCE = re.compile(r"(?:^|(?<=url\())#")
_FONT = re.compile(r"font-family:[^;]*; ?")


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a PNG or an SVG whole or not at all; the same figure gives the same bytes.

    Args:
        figure: What to draw.
        path: Where to; an older file is replaced.
        dpi: Pixels per inch.

    Raises:
        OutputError: the file cannot be written, or is not called .png or .svg.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise OutputError(f"picture {path} is neither .png nor .svg, the formats of pictures; call it {path.stem}.png")
    with replacing(path) as part:
        part.write_bytes(render(figure, kind, dpi))


def render(figure: Figure, kind: str, dpi: int = 150) -> bytes:
    """A figure as the bytes of a file, `png` or `svg`; the same figure gives the same bytes."""
    memory = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "brainsegnet"}):
        figure.savefig(memory, format=kind, dpi=dpi, facecolor=figure.get_facecolor(), metadata=_METADATA[kind])
    return memory.getvalue()


def inline_svg(figure: Figure, name: str, label: str, titles: Mapping[str, Sequence[str]] | None = None) -> str:
    """A figure as an SVG element that stands inside HTML: as wide as its place, its text in the font of the page.

    Args:
        figure: What to draw.
        name: Starts the ids of the element, so that several elements stand in one page.
        label: What the figure shows, for readers who do not see it.
        titles: `gid` of a line to a text for each of its markers, which shows under the pointer.

    >>> inline_svg(Figure(figsize=(2, 1)), "empty", "nothing")[:74]
    '<svg viewBox="0 0 144 72" style="stroke-linejoin: round" role="img" aria-l'
    """
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        root = ElementTree.fromstring(render(figure, "svg"))
    _strip(root)
    for gid, texts in (titles or {}).items():
        markers = root.iterfind(f".//g[@id='{gid}']//use")
        for marker, text in zip(markers, texts, strict=True):
            ElementTree.SubElement(marker, "title").text = text
    for element in root.iter():
        if element.tag not in ("path", "clipPath"):
            element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            element.set(key, f"{name}-{value}" if key == "id" else _REFERENCE.sub(f"#{name}-", value))
    shape = {"viewBox": root.attrib["viewBox"], "style": "stroke-linejoin: round"}
    root.attrib = shape | {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def literal(text: str) -> str:
    """Dollar signs as themselves: matplotlib would set what lies between two of them as a formula."""
    return text.replace("$", r"\$")


def _strip(root: ElementTree.Element) -> None:
    """Take out of an SVG file what is of no use inside HTML: namespaces, metadata, styles of the whole page."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _FONT.sub("", value) for key, value in element.attrib.items()}
        element.text, element.tail = (element.text or "").strip(), None
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
