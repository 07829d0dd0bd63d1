"""Tables of what the model of brain extraction reaches."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from documents.cells import Generated, describe_mean, name_sequences
from documents.records import read_result

SEQUENCES = ("flair", "t1", "t1c", "t2")
NAMED = {
    "lesjak-p01 t1": "T1, multiple sclerosis, 3 mm",
    "lesjak-p01 t2": "T2, the same patient",
    "lesjak-p01 flair": "FLAIR, the same patient",
    "heads flair": "FLAIR, 1 mm",
    "heads t1 elderly": "T1, elderly, 3 mm",
    "thick t1c": "T1c, tumour, 6.5 mm",
    "dicom head": "T1, coronal, with neck",
    "dicom test pattern": "Test pattern, no head",
}


def brain() -> Generated:
    """One raw study, by sequence and with all together, and the prepared cases that chose the threshold."""
    record = read_result("brain")
    patient, prepared = record.data["tcga-fg-6692"], record.data["prepared"]
    alone = {name_sequences(name): patient[name] for name in SEQUENCES}
    rows: list[list[Cell]] = [_patient_row(f"{name} alone", scores) for name, scores in alone.items()]
    rows.append(_mean_row("Mean of the four, each alone", list(alone.values())))
    rows.append(_mean_row("Mean of the four, brain of all", [one["all_sequences"] for one in alone.values()]))
    rows.append(_prepared_row(prepared))
    notes = [
        "One patient, TCGA-FG-6692, 5.5 mm slices. The masks to compare with are those of HD-BET. On T1c, "
        f"HD-BET and a second tool agree to {patient['t1c']['dice_of_the_two_masks']:.2f}.",
        "BraTS: the skull was removed by others. What they left is compared with what the model keeps of it. Square "
        "brackets: 95 % bootstrap interval of the mean over the cases.",
        "CPU seconds: of both cores, from the scan in memory to the mask on its grid.",
    ]
    words, numbers = text_columns("Scan", "Part in choice?", "Dice"), number_columns("Volume ratio", "Tumour kept")
    columns = [*words, *numbers, *number_columns("CPU seconds", form=".2f")]
    return Generated(Table(columns, rows, notes=notes), [record])


def brain_others() -> Generated:
    """Scans that nobody outlined."""
    record = read_result("brain")
    others: Mapping[str, Mapping[str, Any]] = record.data["others"]
    rows: list[list[Cell]] = [
        [
            words,
            "yes" if others[name]["accepted"] else "no",
            others[name]["volume_ml"],
            others[name]["mean_probability"],
        ]
        for name, words in NAMED.items()
    ]
    kept = others["thick t1c"]["tumour_kept"]
    notes = [f"The mask of the T1c of 6.5 mm holds {kept:.1%} of the tumour that its readers drew."]
    columns = [*text_columns("Scan", "Brain found"), *number_columns("ml", form=".0f"), *number_columns("Probability")]
    return Generated(Table(columns, rows, notes=notes), [record])


def brain_simulated() -> Generated:
    """Simulated heads of label maps outside the training, and scans without a head."""
    record = read_result("brain")
    scores: Mapping[str, float] = record.data["simulated"]
    rows: list[list[Cell]] = [[name.capitalize(), f"{value:g}"] for name, value in scores.items()]
    return Generated(Table(text_columns("Figure", "Value"), rows), [record])


def _patient_row(label: str, scores: Mapping[str, float]) -> list[Cell]:
    return [label, "no", f"{scores['dice']:.3f}", scores["volume_ratio"], scores["tumour_kept"], scores["cpu_seconds"]]


def _mean_row(label: str, scores: Sequence[Mapping[str, float]]) -> list[Cell]:
    means = [mean(one[key] for one in scores) for key in _KEYS]
    seconds = [one["cpu_seconds"] for one in scores if "cpu_seconds" in one]
    return [label, "no", f"{means[0]:.3f}", *means[1:], mean(seconds) if seconds else None]


def _prepared_row(prepared: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Cell]:
    """The mean over cases, of the mean over the sequences of each."""
    means = {key: [mean(one[key] for one in case.values()) for case in prepared.values()] for key in _KEYS}
    label = f"BraTS 2021 and 2023, n = {len(prepared)}, four sequences each"
    return [label, "yes", describe_mean(means["dice"], ".3f"), *(mean(means[key]) for key in _KEYS[1:]), None]


_KEYS = ("dice", "volume_ratio", "tumour_kept")
