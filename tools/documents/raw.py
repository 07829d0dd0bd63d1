"""Tables of raw studies: other voxels than those of training, and studies as the scanner stored them."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from documents.cells import Generated, describe_mean, name_regions, spread_note
from documents.records import Record, read_result

AS_TRAINED = "1"
"""The voxels of training among those of `benchmarks/spacing.py`."""
CHOSEN = "linear, linear"
"""How the network sees a scan, and how the result comes back."""
STUDIES = {
    "lesjak-p01": "T1, T2, FLAIR of multiple sclerosis, 3 to 4 mm",
    "head_t1": "DICOM: T1 of a healthy head, with neck",
    "heads: FLAIR": "FLAIR, 1 mm",
    "heads: T1": "T1 of an elderly head, 3 mm",
    "ge_t1": "DICOM: test pattern, no head",
    "thick_t1c": "T1c of a tumour, 6.5 mm",
}


def spacing() -> Generated:
    """Scans of other voxels beside those of 1 mm, of the cases on which the model was trained."""
    record = read_result("spacing-tumour")
    trained = record.data["trained_on"]
    return _compare_spacing(
        record, f"The model was trained on {trained} of these cases at 1 mm, so only the changes count."
    )


def spacing_brats2015() -> Generated:
    """The same of four cases on which it was not trained, which have FLAIR and T1c alone."""
    record = read_result("spacing-tumour-brats2015")
    about = "BRATS 2015: FLAIR and T1c. They had no part in the choice of the method."
    return _compare_spacing(record, about, left_out=["5 mm, three planes"])  # both lie in one plane there


def _compare_spacing(record: Record, about: str, left_out: Sequence[str] = ()) -> Generated:
    dice, means_of = record.data["dice"], record.data["mean"]
    regions = next(iter(dice.values()))[AS_TRAINED]["ceiling"]
    rows: list[list[Cell]] = []
    for grid, means in means_of.items():
        if grid in left_out:
            continue
        changes = [case[grid][CHOSEN]["whole"] - case[AS_TRAINED][CHOSEN]["whole"] for case in dice.values()]
        change: list[Cell] = [None] * 3
        if grid != AS_TRAINED:
            change = [describe_mean(changes, "+.2f"), *(f"{one:+.2f}" for one in (median(changes), min(changes)))]
        rows.append([grid, *(f"{means[CHOSEN][r]:.2f} ({means['ceiling'][r]:.2f})" for r in regions), *change])
    notes = [
        f"Mean Dice on the true label map of 1 mm, n = {len(dice)} cases. "
        "Round brackets: the true label map itself, brought to these voxels and back.",
        f"Change: of whole-tumour Dice from 1 mm, case by case; mean, median and lowest. {spread_note(len(dice))}",
        about,
        "Voxels: in-plane, in-plane, slice. Each is the mean of the scan of 1 mm over its extent.",
    ]
    columns = [*text_columns("Voxels in mm", *name_regions(regions)), *text_columns("Change", "Median", "Lowest")]
    return Generated(Table(columns, rows, notes=notes), [record])


def registration() -> Generated:
    """Known motions, recovered, of raw scans and of sequences on one grid."""
    record = read_result("registration")
    raw, one_grid = record.data["raw"], record.data["one_grid"]
    rows: list[list[Cell]] = [
        [f"raw, {motion}", "", errors["mean"], errors["most"]] for motion, errors in raw["errors_mm"].items()
    ]
    rows.append(["raw, over a third sequence", "", raw["cycles_mm"]["mean"], raw["cycles_mm"]["most"]])
    for motion, found in one_grid.items():
        moved = found["registered"]
        share = f"{moved} of {found['sequences']}"
        rows.append([f"one grid, {motion}", share, found["mean_error_mm"] if moved else None, None])
    check = one_grid["0 mm, 0 degrees"]["median_processor_seconds"]
    notes = [
        "Raw: the four sequences of TCGA-FG-6692, which guided the choice of the levels. Over a third sequence: the "
        "distance between the direct way and the way over another sequence.",
        "One grid: 45 sequences of 20 prepared cases. The limit of a clear gain was set on them.",
        f"Processor seconds: {raw['median_processor_seconds']:.2f} for a registration of raw scans, {check:.2f} for "
        "the check of a sequence on one grid.",
    ]
    words, numbers = text_columns("Scans and motion", "Registered"), number_columns("Error, mm", "At most, mm")
    return Generated(Table([*words, *numbers], rows, notes=notes), [record])


def raw_study() -> Generated:
    """One patient, from the raw images and from images that other tools prepared."""
    record = read_result("raw-studies")
    patient: Mapping[str, Mapping[str, Any]] = record.data["tcga-fg-6692"]
    rows: list[list[Cell]] = [
        [words, *(f"{patient[name]['dice'][region]:.2f}" for region in ("whole", "core", "enhancing")), *_cost(one)]
        for name, words in {"raw": "raw, as the scanner stored them", "prepared": "prepared by other tools"}.items()
        for one in [patient[name]]
    ]
    notes = [
        "One patient, TCGA-FG-6692. The steps of the alignment were chosen with this study, the models were not. The "
        "reference is a fusion of five algorithms on the prepared images, not a truth. It was moved onto the raw T1c "
        "by a registration of the two T1c.",
        "Seconds: of the whole command, from files to files, while other programs ran. Peak: of its memory.",
    ]
    columns = [*text_columns("Images", "Whole lesion", "Core", "Enhancing"), *_cost_columns()]
    return Generated(Table(columns, rows, notes=notes), [record])


def raw_others() -> Generated:
    """Studies without a reference, most of them without a tumour."""
    record = read_result("raw-studies")
    rows: list[list[Cell]] = []
    for name, words in STUDIES.items():
        one = record.data[name]
        shown = one.get("allowed", one)
        refused = "refused: no brain" if "no brain" in one["refused"] else "refused: one sequence is too little"
        whole = None if shown["refused"] else shown["volumes_ml"]["regions"]["whole"]
        rows.append([words, refused if one["refused"] else "segmented", whole, *_cost(shown)])
    notes = [
        "Whole lesion: in ml. Of a study that was refused for its one sequence: what --allow-poor gives.",
        f"Of the T1c of a tumour, the Dice of anything found is {record.data['thick_t1c']['dice']:.2f}.",
    ]
    columns = [*text_columns("Study", "Result"), *number_columns("Whole lesion, ml", form=".1f"), *_cost_columns()]
    return Generated(Table(columns, rows, notes=notes), [record])


def _cost(one: Mapping[str, Any]) -> list[Cell]:
    return [one["seconds"], one["peak_gb"]]


def _cost_columns() -> list[Any]:
    return [*number_columns("Seconds", form=".0f"), *number_columns("Peak, GB", form=".1f")]
