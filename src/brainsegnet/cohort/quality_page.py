"""The pages of `cohort report` as HTML: a summary, the cases, and a table of their names.

`quality.html.j2` and `names.html.j2` write them. Pages ask for nothing but their thumbnails. Only the table of names
has a script, of a few lines, which filters it.
"""

import base64
import datetime
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from brainsegnet._atomic import replacing, write_text
from brainsegnet.cohort.outliers import LEAST_CASES, LIMIT, Measure, name_measure
from brainsegnet.cohort.quality import Group, Seen, Summary
from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from brainsegnet.plotting.histogram import draw_histogram
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.thumbnails import BRAIN, SIZE
from brainsegnet.task import TUMOUR, Task

PAGES = "pages"
"""Folder of all pages but the first, in that of the report."""
NAMES = "names.html"
MOST_KINDS = 40
"""Kinds of failures, and of warnings, that are listed: the most frequent."""
_HEADINGS = {
    Group.FAILED: "Failed",
    Group.OUTLIER: "Outliers",
    Group.WARNED: "With warnings",
    Group.REST: "The others, by name",
}
_BESIDE = 3
"""Pages before and after this one that are linked."""


@dataclass(frozen=True)
class _Frame:
    """What all pages share.

    Attributes:
        title: The heading.
        about: A line below it.
        regions: Region to what it is called.
        pages: Number of pages with cases.
    """

    title: str
    about: str
    regions: Mapping[str, str]
    pages: int


def write_pages(cases: Sequence[Seen], summary: Summary, folder: Path, task: Task | None, page_cases: int) -> None:
    """Write the pages, the first one last, so that an unfinished report is not seen.

    Args:
        cases: All cases in their order.
        summary: The cohort as a whole.
        folder: Folder of the report.
        task: What the labels mean; None without a result.
        page_cases: Cases on a page.

    Raises:
        OutputError: a page cannot be written.
    """
    shown = [one for one in cases if one.status in ("done", "failed")]
    parts = [shown[start : start + page_cases] for start in range(0, len(shown), page_cases)] or [[]]
    regions = _name_regions(shown, task)
    frame = _Frame(f"Cohort {folder.parents[1].resolve().name}", _describe(summary, folder, task), regions, len(parts))
    homes = {one.number: _name_page(1 + place // page_cases) for place, one in enumerate(shown)}
    with replacing(folder / PAGES) as temporary:
        temporary.mkdir()
        for number, part in enumerate(parts[1:], 2):
            write_text(_render_cases(frame, number, part), temporary / _name_page(number).rpartition("/")[2])
        write_text(_render_names(frame, cases, homes), temporary / NAMES)
    write_text(_render_cases(frame, 1, parts[0], _summarise(shown, summary, regions, task)), folder / "index.html")


def _render_cases(frame: _Frame, number: int, cases: Sequence[Seen], summary: Mapping[str, Any] | None = None) -> str:
    up = "" if number == 1 else "../"
    groups = [(_HEADINGS[group], list(part)) for group, part in groupby(cases, key=lambda one: one.group)]
    return _render(
        "quality.html.j2",
        frame=frame,
        number=number,
        near=_near(number, frame.pages),
        groups=[(heading, [_show(one, up, frame.regions) for one in part]) for heading, part in groups],
        summary=summary,
        up=up,
        names=f"{up}{PAGES}/{NAMES}",
        size=SIZE,
        style=_read_style(),
        version=version("brainsegnet"),
        address=lambda page: f"{up}{_name_page(page)}",
    )


def _render_names(frame: _Frame, cases: Sequence[Seen], homes: Mapping[int, str]) -> str:
    """The table of names, with the script that filters it."""
    script = files("brainsegnet.cohort").joinpath("names.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    words = {Group.OUTLIER: ", outlier", Group.WARNED: ", warnings"}
    rows = []
    for one in sorted(cases, key=lambda one: one.case):
        page = f"../{homes[one.number]}#case{one.number}" if one.number in homes else ""
        rows.append((one.case, page, f"{one.status}{words.get(one.group, '')}"))
    return _render(
        "names.html.j2",
        frame=frame,
        rows=rows,
        style=_read_style(),
        script=script,
        digest=digest,
    )


def _show(one: Seen, up: str, regions: Mapping[str, str]) -> dict[str, Any]:
    """What the template shows of a case."""
    results = f"{up}../"
    known = {told: one.measures.get(Measure("volume", name)) for name, told in regions.items()}
    json = f"{one.labels.removesuffix('.nii.gz')}.json" if one.labels else ""
    links = [("label map", one.labels), ("JSON", json), ("report", one.report)]
    return {
        "number": one.number,
        "case": one.case,
        "kind": one.kind,
        "picture": f"{up}{quote(one.picture.file)}" if one.picture.file else "",
        "lacks": one.picture.lacks,
        "volumes": ", ".join(f"{told} {ml:.1f} ml" for told, ml in known.items() if ml is not None),
        "reasons": one.reasons,
        "sentences": [said.removeprefix(f"case {one.case}: ") for said in one.sentences],
        "links": [(word, f"{results}{quote(path)}") for word, path in links if path],
    }


def _summarise(
    cases: Sequence[Seen], summary: Summary, regions: Mapping[str, str], task: Task | None
) -> dict[str, Any]:
    """What the template shows of the whole cohort."""
    groups, palette = Counter(one.group for one in cases), colours(task, "safe") if task else {}
    tiles = [(name, summary.states[name]) for name in ("done", "failed", "running", "waiting")]
    tiles = [(name, count) for name, count in tiles if count or name in ("done", "failed")]
    tiles += [("outliers", groups[Group.OUTLIER]), ("with warnings alone", groups[Group.WARNED])]
    done, charts = [one for one in cases if one.status == "done"], []
    for name, told in regions.items():
        values = [one.measures[key] for one in done if (key := Measure("volume", name)) in one.measures]
        charts.append((told, draw_histogram(values, f"Histogram of the volume: {told}", "ml"), _tell_volumes(values)))
    return {
        "tiles": tiles,
        "charts": charts if done else [],
        "failures": _tabulate(summary.failures, "Kind", "Sentence"),
        "warnings": _tabulate(summary.warnings, "Warning"),
        "work": _tabulate(summary.work, "Processor", "Arithmetic"),
        "seconds": _tabulate_seconds(summary.seconds),
        "legend": [(task.labels[value], _hex(colour)) for value, colour in palette.items()] if task else [],
        "brain": _hex(BRAIN),
        "least": LEAST_CASES,
        "limit": LIMIT,
        "few": len(done) < LEAST_CASES,
    }


def _tabulate(counted: Counter[Any], *words: str) -> str:
    """A table of words and their number of cases, the most frequent first; empty without a row."""
    rows: list[list[Cell]] = []
    for said, count in counted.most_common(MOST_KINDS):
        rows.append([*(said if isinstance(said, tuple) else (said,)), count])
    return Table([*text_columns(*words), *number_columns("Cases")], rows).to_html() if rows else ""


def _tabulate_seconds(seconds: Mapping[str, Sequence[float]]) -> str:
    """Median and 95th percentile of each stage, and the hours of all cases."""
    rows: list[list[Cell]] = []
    for stage, values in seconds.items():
        middle, most = np.percentile(values, (50, 95)).tolist()
        rows.append([stage, middle, most, sum(values) / 3600])
    columns = number_columns("Median, s", "95th percentile, s", "All cases, h", form=".2f")
    return Table([*text_columns("Stage"), *columns], rows).to_html() if rows else ""


def _tell_volumes(values: Sequence[float]) -> str:
    low, middle, high = np.percentile(values, (5, 50, 95)).tolist() if values else (0.0, 0.0, 0.0)
    zeros = sum(value <= 0 for value in values)
    none = f"; 0 ml in {zeros} of {len(values)}" if zeros else ""
    return f"median {middle:.1f} ml, 5th to 95th percentile {low:.1f} to {high:.1f} ml{none}"


def _describe(summary: Summary, folder: Path, task: Task | None) -> str:
    total, states = summary.states.total(), summary.states
    share = f"{states['done']:,} of {total:,} cases done, {states['failed']:,} failed"
    kind = f"task {task.name}, " if task else ""
    today = datetime.date.today().isoformat()
    return f"{kind}model {folder.parent.name}: {share}; report of {today}"


def _name_regions(cases: Iterable[Seen], task: Task | None) -> dict[str, str]:
    tumour = task is not None and task.disease == TUMOUR
    first: Mapping[Measure, float] = next((one.measures for one in cases if one.measures), {})
    return {measure.name: name_measure(measure, tumour) for measure in first if measure.kind == "volume"}


def _near(number: int, pages: int) -> list[int | None]:
    """Pages to link: the first, the last, and those around this one; None where some are left out.

    Examples:
        >>> _near(1, 3), _near(10, 50)
        ([1, 2, 3], [1, None, 7, 8, 9, 10, 11, 12, 13, None, 50])
    """
    kept = [page for page in range(1, pages + 1) if page in (1, pages) or abs(page - number) <= _BESIDE]
    found: list[int | None] = []
    for before, page in zip([0, *kept], kept, strict=False):
        found += [page] if page == before + 1 else [None, page]
    return found


def _name_page(number: int) -> str:
    """The file of a page, relative to the folder of the report."""
    return "index.html" if number == 1 else f"{PAGES}/{number:04d}.html"


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _render(template: str, **content: Any) -> str:  # noqa: ANN401
    page: str = _template(template).render(content)
    return page


@cache
def _template(name: str) -> Any:  # noqa: ANN401
    from jinja2 import Environment, StrictUndefined

    writer = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return writer.from_string(files("brainsegnet.cohort").joinpath(name).read_text("utf-8"))


@cache
def _read_style() -> str:
    """The style of the reports on patients, and what these pages add to it."""
    homes = (("brainsegnet.reporting", "patient.css"), ("brainsegnet.cohort", "quality.css"))
    return "".join(files(home).joinpath(name).read_text("utf-8") for home, name in homes)
