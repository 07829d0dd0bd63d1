"""The paper's tables and figures with other results beside them, and upload files of its challenges.

What can be chosen for a figure stands here, so that the help of the command line loads no heavy library.
"""

from dataclasses import dataclass

from brainsegnet.errors import DatasetError


@dataclass(frozen=True)
class FigureOptions:
    """What a figure shows.

    Raises:
        DatasetError: fewer than one case.
    """

    labels: tuple[str, ...] = ()
    "Names of the models, as 'without focal' 'with focal'; by default those of the folders."
    slices: tuple[str, ...] = ()
    "case:index, counted from 0 at the feet; by default the slice with most lesion of each case."
    sequences: tuple[str, ...] = ()
    "Sequences to show; by default FLAIR, T1c and T2, or the task's first."
    most: int = 4
    "Cases shown where no slice is named; by default 4."

    def __post_init__(self) -> None:
        if self.most < 1:
            raise DatasetError(f"a figure shows at least one case, not {self.most}")
