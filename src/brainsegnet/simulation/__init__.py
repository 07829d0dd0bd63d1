"""Simulated cases: phantoms, and gliomas, white matter lesions and strokes with the artefacts of scanners."""

from enum import IntEnum
from typing import Literal

StrokeTask = Literal["isles2022", "isles2017"]
"""Data sets of strokes whose cases can be simulated."""
RealisticLesion = Literal["glioma", "white-matter"]
"""What realistic cases show: a glioma, or white matter lesions as in multiple sclerosis."""


class Part(IntEnum):
    """What a voxel of a simulated tumour contains; 1 to 4 are the labels of BRATS 2015."""

    NONE = 0
    NECROSIS = 1
    OEDEMA = 2
    NON_ENHANCING = 3
    ENHANCING = 4
    CYST = 5
    BLOOD = 6
