"""The report on one patient: where the lesions lie, how large they are and how sure that is, on one HTML page.

It is made from a result on disk, a label map with its JSON and its images. `patient.html.j2` writes the page, with its
pictures and styles inside, and neither scripts nor addresses of anything outside.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from brainsegnet._atomic import hash_file, writable, write_text
from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.io.aliases import ORDER
from brainsegnet.model.card import INTENDED_USE
from brainsegnet.plotting.overlays import spelt
from brainsegnet.plotting.panels import AXIAL, CORONAL, FILL, PLANES, SAGITTAL, Panel, Panels, choose_key
from brainsegnet.plotting.result import open_result
from brainsegnet.plotting.viewer import Shown, list_warnings
from brainsegnet.reporting import ReportOptions
from brainsegnet.reporting.findings import (
    Findings,
    describe_place,
    list_tiles,
    spell_size,
    tabulate_lesions,
    tabulate_rest,
    tabulate_volumes,
)
from brainsegnet.reporting.identity import Names
from brainsegnet.reporting.provenance import describe_commands, describe_images, describe_model, describe_work
from brainsegnet.volume import Volume

MOST_DRAWN = 4
"""Number of lesions that are drawn: the largest."""
DRAWN_FROM = 0.1
"""Share of the volume of the largest lesion from which others are drawn too."""
_CODE_DIGITS = 8


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
    shown, options = open_result(result, images), options or ReportOptions()
    if not options.identify:
        shown = replace(shown, images=number_unknown(shown))
    write_text(render_patient(shown, result, options), out)


def number_unknown(shown: Shown) -> dict[str, Volume]:
    """The images of a result; those that are no sequences but called as their files get numbers."""
    used = shown.note.get("sequences")
    listed = used.get("used") if isinstance(used, dict) else None
    known = {*ORDER, *shown.task.sequences, *map(str, listed if isinstance(listed, list) else ())}
    named = enumerate(shown.images.items(), start=1)
    return {name if name in known else f"image {number}": image for number, (name, image) in named}


def render_patient(shown: Shown, result: Path, options: ReportOptions) -> str:
    """The page of a result whose label map is the file `result`. Errors are those of `write_patient_report`."""
    from jinja2 import Environment, StrictUndefined

    shown.task.check(shown.labels.array, shown.name)
    found = Findings.of(shown)
    try:
        content = {**_describe_findings(found), **_describe_origin(found, result, options)}
    except BrainSegNetError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ImageError(f"case {shown.name}: its JSON is damaged ({error}); segment it again") from error
    home = files("brainsegnet.reporting")
    writer = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page, style = (home.joinpath(f"patient.{end}").read_text("utf-8") for end in ("html.j2", "css"))
    return writer.from_string(page).render(content, style=style)


def _describe_findings(found: Findings) -> dict[str, Any]:
    """What the template shows of the lesions."""
    panels = Panels.of(found.arrays, found.shown.labels, found.shown.task, found.places.brain)
    return {
        "tiles": list_tiles(found),
        "key": _draw_key(found, panels),
        "legend": [(found.shown.task.colours[value], tissue) for value, tissue in found.shown.task.labels.items()],
        "drawn": _draw_lesions(found, panels),
        "volumes": tabulate_volumes(found.shown),
        "lesions": tabulate_lesions(found.lesions, found.is_tumour),
        "tumour": found.is_tumour,
        "parts": tabulate_rest(found),
        "places": found.places,
    }


def _describe_origin(found: Findings, result: Path, options: ReportOptions) -> dict[str, Any]:
    """What the template shows of where the result comes from."""
    shown, note, digest = found.shown, found.shown.note, hash_file(result)
    names = Names.of(shown.name, result, note, options.identify)
    return {
        "title": shown.name if options.identify else f"Case {digest[:_CODE_DIGITS]}",
        "about": f"Report of {datetime.date.today().isoformat()}",
        "use": str(note.get("intended_use") or INTENDED_USE),
        "corrected": note.get("corrected") is True,
        "warnings": [names.hide(said) for said in (*list_warnings(shown), found.places.doubt) if said],
        "work": [(name, names.hide(fact)) for name, fact in describe_work(note)],
        "model": [(name, names.hide(fact)) for name, fact in describe_model(note)],
        "images": describe_images(note, digest, options.identify),
        "commands": describe_commands(note, names.hide),
        "named": options.identify,
        "version": version("brainsegnet"),
    }


def _draw_key(found: Findings, panels: Panels) -> list[Panel]:
    """The largest lesion in three planes, with its diameters in the axial one."""
    key, first = choose_key(found.region, list(found.arrays)), found.lesions[0] if found.lesions else None
    place = panels.frame.find(first.voxel) if first else panels.middle()
    drawn = []
    for plane in (AXIAL, CORONAL, SAGITTAL):
        svg = panels.draw(key, plane, place, opacity=FILL, lesion=first if plane == AXIAL else None)
        drawn.append(Panel(f"{spelt(key)}, {PLANES[plane]}", svg))
    return drawn


def _draw_lesions(found: Findings, panels: Panels) -> list[DrawnLesion]:
    """The largest lesions, each in the slice of its diameters in every sequence; the middle slice if there is none."""
    if not found.lesions:
        slices = [Panel(spelt(name), panels.draw(name, AXIAL, panels.middle())) for name in found.arrays]
        return [DrawnLesion("Middle slice; no lesion was found", slices)]
    drawn, least_ml = [], DRAWN_FROM * found.lesions[0].volume_ml
    for lesion in (one for one in found.lesions[:MOST_DRAWN] if one.volume_ml >= least_ml):
        place = panels.frame.find(lesion.voxel)
        slices = [Panel(spelt(name), panels.draw(name, AXIAL, place)) for name in found.arrays]
        where = f"{told}; " if (told := describe_place(lesion)) else ""
        size = f"{spell_size(lesion)} mm, {lesion.volume_ml:.1f} ml"
        line = f"Lesion {lesion.number}: {where}{size}; slice {lesion.slice_index}"
        drawn.append(DrawnLesion(line, slices))
    return drawn
