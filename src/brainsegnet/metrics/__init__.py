"""Scores of label maps, statistics over cases, and tables of them. This file holds the options of `evaluate`."""

from dataclasses import dataclass
from typing import Literal

LesionRuleName = Literal["overlap", "brats2023", "brats2026"]
Hd95 = Literal["max", "pooled"]
"""How the 95th percentile is taken of the surface distances in two directions."""


@dataclass(frozen=True)
class ScoreOptions:
    """How to score, as the command line names it; `ScoreRules.of` turns it into rules.

    Examples:
        >>> ScoreOptions(hd95="pooled").lesions
        'overlap'
    """

    tolerance_mm: float = 1.0
    "Distance in mm within which two surfaces agree, for the surface Dice."
    hd95: Hd95 = "max"
    """Definition of HD95. max: the larger of the two directed 95th percentiles, as in MONAI. pooled: the percentile of
    both directions together, as in MedPy and BraTS 2026."""
    lesions: LesionRuleName = "overlap"
    """When a lesion counts as found. overlap: any voxel of it is predicted. brats2023: the lesion-wise rules of that
    challenge. brats2026: its rules, which pair each lesion with at most one predicted lesion."""
