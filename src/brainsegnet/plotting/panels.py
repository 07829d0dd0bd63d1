"""Slices through lesions as drawings for a page: the scan, labels over it, diameters, sides and a millimetre scale.

A panel is an SVG element in millimetres. The scan with its labels is a PNG inside; lines and text stay sharp at any
size. Axial panels show the patient's right at the left.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from brainsegnet._types import Array, Doubles, Mask
from brainsegnet.metrics.lesions import Lesion, Line
from brainsegnet.plotting.overlays import overlay
from brainsegnet.plotting.packing import CONTRAST, Frame, frame_head
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import Picture, Rgb, View
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap

OUTLINE, FILL = 0.0, 0.35
"""Opacity of the labels within their outlines."""
SCALE_MM = 20
AXIAL, CORONAL, SAGITTAL = range(3)
PLANES = ("axial", "coronal", "sagittal")
SIDES = (("R", "L"), ("R", "L"), ("A", "P"))
_TEXT_MM = 9.0
"""Height of letters, in a panel 160 mm wide."""


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
        name: What is written above it.
        svg: The element.
    """

    name: str
    svg: str


@dataclass(frozen=True, eq=False)
class Panels:
    """All that panels of a case are drawn from.

    Attributes:
        frame: The part of the grid that is shown, upright.
        greys: Sequence to the scan in this part (D, H, W), between 0 and 1.
        labels: Label map in this part.
        palette: Label value to its colour.
    """

    frame: Frame
    greys: Mapping[str, Picture]
    labels: Array
    palette: Mapping[int, Rgb]

    @classmethod
    def of(cls, images: Mapping[str, Array], labels: LabelMap, task: Task, brain: Mask) -> "Panels":
        """The panels of images, a label map and a brain mask (D, H, W) on one grid. The brain sets the contrast."""
        frame = frame_head(labels, brain)
        inside = frame.take(brain)
        greys = {name: _to_grey(frame.take(image), inside) for name, image in images.items()}
        return cls(frame, greys, frame.take(labels.array), colours(task))

    def middle(self) -> tuple[int, int, int]:
        """The middle (w, h, d) of what is shown."""
        d, h, w = (n // 2 for n in self.frame.shape)
        return w, h, d

    def draw(
        self,
        sequence: str,
        plane: int,
        place: tuple[int, int, int],
        *,
        opacity: float = OUTLINE,
        lesion: Lesion | None = None,
    ) -> str:
        """A slice as an SVG element.

        Args:
            sequence: Scan to show.
            plane: 0 axial, 1 coronal, 2 sagittal.
            place: Voxel (w, h, d) of what is shown, through which the slice goes.
            opacity: That of the labels within their outlines.
            lesion: Its diameters are drawn.
        """
        view = View(plane, place[2 - plane])
        picture = overlay(view.cut(self.greys[sequence]), view.cut(self.labels), self.palette, opacity)
        height, width = view.size_mm(self.frame.spacing_mm, self.frame.shape)
        marks = [_draw_sides(plane, width, height), _draw_scale(width, height)]
        if lesion is not None:
            marks += [_draw_line(self._on_slice(line)) for line in lesion.lines_mm]
        shown, wide, high = escape(f"{sequence}, {PLANES[plane]} slice"), f"{width:.1f}", f"{height:.1f}"
        return (
            f'<svg class="panel" role="img" aria-label="{shown}" viewBox="0 0 {wide} {high}">'
            f'<image width="{wide}" height="{high}" preserveAspectRatio="none" href="{_to_source(picture)}"/>'
            f"{''.join(marks)}</svg>"
        )

    def _on_slice(self, line: Line) -> Doubles:
        """The ends (2, 2) of a line in millimetres from the corner of an axial panel."""
        ras = np.array([[-x, -y, z, 1.0] for x, y, z in line])
        index = (np.linalg.inv(self.frame.to_ras) @ ras.T)[:2].T
        return np.asarray((index + 0.5) * self.frame.spacing_mm[:0:-1])


def choose_key(region: str, sequences: Sequence[str]) -> str:
    """The sequence that shows a region best.

    Examples:
        >>> choose_key("enhancing", ["flair", "t1c"]), choose_key("whole", ["t1", "flair"]), choose_key("x", ["tmax"])
        ('t1c', 'flair', 'tmax')
    """
    order = ("t1c", "flair", "t2") if region in ("enhancing", "core") else ("flair", "dwi", "t2")
    return next((name for name in order if name in sequences), sequences[0])


def _to_grey(image: Array, inside: Mask) -> Picture:
    finite = image[inside] if inside.any() else image.ravel()
    low, high = np.percentile(finite, CONTRAST)
    return np.asarray(np.clip((image - low) / max(high - low, 1e-12), 0, 1), np.float64)


def _to_source(picture: Picture) -> str:
    from matplotlib.image import imsave

    memory = io.BytesIO()
    imsave(memory, picture, format="png", pil_kwargs={"optimize": True})
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode('ascii')}"


def _draw_sides(plane: int, width: float, height: float) -> str:
    size = _TEXT_MM * width / 160
    left, right = SIDES[plane]
    return "".join(
        f'<text x="{x:.1f}" y="{1.1 * size:.1f}" font-size="{size:.1f}" text-anchor="{anchor}">{side}</text>'
        for side, x, anchor in ((left, 0.03 * width, "start"), (right, 0.97 * width, "end"))
    )


def _draw_scale(width: float, height: float) -> str:
    size, y = _TEXT_MM * width / 160, height - 0.03 * width
    return (
        f'<path class="scale" d="M{0.03 * width:.1f} {y:.1f}h{SCALE_MM}" stroke-width="{0.12 * size:.2f}"/>'
        f'<text x="{0.03 * width:.1f}" y="{y - 0.35 * size:.1f}" font-size="{0.8 * size:.1f}">{SCALE_MM} mm</text>'
    )


def _draw_line(ends: Doubles) -> str:
    (ax, ay), (bx, by) = ends.tolist()
    path = f"M{ax:.2f} {ay:.2f}L{bx:.2f} {by:.2f}"
    return f'<path class="under" d="{path}"/><path class="diameter" d="{path}"/>'
