"""The report on one patient: where the lesions lie, how large they are and how sure that is, on one HTML page.

It is made from a result on disk, a label map with its JSON and its images. `patient.html.j2` writes the page, with its
pictures and styles inside, and neither scripts nor addresses of anything outside.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._atomic import hash_file, writable, write_text
from brainsegnet._types import Array
from brainsegnet.metrics.lesions import ANY_LESION, ENHANCING, Lesion, choose_region, measure_lesions
from brainsegnet.metrics.table import Cell, Column, Span, Table, number_columns, text_columns
from brainsegnet.model.card import INTENDED_USE
from brainsegnet.plotting.overlays import spelt
from brainsegnet.plotting.panels import AXIAL, CORONAL, FILL, PLANES, SAGITTAL, Panel, Panels, choose_key
from brainsegnet.plotting.result import open_result
from brainsegnet.plotting.viewer import Shown, bring_images, describe_regions, list_warnings
from brainsegnet.reporting import ReportOptions
from brainsegnet.reporting.identity import Names
from brainsegnet.reporting.places import Places, find_places
from brainsegnet.reporting.provenance import describe_command, describe_images, describe_model, describe_work
from brainsegnet.task import TUMOUR

MOST_DRAWN, MOST_LISTED = 4, 25
"""Number of lesions that are drawn, and listed: the largest."""
SPECK_MM = 3.0
"""Lesions with a smaller largest diameter are counted, not listed, unless all are."""
_DRAWN_FROM = 0.1
"""Share of the volume of the largest lesion from which others are drawn too."""
_CODE_DIGITS = 8
_TIMES = "\N{MULTIPLICATION SIGN}"
_WHOLE = 0.995
"""Share of a lesion in one part of the brain from which no share is told."""


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


@dataclass(frozen=True)
class DrawnLesion:
    """A lesion in every sequence, with a line above."""

    line: str
    panels: Sequence[Panel]


def write_patient_report(
    result: Path, out: Path, options: ReportOptions | None = None, images: Sequence[Path] = ()
) -> None:
    """Write the report on a result: one HTML page that opens offline.

    Args:
        result: Label map, as `segment` wrote it. The JSON beside it tells the images.
        out: Page to write, .html.
        options: Whether names of the case and its files are shown.
        images: Images, or folders that hold them, where they were moved.

    Raises:
        ImageError: a file cannot be read, no image is found, or one has changed since it was segmented.
        LabelError: the label map holds values that its task does not have.
        OutputError: the page cannot be written.
    """
    writable(out, (".html",))
    shown = open_result(result, images)
    write_text(render_patient(shown, result, options or ReportOptions()), out)


def render_patient(shown: Shown, result: Path, options: ReportOptions) -> str:
    """The page of a result whose label map is the file `result`."""
    from jinja2 import Environment, StrictUndefined

    shown.task.check(shown.labels.array, shown.name)
    arrays = bring_images(shown)
    places = find_places(shown, arrays)
    region = choose_region(shown.labels, shown.task)
    lesions = measure_lesions(shown.labels, shown.task, places.atlas, region)
    names = Names.of(shown.name, result, shown.note, options.identify)
    digest = hash_file(result)
    content = {
        "title": shown.name if options.identify else f"Case {digest[:_CODE_DIGITS]}",
        "about": f"Report of {datetime.date.today().isoformat()}",
        "use": str(shown.note.get("intended_use") or INTENDED_USE),
        "corrected": shown.note.get("corrected") is True,
        "warnings": [names.hide(sentence) for sentence in (*list_warnings(shown), *filter(None, [places.doubt]))],
        "tiles": list_tiles(shown, lesions, region),
        "key": _draw_key(shown, arrays, places, lesions, region),
        "legend": [(shown.task.colours[value], tissue) for value, tissue in shown.task.labels.items()],
        "drawn": _draw_lesions(shown, arrays, places, lesions, region),
        "volumes": tabulate_volumes(shown),
        "lesions": tabulate_lesions(shown, lesions),
        "tumour": _is_tumour(shown),
        "parts": _tabulate_rest(shown, places, region),
        "places": places,
        "work": [(name, names.hide(fact)) for name, fact in describe_work(shown.note)],
        "model": describe_model(shown.note),
        "images": describe_images(shown.note, digest, options.identify),
        "command": describe_command(shown.note),
        "named": options.identify,
        "version": version("brainsegnet"),
    }
    home = files("brainsegnet.reporting")
    writer = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page, style = (home.joinpath(f"patient.{end}").read_text("utf-8") for end in ("html.j2", "css"))
    return writer.from_string(page).render(content, style=style)


def list_tiles(shown: Shown, lesions: Sequence[Lesion], region: str) -> list[Tile]:
    """Where the largest lesion is, how large, and how sure that is."""
    rows = {row["name"]: row for row in describe_regions(shown, None)}
    whole = next(iter(rows.values()))
    tiles = [Tile("Lesion", "None found")]
    if lesions:
        first, count = lesions[0], sum(map(is_listed, lesions))
        more = f"the largest of {count}" if count > 1 else "the only one"
        lines = [f"{first.volume_ml:.1f} ml"]
        if _is_tumour(shown):
            lines.append("measurable (RANO)" if first.measurable else "not measurable (RANO)")
        where = describe_place(first) or "place not known"
        tiles = [
            Tile("Where", where[0].upper() + where[1:], [f"{_name_region(region)}, {more}"]),
            Tile("How large", f"{_spell_size(first)} mm", lines),
        ]
    tiles.append(Tile("Volume of all", f"{whole['ml']:.1f} ml", [whole["name"], *_tell_interval(whole)]))
    measured = rows.get(region, whole)
    if measured["expected"] is not None:
        others = [f"{name} {row['expected']:.2f}" for name, row in rows.items() if row not in (measured,)]
        lines = [f"{measured['name']}: mean on unseen cases", *([", ".join(others)] if others else [])]
        tiles.append(Tile("How sure", f"Dice {measured['expected']:.2f}", lines))
    return tiles


def is_listed(lesion: Lesion) -> bool:
    """Whether a lesion is more than a speck."""
    return lesion.diameters_mm[0] >= SPECK_MM


def _tell_interval(row: Mapping[str, Any]) -> list[str]:
    if not row["interval"]:
        return []
    low, high = row["interval"]
    return [f"80 % interval {low:.1f} to {high:.1f} ml"]


def _is_tumour(shown: Shown) -> bool:
    return shown.task.disease == TUMOUR


def _spell_size(lesion: Lesion, form: str = ".0f") -> str:
    return f" {_TIMES} ".join(f"{mm:{form}}" for mm in lesion.diameters_mm)


def describe_place(lesion: Lesion) -> str:
    """Where a lesion lies, as in "left cerebrum, deep (72 %)"; empty if it is not known."""
    if not lesion.place:
        return ""
    share = f" ({lesion.share:.0%})" if lesion.share < _WHOLE else ""
    if lesion.side == "both":
        return f"{lesion.place}, both sides{share}"
    return f"{lesion.side} {lesion.place}{share}"


def tabulate_volumes(shown: Shown) -> Table:
    """Volume of each region and tissue, with the interval and the Dice on unseen cases where they are known."""
    rows: list[list[Cell]] = []
    intervals = shown.note.get("uncertainty", {}).get("volume_intervals", {})
    for row in describe_regions(shown, None):
        ends = Span(*row["interval"]) if row["interval"] else None
        rows.append([row["name"], row["ml"], ends, _tell_coverage(intervals.get(row["name"], {})), row["expected"]])
    of_tissues = {tissue: _measure_ml(shown, (value,)) for value, tissue in shown.task.labels.items()}
    regions = {row[0] for row in rows}
    rows += [[f"tissue: {tissue}", ml, None, None, None] for tissue, ml in of_tissues.items() if tissue not in regions]
    columns = [*text_columns("Region"), *number_columns("Volume, ml", "80 % interval, ml", form=".1f")]
    columns += [*text_columns("Interval held the truth"), Column("Dice on unseen cases", ".2f")]
    notes = [] if intervals else ["Intervals are given with segment --report or --uncertainty."]
    return Table(columns, rows, notes=tuple(notes))


def _tell_coverage(interval: Mapping[str, Any]) -> str | None:
    share, cases = interval.get("coverage"), interval.get("cases")
    if not (isinstance(share, int | float) and isinstance(cases, int) and cases):
        return None
    return f"in {round(share * cases)} of {cases} cases"


def tabulate_lesions(shown: Shown, lesions: Sequence[Lesion]) -> Table | None:
    """One lesion in each row, the largest first; None if there is none."""
    if not lesions:
        return None
    listed = [lesion for lesion in lesions if is_listed(lesion)] or list(lesions)
    rows, tumour = list[list[Cell]](), _is_tumour(shown)
    for lesion in listed[:MOST_LISTED]:
        x, y, z = lesion.centre_mm
        centre = ", ".join(f"{mm:.0f}".replace("-", "\N{MINUS SIGN}") for mm in (-x, -y, z))
        told, yes = describe_place(lesion) or "not known", "yes" if lesion.measurable else "no"
        measures: list[Cell] = [_spell_size(lesion, ".1f"), lesion.volume_ml, *([yes] if tumour else [])]
        rows.append([lesion.number, told, *measures, lesion.slice_index, centre])
    columns = [Column("No."), *text_columns("Place"), Column("Diameters, mm"), Column("Volume, ml", ".2f")]
    columns += [*text_columns(*(["Measurable"] if tumour else [])), Column("Slice"), Column("Centre, mm")]
    rest = [*listed[MOST_LISTED:], *(lesion for lesion in lesions if lesion not in listed)]
    told_rest = f"{len(rest)} smaller ones with {sum(lesion.volume_ml for lesion in rest):.2f} ml are not listed."
    return Table(columns, rows, notes=(told_rest,) if rest else ())


def _tabulate_rest(shown: Shown, places: Places, region: str) -> Table | None:
    """The components of all tissues together, where the lesions are those of one tissue."""
    if region != ENHANCING:
        return None
    return tabulate_lesions(shown, measure_lesions(shown.labels, shown.task, places.atlas, ANY_LESION))


def _draw_key(
    shown: Shown, arrays: Mapping[str, Array], places: Places, lesions: Sequence[Lesion], region: str
) -> list[Panel]:
    """The largest lesion in three planes, with its diameters in the axial one."""
    panels = Panels.of(arrays, shown.labels, shown.task, places.brain)
    key, first = choose_key(region, list(arrays)), lesions[0] if lesions else None
    place = panels.frame.find(first.voxel) if first else panels.middle()
    drawn = []
    for plane in (AXIAL, CORONAL, SAGITTAL):
        svg = panels.draw(key, plane, place, opacity=FILL, lesion=first if plane == AXIAL else None)
        drawn.append(Panel(f"{spelt(key)}, {PLANES[plane]}", svg))
    return drawn


def _draw_lesions(
    shown: Shown, arrays: Mapping[str, Array], places: Places, lesions: Sequence[Lesion], region: str
) -> list[DrawnLesion]:
    """The largest lesions, each in the slice of its diameters in every sequence; the middle slice if there is none."""
    panels = Panels.of(arrays, shown.labels, shown.task, places.brain)
    if not lesions:
        slices = [Panel(spelt(name), panels.draw(name, AXIAL, panels.middle())) for name in arrays]
        return [DrawnLesion("Middle slice; no lesion was found", slices)]
    drawn, least_ml = [], _DRAWN_FROM * lesions[0].volume_ml
    for lesion in (one for one in lesions[:MOST_DRAWN] if one.volume_ml >= least_ml):
        place = panels.frame.find(lesion.voxel)
        slices = [Panel(spelt(name), panels.draw(name, AXIAL, place)) for name in arrays]
        where = f"{told}; " if (told := describe_place(lesion)) else ""
        size = f"{_spell_size(lesion)} mm, {lesion.volume_ml:.1f} ml"
        line = f"Lesion {lesion.number}: {where}{size}; slice {lesion.slice_index}"
        drawn.append(DrawnLesion(line, slices))
    return drawn


def _name_region(region: str) -> str:
    return {ENHANCING: "enhancing lesion", ANY_LESION: "lesion", "lesion": "lesion"}.get(region, f"{region} lesion")


def _measure_ml(shown: Shown, values: tuple[int, ...]) -> float:
    return float(np.isin(shown.labels.array, values).sum()) * shown.labels.voxel_ml
