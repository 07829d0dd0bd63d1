"""What the paper reports in its Tables 1 and 2, as far as its text states it.

The tables themselves are no part of the text that these rows were taken from. So a figure that the text does not state
is left open, never filled in from elsewhere; who has the printed page before them adds it to `cells`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SOURCE = "Hu et al., Brain SegNet, BMC Medical Imaging 20:17, 2020"
Key = tuple[str, str]
"""Metric and region."""


@dataclass(frozen=True)
class Printed:
    """A row of the paper.

    Attributes:
        method: As it is called.
        cells: (Metric, region) to what is stated, mean over the test set; none where the text compares in words alone.
    """

    method: str
    cells: Mapping[Key, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        caption: What it shows.
        metrics: Of its columns, each with its heading.
        regions: Of its columns; an empty one is the only region of a task.
        rows: What the paper reports.
        cohort: The cases its rows are means over.
        section: Of the paper, where the figures stand.
    """

    caption: str
    metrics: Mapping[str, str]
    regions: tuple[str, ...]
    rows: tuple[Printed, ...]
    cohort: str
    section: str

    @property
    def keys(self) -> list[Key]:
        """Metric and region of each column."""
        return [(metric, region) for metric in self.metrics for region in self.regions]


TABLE_1 = PaperTable(
    caption="Brain tumours, BRATS 2015",
    metrics={"dice": "Dice", "specificity": "Specificity", "sensitivity": "Sensitivity"},
    regions=("whole", "core", "enhancing"),
    rows=(
        Printed("FCNN + CRF (Zhao et al. 2018)"),
        Printed("DeepMedic + CRF (Kamnitsas et al. 2017)"),
        Printed("Brain SegNet without focal loss", {("dice", "whole"): 0.85, ("dice", "enhancing"): 0.69}),
        Printed("Brain SegNet with focal loss", {("dice", "whole"): 0.86, ("dice", "enhancing"): 0.72}),
    ),
    cohort="the 110 test cases of BRATS 2015, scored by the organisers",
    section="Results on Brain Tumor Segmentation",
)
TABLE_2 = PaperTable(
    caption="Stroke, ISLES 2017",
    metrics={"dice": "Dice", "precision": "Precision", "sensitivity": "Recall"},
    regions=("",),
    rows=(
        Printed("Pinto et al. 2018, standard maps", {("dice", ""): 0.20}),
        Printed("Pinto et al. 2018, with 4-D PWI", {("dice", ""): 0.26}),
        Printed("Pinto et al. 2018, two models", {("dice", ""): 0.29}),
        Printed("Brain SegNet without focal loss", {("dice", ""): 0.26}),
        Printed("Brain SegNet with focal loss", {("dice", ""): 0.30}),
    ),
    cohort="the 32 test cases of ISLES 2017, scored by the organisers",
    section="Results on Stroke Lesion Outcome Prediction",
)
TABLES: Mapping[int, PaperTable] = {1: TABLE_1, 2: TABLE_2}
