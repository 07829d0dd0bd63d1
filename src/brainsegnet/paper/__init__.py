"""The paper's tables and figures with other results beside them, and upload files for its challenges.

This file holds the options of a figure, which the command line shows without loading a heavy library.
"""

from dataclasses import dataclass, field

from brainsegnet.errors import DatasetError
from brainsegnet.plotting import DrawingOptions


@dataclass(frozen=True)
class FigureOptions:
    """Which slices, sequences and models a figure of the paper shows.

    The fields are options of `brainsegnet paper figure`.

    Raises:
        DatasetError: fewer than one case is asked for.
    """

    labels: tuple[str, ...] = ()
    "Names of the models, such as 'without focal' 'with focal'; by default those of the folders."
    slices: tuple[str, ...] = ()
    "Slices to show, as case:index, counted from 0 at the feet; by default the slice with most lesion of each case."
    sequences: tuple[str, ...] = ()
    "Sequences to show; by default FLAIR, T1c and T2, or the first three of the task."
    most: int = 4
    "Number of cases to show if no slice is named."
    drawing: DrawingOptions = field(default_factory=DrawingOptions)
    "How labels are drawn."

    def __post_init__(self) -> None:
        if self.most < 1:
            raise DatasetError(f"a figure shows at least one case, not {self.most}")
