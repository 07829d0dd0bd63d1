"""How well the probabilities of a model agree with the truth on unseen cases, as its card has it: words and a table."""

from collections.abc import Mapping

from brainsegnet.metrics.table import Cell, Table, count_cases, number_columns, text_columns
from brainsegnet.model.card import LEAST_PROBABILITY, CalibrationNote

CALIBRATION_NOTES = (
    "Error: expected calibration error (Guo et al. 2017) of all cases together. It is the mean difference between "
    "probability and share of true voxels over ten bins, weighted by their voxels.",
    "By case: mean of the errors of single cases.",
    f"The headline is the error of voxels with a probability above {LEAST_PROBABILITY:g}. In the whole brain the error "
    "is small for any model, because nearly all voxels are certain background.",
    f"Missed: share of the true voxels whose probability is {LEAST_PROBABILITY:g} or less.",
)
"""What the columns of `calibration_table` mean."""


def calibration_table(notes: Mapping[str, CalibrationNote]) -> Table:
    """A row for each region."""
    rows: list[list[Cell]] = [
        [region, note.error, note.error_by_case, note.brain_error, note.brain_error_by_case, note.missed]
        for region, note in notes.items()
    ]
    columns = number_columns("Error", "By case", "Whole brain", "Whole brain, by case", "Missed")
    return Table([*text_columns("Region"), *columns], rows, notes=CALIBRATION_NOTES, missing="none")


def describe_calibration(notes: Mapping[str, CalibrationNote]) -> str:
    """The errors of all regions in a line.

    Examples:
        >>> describe_calibration({})
        'not measured'
    """
    if not notes:
        return "not measured"
    texts = [
        f"{region} {_show(note.error)} (mean over cases {_show(note.error_by_case)}, "
        f"whole brain {note.brain_error:.4f}, true voxels missed {_show(note.missed)})"
        for region, note in notes.items()
    ]
    cases = count_cases(next(iter(notes.values())).cases)
    return f"expected calibration error above {LEAST_PROBABILITY:g}, {cases}: {'; '.join(texts)}"


def _show(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
