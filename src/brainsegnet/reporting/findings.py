"""What a report says of the lesions of one patient: the short answers at its top, and the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainsegnet._types import Array
from brainsegnet.metrics.lesions import (
    ANY_LESION,
    ENHANCING,
    Lesion,
    choose_region,
    is_larger_than_speck,
    measure_lesions,
)
from brainsegnet.metrics.table import Cell, Column, Span, Table, number_columns, text_columns
from brainsegnet.plotting.viewer import Shown, bring_images, describe_regions, get
from brainsegnet.reporting.places import Places, find_places
from brainsegnet.task import TUMOUR

MOST_LISTED = 25
"""Number of lesions that are listed: the largest."""
_WHOLE = 0.995
"""Share of a lesion in one part of the brain from which no share is told."""
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, eq=False)
class Findings:
    """A result, measured.

    Attributes:
        shown: Label map, images and JSON.
        arrays: Sequence to its image (D, H, W) on the grid of the label map.
        places: The brain, and the atlas in its place.
        region: Region whose lesions are measured.
        lesions: These lesions, the largest volume first.
    """

    shown: Shown
    arrays: Mapping[str, Array]
    places: Places
    region: str
    lesions: Sequence[Lesion]

    @classmethod
    def of(cls, shown: Shown) -> "Findings":
        """Measure a result. Errors are those of `bring_images` and `measure_lesions`."""
        region = choose_region(shown.labels, shown.task)
        arrays = bring_images(shown)
        places = find_places(shown, arrays)
        return cls(shown, arrays, places, region, measure_lesions(shown.labels, shown.task, places.atlas, region))

    @property
    def is_tumour(self) -> bool:
        """Whether the task finds tumours, which RANO is for."""
        return self.shown.task.disease == TUMOUR


@dataclass(frozen=True)
class Tile:
    """A large answer to a short question.

    Attributes:
        question: What is answered.
        answer: The answer, in a few words.
        lines: Smaller words below.
    """

    question: str
    answer: str
    lines: Sequence[str] = ()


def list_tiles(found: Findings) -> list[Tile]:
    """Where the largest lesion is, how large, and how sure that is."""
    rows = {row["name"]: row for row in describe_regions(found.shown, None)}
    whole = next(iter(rows.values()))
    tiles = [Tile("Lesion", "None found")]
    if found.lesions:
        first, count = found.lesions[0], sum(map(is_larger_than_speck, found.lesions))
        more = f"the largest of {count}" if count > 1 else "the only one"
        lines = [f"{first.volume_ml:.1f} ml"]
        if found.is_tumour:
            lines.append("measurable (RANO)" if first.measurable else "not measurable (RANO)")
        where = describe_place(first) or "place not known"
        tiles = [
            Tile("Where", where[0].upper() + where[1:], [f"{_name_region(found.region)}, {more}"]),
            Tile("How large", f"{spell_size(first)} mm", lines),
        ]
    tiles.append(Tile("Volume of all", f"{whole['ml']:.1f} ml", [whole["name"], *_tell_interval(whole)]))
    measured = rows.get(found.region, whole)
    if measured["expected"] is not None:
        others = [f"{name} {row['expected']:.2f}" for name, row in rows.items() if row not in (measured,)]
        lines = [f"{measured['name']}: mean on unseen cases", *([", ".join(others)] if others else [])]
        tiles.append(Tile("How sure", f"Dice {measured['expected']:.2f}", lines))
    return tiles


def _tell_interval(row: Mapping[str, Any]) -> list[str]:
    if not row["interval"]:
        return []
    low, high = row["interval"]
    return [f"80 % interval {low:.1f} to {high:.1f} ml"]


def spell_size(lesion: Lesion, form: str = ".0f") -> str:
    """Both diameters in millimetres, without the unit."""
    return f" {_TIMES} ".join(f"{mm:{form}}" for mm in lesion.diameters_mm)


def describe_place(lesion: Lesion) -> str:
    """Where a lesion lies, as in "left cerebrum, deep (72 %)"; empty if it is not known."""
    if not lesion.place:
        return ""
    share = f" ({100 * lesion.share:.0f} %)" if lesion.share < _WHOLE else ""
    if lesion.side == "both":
        return f"{lesion.place}, both sides{share}"
    return f"{lesion.side} {lesion.place}{share}"


def tabulate_volumes(shown: Shown) -> Table:
    """Volume of each region and tissue, with the interval and the Dice on unseen cases where they are known."""
    rows: list[list[Cell]] = []
    intervals = get(shown.note, "uncertainty", "volume_intervals")
    for row in describe_regions(shown, None):
        ends = Span(*row["interval"]) if row["interval"] else None
        rows.append([row["name"], row["ml"], ends, _tell_coverage(get(intervals, row["name"])), row["expected"]])
    known = {*shown.task.regions.values()}
    of_tissues = [(tissue, value) for value, tissue in shown.task.labels.items() if (value,) not in known]
    rows += [[f"tissue: {tissue}", _measure_ml(shown, value), None, None, None] for tissue, value in of_tissues]
    columns = [*text_columns("Region"), *number_columns("Volume, ml", "80 % interval, ml", form=".1f")]
    columns += [*text_columns("Interval held the truth"), Column("Dice on unseen cases", ".2f")]
    if shown.note.get("corrected") is True:
        return Table(columns[:2], [row[:2] for row in rows])
    notes = [] if intervals else ["Intervals are given with segment --report or --uncertainty."]
    return Table(columns, rows, notes=tuple(notes))


def _tell_coverage(interval: Mapping[str, Any]) -> str | None:
    share, cases = interval.get("coverage"), interval.get("cases")
    if not (isinstance(share, int | float) and isinstance(cases, int) and cases):
        return None
    return f"in {round(share * cases)} of {cases} cases"


def tabulate_lesions(lesions: Sequence[Lesion], tumour: bool) -> Table | None:
    """One lesion in each row, the largest first; None if there is none."""
    if not lesions:
        return None
    listed = [lesion for lesion in lesions if is_larger_than_speck(lesion)] or list(lesions)
    rows = list[list[Cell]]()
    for lesion in listed[:MOST_LISTED]:
        x, y, z = lesion.centre_mm
        centre = ", ".join(str(round(mm)).replace("-", "\N{MINUS SIGN}") for mm in (-x, -y, z))
        told, yes = describe_place(lesion) or "not known", "yes" if lesion.measurable else "no"
        measures: list[Cell] = [spell_size(lesion, ".1f"), lesion.volume_ml, *([yes] if tumour else [])]
        rows.append([lesion.number, told, *measures, lesion.slice_index, centre])
    columns = [Column("No."), *text_columns("Place"), Column("Diameters, mm"), Column("Volume, ml", ".2f")]
    columns += [*text_columns(*(["Measurable"] if tumour else [])), Column("Slice"), Column("Centre, mm")]
    rest = [*listed[MOST_LISTED:], *(lesion for lesion in lesions if lesion not in listed)]
    told_rest = f"{len(rest)} smaller ones with {sum(lesion.volume_ml for lesion in rest):.2f} ml are not listed."
    return Table(columns, rows, notes=(told_rest,) if rest else ())


def tabulate_rest(found: Findings) -> Table | None:
    """The components of all tissues together, where the lesions are those of one tissue."""
    if found.region != ENHANCING:
        return None
    shown = found.shown
    every = measure_lesions(shown.labels, shown.task, found.places.atlas, ANY_LESION)
    return tabulate_lesions(every, found.is_tumour)


def _name_region(region: str) -> str:
    return {ENHANCING: "enhancing lesion", ANY_LESION: "lesion", "lesion": "lesion"}.get(region, f"{region} lesion")


def _measure_ml(shown: Shown, value: int) -> float:
    return float(np.count_nonzero(shown.labels.array == value)) * shown.labels.voxel_ml
