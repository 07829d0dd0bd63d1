"""Tables of what other tools answer where `evaluate` scores too."""

from collections.abc import Mapping
from typing import Any

from brainsegnet.metrics.table import Cell, Column, Table, number_columns, text_columns
from documents.cells import Generated
from documents.records import read_result
from judges.panel import JUDGES

TITLES = {judge.name: judge.title for judge in JUDGES}
NAMES = {
    "hd95_mm": "HD95",
    "assd_mm": "ASSD",
    "dice": "Dice",
    "surface_dice": "surface Dice",
    "lesion_dice": "Dice by lesion",
    "lesion_f1": "F1 by lesion",
    "lesion_dice, of found lesions": "Dice of found lesions",
    "volume_error_ml, unsigned": "volume error without sign",
}
"""What pages call a score, where that is not its name in the code without the low lines."""
OWN = ("monai", "SimpleITK", "MedPy", "surface-distance", "BraTS-evaluation", "panoptica")
"""The packages whose versions the page names."""
SHOWN = {
    "shifted, one focus missed": ("whole", "enhancing"),
    "twelve foci": ("whole", "enhancing"),
    "thick slices": ("whole",),
    "one voxel each": ("whole",),
}
"""The masks in the table of distances."""
SURFACE_MASKS = ("shifted, one focus missed", "twelve foci")


def _options(row: Mapping[str, Any]) -> str:
    named = {"--hd95 pooled": row["hd95"] == "pooled" and row["ours"] == "hd95_mm"}
    named[f"--lesions {row['lesions']}"] = row["lesions"] != "overlap" and "lesion" in row["ours"]
    return ", ".join(option for option, used in named.items() if used)


def agreement() -> Generated:
    """How many masks every tool agrees on, by tool and count; scores with the same count share a row."""
    record = read_result("judges")
    groups: dict[tuple[str, str, str, int, int], list[str]] = {}
    for row in record.data["agreement"]:
        key = TITLES[row["judge"]], _options(row), row["limits"], row["equal"], row["compared"]
        groups.setdefault(key, []).append(NAMES.get(row["ours"], row["ours"].replace("_", " ")))
    rows: list[list[Cell]] = [
        [title, ", ".join(scores), options, f"{equal}/{compared}"]
        for (title, options, _, equal, compared), scores in groups.items()
    ]
    versions = {name: number for found in record.data["versions"].values() for name, number in found.items()}
    limited = {f"{title}, {', '.join(scores)}: {key[1]}" for (title, *key, _, _), scores in groups.items() if key[1]}
    notes = [
        *(f"{limit}." for limit in sorted(limited)),
        f"{record.data['pairs']} pairs of simulated label maps, three regions each: {record.data['masks']} masks.",
        "Masks for which a tool gives no number are not compared; in each of them a mask is empty.",
        "Equal: to 0.0001. No mask is of a patient, and none took part in a choice.",
        f"Versions: {', '.join(f'{name} {versions[name]}' for name in OWN if name in versions)}.",
    ]
    columns = text_columns("Tool", "Scores that are equal", "Options of evaluate", "Equal on")
    return Generated(Table(columns, rows, notes=notes), [record])


def distances() -> Generated:
    """HD95 of the same masks by definition."""
    record = read_result("judges")
    answers = record.data["answers"]
    asked = [("brainsegnet", "hd95 max"), ("monai", "hd95"), ("brainsegnet", "hd95 pooled"), ("medpy", "hd95")]
    asked += [("surface_distance", "hd95"), ("brats2026", "hd95")]
    rows: list[list[Cell]] = [
        [f"{name.capitalize()}; {region}", *(_cell(answers[tool][name][region][score]) for tool, score in asked)]
        for name, regions in SHOWN.items()
        for region in regions
    ]
    headings = ["max", "MONAI", "pooled", "MedPy", "Surface elements", "BraTS 2026"]
    notes = [
        "Millimetres. Surface elements: surface-distance, and with it the scripts of BraTS 2023.",
        "Thick slices: 6.5 mm, pixels of 1.2 mm. Each single voxel is in another place.",
    ]
    columns = [*text_columns("Masks"), *number_columns(*headings, form=".2f")]
    return Generated(Table(columns, rows, notes=notes), [record])


def surface_dice() -> Generated:
    """Surface Dice of the same masks by definition."""
    record = read_result("judges")
    answers = record.data["answers"]
    tools = ("brainsegnet", "monai", "surface_distance", "brats2026")
    rows: list[list[Cell]] = [
        [f"{name.capitalize()}; whole", *(answers[tool][name]["whole"]["surface dice"] for tool in tools)]
        for name in SURFACE_MASKS
    ]
    columns = [*text_columns("Masks"), *number_columns("brainsegnet", "MONAI", "surface-distance", "BraTS 2026")]
    notes = ["At 1 mm; BraTS 2026 takes 0.5 mm."]
    return Generated(Table(columns, rows, notes=notes), [record])


def empty_masks() -> Generated:
    """What every tool says of empty masks."""
    record = read_result("judges")
    rows: list[list[Cell]] = [["brainsegnet", "1", "0", "0", f"{_diagonal(record.data):.2f} (diagonal)"]]
    for name, title in TITLES.items():
        found = record.data["answers"].get(name)
        if found:
            both, one = found["nothing at all"]["whole"], found["nothing predicted"]["whole"]
            rows.append([title, *(_word(cell.get(score)) for score in ("dice", "hd95") for cell in (both, one))])
    columns = [
        *text_columns("Tool"),
        *(
            Column(heading, ".2f")
            for heading in ("Dice, both empty", "Dice, one empty", "HD95, both empty", "HD95, one empty")
        ),
    ]
    notes = ["One empty: nothing is predicted. None: a value that is not a number, or an error. Blank: no such score."]
    return Generated(Table(columns, rows, notes=notes), [record])


def _diagonal(data: Mapping[str, Any]) -> float:
    return float(data["answers"]["brainsegnet"]["nothing predicted"]["whole"]["hd95 max"])


def _cell(value: float | str) -> float | str:
    return "infinite" if value == "inf" else value


def _word(value: float | str | None) -> str:
    """A number as short as it is, or what a tool says instead."""
    if value is None:
        return ""
    return {"inf": "infinite", "nan": "none"}.get(str(value), f"{value:g}" if isinstance(value, float | int) else "")
