"""How much a volume or a diameter differs between two scans of one head in which nothing has changed.

A volume stands for the ball of the same volume. Two radii, or two diameters, differ by no more than `mm` plus `share`
times the larger one in 95 % of pairs of scans. The first constant is that of an outline which moves everywhere by a
part of a voxel, so a small lesion is repeated to a larger share of its volume. The second one is that of a boundary
which is faint. Each region has its own constants, and single lesions have others than the region as a whole.

The constants in `retest.json` come from `benchmarks/retest.py`: real and simulated heads were moved, resampled, given
new noise and new bias fields, and segmented again. What differs between scanners, protocols and slice thicknesses is
not in them, nor is what a contrast agent does at another time. The interval is not that of an error against the truth.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

COVERAGE = 0.95
"""Share of pairs of scans of an unchanged head within the interval, at which the constants were fitted."""
Verdict = Literal["grown", "shrunk", "stable", "not known"]
_BALL = 4 / 3 * math.pi / 1000
"""Volume in ml of a ball with a radius of 1 mm."""


class Repeat(BaseModel):
    """What is known of two scans of an unchanged head, for one measure of one region.

    Attributes:
        mm: Part in mm of the largest difference of two radii, or of two diameters, that counts as none.
        share: Part of this difference that grows with the larger of the two.
        coverage: Share of pairs within the interval, each patient judged with the constant of the others.
        pairs: Number of pairs of scans, or of lesions in them.
        patients: Number of patients and simulated heads.
    """

    model_config = ConfigDict(frozen=True)

    mm: float = Field(ge=0)
    share: float = Field(ge=0, lt=1)
    coverage: float = Field(ge=0, le=1)
    pairs: int = Field(ge=0)
    patients: int = Field(ge=0)


class RetestNote(BaseModel):
    """What was measured with a model: the constants by region.

    Attributes:
        sha256: Of the weights of the model that was used.
        date: Of the measurement.
        volumes: Region to that of its whole volume.
        lesions: Region to that of the volume of a lesion that both scans show.
        diameters: Region to that of the largest diameter of such a lesion.
        appearing: Region to that of the largest lesion that only one of two scans shows.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    date: str
    volumes: Mapping[str, Repeat]
    lesions: Mapping[str, Repeat]
    diameters: Mapping[str, Repeat]
    appearing: Mapping[str, Repeat]


@cache
def read_notes() -> Mapping[str, RetestNote]:
    """Name of a shipped model to what was measured with it."""
    text = files("brainsegnet.followup").joinpath("retest.json").read_text(encoding="utf-8")
    return {name: RetestNote.model_validate(note) for name, note in json.loads(text).items()}


def find_radius(volume_ml: float) -> float:
    """Radius in mm of the ball that has a volume.

    Examples:
        >>> round(find_radius(4.18879), 3), find_radius(0.0)
        (10.0, 0.0)
    """
    return float((volume_ml / _BALL) ** (1 / 3))


def find_volume(radius_mm: float) -> float:
    """Volume in ml of a ball; 0 for a negative radius."""
    return _BALL * max(0.0, radius_mm) ** 3


def find_range(length_mm: float, repeat: Repeat) -> tuple[float, float]:
    """Between which radii or diameters in mm a second scan would find the same, if nothing has changed.

    Examples:
        >>> find_range(10.0, Repeat(mm=0.5, share=0.2, coverage=0.95, pairs=100, patients=10))
        (7.5, 13.125)
    """
    low = length_mm * (1 - repeat.share) - repeat.mm
    return max(0.0, low), (length_mm + repeat.mm) / (1 - repeat.share)


def find_interval(volume_ml: float, repeat: Repeat) -> tuple[float, float]:
    """Between which volumes in ml a second scan would find the same, if nothing has changed.

    Examples:
        >>> half_a_mm = Repeat(mm=0.5, share=0, coverage=0.95, pairs=100, patients=10)
        >>> [tuple(round(ml, 2) for ml in find_interval(volume, half_a_mm)) for volume in (0.0, 1.0, 50.0)]
        [(0.0, 0.0), (0.78, 1.26), (46.79, 53.35)]
    """
    low, high = find_range(find_radius(volume_ml), repeat)
    return find_volume(low), find_volume(high)


def judge_volumes(before_ml: float, after_ml: float, repeat: Repeat | None) -> Verdict:
    """Whether a volume has changed by more than two scans of an unchanged head differ.

    Examples:
        >>> half_a_mm = Repeat(mm=0.5, share=0, coverage=0.95, pairs=100, patients=10)
        >>> judge_volumes(1.0, 1.2, half_a_mm), judge_volumes(50, 60, half_a_mm), judge_volumes(1, 2, None)
        ('stable', 'grown', 'not known')
    """
    return judge(find_radius(before_ml), find_radius(after_ml), repeat)


def judge(before_mm: float, after_mm: float, repeat: Repeat | None) -> Verdict:
    """As `judge_volumes`, for diameters or radii in mm."""
    if repeat is None:
        return "not known"
    if abs(after_mm - before_mm) <= repeat.mm + repeat.share * max(before_mm, after_mm):
        return "stable"
    return "grown" if after_mm > before_mm else "shrunk"
