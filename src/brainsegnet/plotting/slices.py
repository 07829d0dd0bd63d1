"""Choose and cut the slices of a case that are shown; write figures as files, and as SVG within HTML.

Slices are turned by the affine into the radiological view, independent of the order of the file: the patient's right is
at the left of the picture. The nose is up in axial slices and at the left in sagittal ones.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brainsegnet._atomic import replacing
from brainsegnet._types import Affine, Array, Mask
from brainsegnet.errors import OutputError
from brainsegnet.plotting.marks import Marks, name_direction, name_position
from brainsegnet.preprocessing.foreground import find_air
from brainsegnet.preprocessing.geometry import Turn, find_turn, turn, turn_array
from brainsegnet.volume import Box, Volume

Picture = NDArray[np.float64]
"""(H, W) or (H, W, 3), between 0 and 1."""
Rgb = tuple[float, float, float]
Views = Literal["auto", "planes", "slices", "slice"]
"""One "slice", three parallel "slices", the three "planes"; "auto": planes unless the slices of the scan are thick."""

MARGIN_VOXELS = 4
THICK = 2.5
"""Slices this many times as far apart as their pixels make poor pictures in the other planes."""
_METADATA: Mapping[str, Mapping[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""By format, the entries that would tell the version or the hour."""
_REFERENCE = re.compile(r"(?:^|(?<=url\())#")
_FONT = re.compile(r"font-family:[^;]*; ?")


@dataclass(frozen=True)
class View:
    """One slice of a turned array.

    Attributes:
        plane: 0 axial, 1 coronal, 2 sagittal.
        index: Index along the plane's axis.
    """

    plane: int
    index: int

    def cut(self, array: Array) -> Array:
        """The slice (H, W) as it is shown, of a turned array (superior, posterior, left)."""
        plane: Array = array.take(self.index, self.plane)
        return plane if self.plane == 0 else plane[::-1]

    def size_mm(self, spacing_mm: Sequence[float], shape: Sequence[int]) -> tuple[float, float]:
        """Height and width of the slice, of a turned array of this shape."""
        height, width = (shape[axis] * spacing_mm[axis] for axis in range(3) if axis != self.plane)
        return height, width


@dataclass(frozen=True)
class Scene:
    """How arrays on one grid are cut for a picture.

    Attributes:
        how: The turn that makes the axes of an array run to superior, posterior and left.
        spacing_mm: Spacing of the turned array.
        box: Box of the brain in the turned array.
        views: The slices to show, in the turned and cropped array.
        affine: Affine (4, 4) of the turned and cropped array, as that of a `Volume`.
    """

    how: Turn
    spacing_mm: tuple[float, ...]
    box: Box
    views: Sequence[View]
    affine: Affine

    def turn(self, array: Array) -> Array:
        """An array (D, H, W) of the file as (superior, posterior, left), cropped to the brain."""
        return turn_array(array, self.how)[self.box.slices]

    def grey(self, image: Volume) -> Picture:
        """An image between 0 and 1, from the 1st to the 99.5th percentile of the brain; what surrounds it is black."""
        return self._shade(*self._light(image))

    def cut_grey(self, image: Volume) -> list[Picture]:
        """The views of an image, as `grey` shows it. This takes less memory."""
        turned, brain, window = self._light(image)
        return [self._shade(view.cut(turned), view.cut(brain), window) for view in self.views]

    def _light(self, image: Volume) -> tuple[Array, Mask, tuple[float, float]]:
        """The turned image, its brain, and the values that are black and white."""
        turned, brain = self.turn(image.array), self.turn(find_brain(image))
        low, high = np.percentile(turned[brain], (1, 99.5)) if brain.any() else (0.0, 1.0)
        return turned, brain, (float(low), float(high))

    @staticmethod
    def _shade(array: Array, brain: Mask, window: tuple[float, float]) -> Picture:
        low, high = window
        grey = (array - low) / max(high - low, 1e-12)
        return np.asarray(np.where(brain, np.clip(grey, 0, 1), 0.0), np.float64)

    def mark(self, view: View) -> Marks:
        """What is written on a slice: the directions of its edges, and the position of its centre."""
        down, across = (axis for axis in range(3) if axis != view.plane)
        directions = self.affine[:3, :3].T
        right, lower = directions[across], directions[down] * (1 if view.plane == 0 else -1)
        middle = [(n - 1) / 2 for n in self.box.shape]
        middle[view.plane] = view.index
        centre = self.affine @ (*middle, 1)
        return Marks(
            left=name_direction(-right),
            right=name_direction(right),
            top=name_direction(-lower),
            bottom=name_direction(lower),
            position=name_position(centre[:3], directions[view.plane]),
        )


def find_brain(image: Volume) -> Mask:
    """Voxels (D, H, W) that are not air, as the edges of the grid show it; all voxels where they show none."""
    brain = find_air(image.array).find_foreground(image.array)
    return brain if brain.any() else np.ones(image.shape, np.bool_)


def enlarge(plane: Array, pixels: tuple[int, int], smooth: bool) -> Array:
    """A slice (H, W) on a grid of `pixels` (rows, columns) over the same area, interpolated linearly or not at all.

    Examples:
        >>> enlarge(np.array([[0, 4]]), (1, 6), smooth=False).tolist()
        [[0, 0, 0, 4, 4, 4]]
    """
    places = [(np.arange(count) + 0.5) * n / count - 0.5 for count, n in zip(pixels, plane.shape, strict=True)]
    if not smooth:
        rows, columns = (
            np.rint(place).astype(int).clip(0, n - 1) for place, n in zip(places, plane.shape, strict=True)
        )
        return np.asarray(plane[np.ix_(rows, columns)])
    for axis, place in enumerate(places):
        last = plane.shape[axis] - 1
        before = np.floor(place.clip(0, last)).astype(int)
        share = (place.clip(0, last) - before).reshape(-1, *([1] * (1 - axis)))
        after = np.minimum(before + 1, last)
        plane = plane.take(before, axis) * (1 - share) + plane.take(after, axis) * share
    return plane


def arrange(image: Volume, guides: Sequence[Array], views: Views) -> Scene:
    """Choose slices through the most voxels of the first guide (D, H, W) that is not empty, or of the brain if all are.

    The brain is what `find_brain` finds.
    """
    how = find_turn(image.affine)
    known, *turned = (turn_array(array, how) > 0 for array in (find_brain(image), *guides))
    brain = known | np.any(turned, axis=0)
    tight = Box.around(brain if brain.any() else ~brain)
    z, y, x = (max(0, a - MARGIN_VOXELS) for a in tight.start)
    d, h, w = (min(n, b + MARGIN_VOXELS) for b, n in zip(tight.stop, brain.shape, strict=True))
    box = Box((z, y, x), (d, h, w))
    guide = next((guide for guide in turned if guide.any()), brain)[box.slices]
    spacing_mm = tuple(image.spacing_mm[axis] for axis in how.axes)
    affine = turn(image, how).affine.copy()
    affine[:3, 3] += affine[:3, :3] @ box.start
    return Scene(how, spacing_mm, box, _choose(guide, spacing_mm, views), affine)


def _choose(guide: Array, spacing_mm: Sequence[float], views: Views) -> list[View]:
    counts = [guide.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    thick = int(np.argmax(spacing_mm))
    is_thick = spacing_mm[thick] > THICK * min(spacing_mm)
    if views == "planes" or (views == "auto" and not is_thick):
        return [View(axis, fullest(counts[axis])) for axis in range(3)]
    axis = thick if is_thick else 0
    best = fullest(counts[axis])
    if views == "slice":
        return [View(axis, best)]
    return [View(axis, index) for index in _three(np.flatnonzero(counts[axis]), best, guide.shape[axis])]


def fullest(counts: Array) -> int:
    """The middle one of the slices that have the largest count.

    Examples:
        >>> fullest(np.array([0, 3, 5, 5, 5, 1]))
        3
    """
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def _three(hits: Array, fullest: int, slices: int) -> list[int]:
    """The fullest slice and two beside it, a third of the lesion's depth apart, from head to foot.

    Examples:
        >>> _three(np.arange(10, 40), 25, 60), _three(np.array([0]), 0, 20)
        ([35, 25, 15], [2, 1, 0])
    """
    step = max(1, len(hits) // 3)
    shift = int(fullest < step) - int(fullest + step >= slices)
    indices = (fullest + (place + shift) * step for place in (1, 0, -1))
    return [index for index in indices if 0 <= index < slices]


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as PNG or SVG, completely or not at all. The same figure gives the same bytes.

    Raises:
        OutputError: the file cannot be written, or its name ends in neither .png nor .svg.
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
