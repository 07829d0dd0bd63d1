"""What is written on a slice: the directions of the patient at its edges, its position, and a bar of a known length."""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

OBLIQUE = math.sin(math.radians(15))
"""Share of a direction above which its second letter is written: 15 degrees."""
BAR = "scale-bar"
"""Identifier of the bar in a figure and in SVG."""
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))
_BAR_SHARE = 0.3
_INK = "0.92"


@dataclass(frozen=True)
class Marks:
    """What is written on a slice.

    Attributes:
        left, right, top, bottom: Letters of the patient's directions to which the edges lie.
        position: Where the slice is, as `name_position` gives it.
    """

    left: str
    right: str
    top: str
    bottom: str
    position: str


def name_direction(direction: ArrayLike) -> str:
    """The letters of a direction (x to the left, y to the back, z to the head), the strongest first.

    L and R are left and right, P and A the back and the front, S and I the head and the feet. A second letter tells of
    more than 15 degrees.

    Examples:
        >>> name_direction((1, 0, 0)), name_direction((0.1, 0, -2)), name_direction((-0.8, 0.6, 0))
        ('L', 'I', 'RP')
    """
    parts = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    order = sorted(range(3), key=lambda axis: -abs(parts[axis]))
    return "".join(_LETTERS[axis][int(parts[axis] < 0)] for axis in order if abs(parts[axis]) > OBLIQUE)


def name_position(centre_mm: ArrayLike, normal: ArrayLike) -> str:
    """The place of a slice along the axis of the patient that is nearest to its normal, as DICOM viewers write it.

    An oblique slice has one place for each voxel; that of its centre counts.

    Args:
        centre_mm: Centre of the slice (x to the left, y to the back, z to the head).
        normal: Direction in which slices follow each other.

    Examples:
        >>> name_position((1.0, 2.0, -12.34), (0, 0, 3)), name_position((8, 0, 0), (-1, 0, 0.2))
        ('I 12.3 mm', 'L 8.0 mm')
    """
    axis = int(np.argmax(np.abs(normal)))
    value = round(float(np.asarray(centre_mm)[axis]), 1)
    return f"{_LETTERS[axis][int(value < 0)]} {abs(value):.1f} mm"


def choose_bar(width_mm: float) -> float:
    """Length in mm of a bar for a picture: 1, 2 or 5 times a power of ten, at most 30 % of the width.

    Examples:
        >>> choose_bar(180), choose_bar(60), choose_bar(5)
        (50.0, 10.0, 1.0)
    """
    most = _BAR_SHARE * width_mm
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def describe_length(length_mm: float) -> str:
    """A length in the unit that makes it short.

    Examples:
        >>> describe_length(50.0), describe_length(5.0), describe_length(0.5)
        ('5 cm', '5 mm', '0.5 mm')
    """
    return f"{length_mm / 10:g} cm" if length_mm >= 10 else f"{length_mm:g} mm"


def draw_marks(axes: Axes, marks: Marks, size: float, unit: float = 1.0) -> None:
    """Write on a picture, whose axes have their final limits.

    Args:
        axes: Axes of the picture; one millimetre is `unit` of their coordinates.
        marks: What is written.
        size: Size of the letters in points.
        unit: Coordinates for each millimetre.
    """
    edges = (
        (0.02, 0.5, marks.left, "left", "center"),
        (0.98, 0.5, marks.right, "right", "center"),
        (0.5, 0.985, marks.top, "center", "top"),
        (0.5, 0.015, marks.bottom, "center", "bottom"),
        (0.025, 0.015, marks.position, "left", "bottom"),
    )
    halo = [withStroke(linewidth=size / 4, foreground="black")]
    for x, y, text, across, along in edges:
        drawn = axes.text(x, y, text, ha=across, va=along, color=_INK, size=size, transform=axes.transAxes)
        drawn.set(path_effects=halo, weight="normal" if text == marks.position else "bold")
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    length_mm = choose_bar((right - left) / unit)
    wide, tall = right - left, bottom - top
    start, thick = right - 0.03 * wide - length_mm * unit, 0.012 * tall
    upper = bottom - 0.025 * tall - thick
    bar = Rectangle((start, upper), length_mm * unit, thick, facecolor=_INK, linewidth=0, gid=BAR, path_effects=halo)
    axes.add_patch(bar)
    middle, text = start + length_mm * unit / 2, describe_length(length_mm)
    axes.text(middle, upper - 0.008 * tall, text, ha="center", va="bottom", color=_INK, size=size, path_effects=halo)
