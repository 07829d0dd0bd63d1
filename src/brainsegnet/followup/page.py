"""A follow-up as a page, as rows of a table, and as the content of a JSON file."""

import datetime
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from brainsegnet._atomic import hash_file
from brainsegnet.followup.compare import Change, Timeline, TrackedLesion
from brainsegnet.followup.drawing import (
    arrange_studies,
    chart_volumes,
    choose_columns,
    choose_levels,
    draw_level,
)
from brainsegnet.followup.matching import LEAST_SHARE, REACH_MM, RULE
from brainsegnet.followup.retest import COVERAGE, Repeat, find_interval
from brainsegnet.metrics.table import Cell, Column, Span, Table, number_columns, text_columns
from brainsegnet.model.card import INTENDED_USE
from brainsegnet.plotting.overlays import spelt
from brainsegnet.plotting.slices import inline_svg, render
from brainsegnet.plotting.viewer import list_warnings
from brainsegnet.reporting.identity import Names
from brainsegnet.reporting.sections import Charts, Facts, Picture, Section, Tiles, render_page

MOST_LEVELS, MOST_LESIONS = 3, 30
LEAST_ML = 0.1
"""Lesions that are smaller in every study are not listed on the page."""
_COLUMNS = (
    "kind,region,lesion,study,name,date,volume_ml,change_percent,repeat_low_ml,repeat_high_ml,status,diameter_mm,"
    "perpendicular_mm"
).split(",")


def build_page(timeline: Timeline, identify: bool = False) -> str:
    """The page: warnings first, then volumes, lesions, pictures, and how it was done.

    Args:
        timeline: The follow-up.
        identify: Whether names of cases and dates are shown, which may tell who the patient is.
    """
    names, warned = name_studies(timeline, identify), list(timeline.warnings)
    for number, one in enumerate(timeline.placed, start=1):
        shown = one.study.shown
        hidden = Names.of(one.study.name, one.study.result, shown.note, identify)
        warned += [f"study {number}: {hidden.hide(sentence)}" for sentence in list_warnings(shown)]
    regions = dict.fromkeys(track.region for track in timeline.tracks)
    sections = [
        *([Section("Warnings", notes=warned)] if warned else []),
        Section("Change at a glance", [Tiles(_list_tiles(timeline))], [_describe_glance(timeline)]),
        Section(
            "Volumes",
            [Charts(_list_charts(timeline)), tabulate_volumes(timeline, names)],
            describe_interval(timeline),
        ),
        *(_describe_lesions(timeline, region, names) for region in regions),
        Section("Side by side", _draw_levels(timeline, names), [_describe_pictures(timeline)]),
        Section("Studies", [_tabulate_studies(timeline, names)], [timeline.ordered]),
        Section("How it was done", [Facts(_list_facts(timeline))]),
    ]
    footer = f"Made by brainsegnet {version('brainsegnet')}. {INTENDED_USE[0].upper()}{INTENDED_USE[1:]}."
    made = f"{names[0]} to {names[-1]}; made on {datetime.date.today().isoformat()}"
    return render_page(f"Follow-up: {len(names)} studies", made, sections, footer)


def tabulate(timeline: Timeline) -> Table:
    """Every volume and lesion of every study in rows, for CSV."""
    return Table(
        [Column(name, is_text=name in _COLUMNS[:6] or name == "status") for name in _COLUMNS], [*_rows(timeline)]
    )


def to_json(timeline: Timeline) -> dict[str, Any]:
    """The content of the JSON file."""
    first, note = timeline.placed[0].study, timeline.note
    return {
        "studies": [_describe_study(timeline, number) for number in range(len(timeline.placed))],
        "order": timeline.ordered,
        "task": timeline.task.name,
        "model": {"name": first.model.get("name"), "sha256": first.model.get("sha256")},
        "regions": {
            region: {
                "volumes_ml": _round(ml),
                "since_first": [_to_json(change) for change in timeline.since_first[region]],
                "since_previous": [_to_json(change) for change in timeline.since_previous[region]],
            }
            for region, ml in timeline.volumes.items()
        },
        "lesions": [_describe_track(track) for track in timeline.tracks],
        "matching": {"rule": RULE, "least_share": LEAST_SHARE, "reach_mm": REACH_MM},
        "interval": {"of": "a repeated scan without a change", "fitted_coverage": COVERAGE,
                     "measured": note.model_dump() if note else None},
        "warnings": list(timeline.warnings),
        "brainsegnet": version("brainsegnet"),
        "intended_use": INTENDED_USE,
    }  # fmt: skip


def name_studies(timeline: Timeline, identify: bool = False) -> list[str]:
    """What each study is called: its number, with the days since the first or, if asked for, its name and date."""
    names = []
    for number, one in enumerate(timeline.placed, start=1):
        days = count_days(timeline, number - 1)
        if identify:
            names.append(f"{number} {one.study.name}{f', {one.study.day}' if one.study.day else ''}")
        else:
            names.append(f"study {number}{'' if days is None else f', day {days}'}")
    return names


def count_days(timeline: Timeline, number: int) -> int | None:
    """Days from the first study to another; None if a date is unknown."""
    first, day = timeline.placed[0].study.day, timeline.placed[number].study.day
    return (day - first).days if day and first else None


def tabulate_volumes(timeline: Timeline, names: Sequence[str]) -> Table:
    """Of each region and study: volume, change, and between which volumes a repeat would lie."""
    several = len(timeline.placed) > 2
    rows: list[list[Cell]] = []
    for region, volumes in timeline.volumes.items():
        rows.append([region, names[0], volumes[0], *([None] * (6 if several else 3))])
        changes = zip(timeline.since_first[region], timeline.since_previous[region], strict=True)
        for name, pair in zip(names[1:], changes, strict=True):
            row: list[Cell] = [region, name, pair[0].after]
            for change in pair[: 2 if several else 1]:
                row += [change.percent, _to_span(change), change.verdict]
            rows.append(row)
    columns = [*text_columns("Region", "Study"), Column("ml", ".1f")]
    for group in ("Since first", "Since previous")[: 2 if several else 1]:
        columns += [Column("%", "+.0f", group=group), Column("Repeat, ml", ".1f"), *text_columns("Verdict")]
    return Table(columns, rows, grouped=True, missing="")


def describe_interval(timeline: Timeline) -> list[str]:
    """Sentences on what the interval is, on what it was fitted, and what it does not cover."""
    told = ["Each volume is measured on the study's own voxels."]
    if timeline.note is None:
        return [*told, "There is no interval for this model, so no change is judged."]
    held = "; ".join(f"{region} {_tell(repeat)}" for region, repeat in timeline.note.volumes.items())
    return [
        *told,
        "The band is where a repeat of the first study would lie, and the bars where one of each study would.",
        f"The interval holds {100 * COVERAGE:.0f} % of repeats of unchanged heads, which were moved, resampled, given "
        "new noise and new bias fields, and segmented again.",
        f"Share of pairs that it held, each patient left out in turn: {held}.",
        "It does not cover another scanner, protocol or slice thickness, and it is no error against the truth.",
    ]


def _describe_glance(timeline: Timeline) -> str:
    return "The last study against the first. Grown and shrunk: beyond the interval of a repeated scan."


def _list_tiles(timeline: Timeline) -> list[tuple[str, str, str]]:
    tiles = []
    for region, changes in timeline.since_first.items():
        last = changes[-1]
        percent = "" if last.percent is None else f"{last.percent:+.0f} %"
        span = f", repeat {last.interval[0]:.1f} to {last.interval[1]:.1f} ml" if last.interval else ""
        figure = percent if last.verdict == "not known" else last.verdict
        told = f"{last.before:.1f} to {last.after:.1f} ml{f' ({percent})' if percent else ''}{span}"
        tiles.append((region, figure or "new", told))
    counts: dict[str, int] = {}
    for track in timeline.tracks:
        if track.region == timeline.tracks[0].region:
            for status in {step.status for step in track.steps} & {"new", "vanished", "grown", "shrunk"}:
                counts[status] = counts.get(status, 0) + 1
    if counts:
        told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        tiles.append((f"lesions ({timeline.tracks[0].region})", str(sum(counts.values())), told))
    return tiles


def _list_charts(timeline: Timeline) -> list[tuple[str, str]]:
    charts = []
    for number, region in enumerate(timeline.volumes):
        label = f"Volume of {region} in each study"
        charts.append((region, inline_svg(chart_volumes(timeline, region), f"volume{number}", label)))
    return charts


def _describe_lesions(timeline: Timeline, region: str, names: Sequence[str]) -> Section:
    """The lesions of a region over time."""
    every = [track for track in timeline.tracks if track.region == region]
    tracks = [track for track in every if max(track.volumes_ml) >= LEAST_ML][:MOST_LESIONS]
    columns = [Column("No.", ".0f")]
    for name in names:
        columns += [Column("ml", ".2f", group=name), Column("mm", is_text=True, group=name)]
    columns += text_columns(*(["What happened"] if len(names) == 2 else [f"to {name}" for name in names[1:]]))
    rows: list[list[Cell]] = []
    for track in tracks:
        row: list[Cell] = [track.number]
        for ml, mm, inside in zip(track.volumes_ml, track.diameters_mm, track.inside, strict=True):
            row += [ml if mm else None, f"{mm[0]:.0f} x {mm[1]:.0f}" if mm else "" if inside else "outside the scan"]
        rows.append([*row, *(step.status for step in track.steps)])
    fewer = len(every) - len(tracks)
    more = [f"{fewer} smaller ones are in the CSV and JSON alone."] if fewer else []
    notes = [
        "A row is a lesion, or several that merge or split, with their volume together and the largest diameters in an "
        "axial slice of the study.",
        "Of 20 lesions that have not changed, about one is outside its interval by chance.",
        *more,
    ]
    return Section(f"Lesions: {region}", [Table(columns, rows, missing="")], notes)


def _draw_levels(timeline: Timeline, names: Sequence[str]) -> list[Picture]:
    scene = arrange_studies(timeline)
    pictures = []
    for level in choose_levels(timeline, scene, MOST_LEVELS):
        png = render(draw_level(timeline, scene, level, names), "png", dpi=110)
        track = level.track
        volumes = " to ".join(f"{ml:.2f}" for ml in track.volumes_ml)
        status = ", then ".join(step.status for step in track.steps if step.status)
        name = f"Lesion {track.number} ({track.region})"
        pictures.append(Picture(png, f"{name} in each study at one level", name, f"{volumes} ml; {status}"))
    return pictures


def _describe_pictures(timeline: Timeline) -> str:
    shown = len(choose_columns(len(timeline.placed)))
    which = "" if shown == len(timeline.placed) else f" The first and the last {shown - 1} studies are drawn."
    return (
        "Every study is moved to the first one, so that the same level of the head is shown. The patient's right is at "
        "the left. Outlines are the tissues that the model found." + which
    )


def _tabulate_studies(timeline: Timeline, names: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for name, one in zip(names, timeline.placed, strict=True):
        study, found = one.study, one.registration
        moved = f"{one.sequence[0]}: {found.motion}" if found else "stays"
        voxels = " x ".join(f"{mm:.3g}" for mm in study.shown.labels.spacing_mm[::-1])
        rows.append([name, ", ".join(map(spelt, study.sequences)), voxels, moved, one.shared])
    columns = [
        *text_columns("Study", "Sequences", "Voxels, mm", "Moved to the first by"),
        *number_columns("Shared information", form=".2f"),
    ]
    return Table(columns, rows, missing="")


def _list_facts(timeline: Timeline) -> list[tuple[str, str]]:
    model = timeline.placed[0].study.model
    share = f"lesions that share {100 * LEAST_SHARE:.0f} % of the smaller one"
    files = [(f"label map of study {k}", one.study.result) for k, one in enumerate(timeline.placed, start=1)]
    return [
        ("model", f"{model.get('name')}, weights SHA-256 {model.get('sha256')}"),
        ("matching", f"{RULE}: {share}, then the nearest centres within {REACH_MM:g} mm"),
        ("registration", "rigid, by mutual information"),
        *((name, f"SHA-256 {hash_file(path)}") for name, path in files),
    ]


def _rows(timeline: Timeline) -> Iterator[list[Cell]]:
    for region, volumes in timeline.volumes.items():
        for number, ml in enumerate(volumes):
            change = timeline.since_previous[region][number - 1] if number else None
            status = change.verdict if change else ""
            yield ["region", region, "", *_name(timeline, number), round(ml, 4), *_columns(change), status, None, None]
    for track in timeline.tracks:
        for number, (ml, mm) in enumerate(zip(track.volumes_ml, track.diameters_mm, strict=True)):
            step = track.steps[number - 1] if number else None
            cells = _columns(step.volume if step and step.kind else None)
            row = ["lesion", track.region, str(track.number), *_name(timeline, number), round(ml, 4), *cells]
            yield [*row, step.status if step else "", *(_round(mm) if mm else (None, None))]


def _name(timeline: Timeline, number: int) -> list[Cell]:
    study = timeline.placed[number].study
    return [str(number + 1), study.name, study.day.isoformat() if study.day else ""]


def _columns(change: Change | None) -> list[Cell]:
    if change is None:
        return [None, None, None]
    percent = None if change.percent is None else round(change.percent, 2)
    return [percent, *(_round(change.interval) if change.interval else (None, None))]


def _describe_study(timeline: Timeline, number: int) -> dict[str, Any]:
    one = timeline.placed[number]
    study = one.study
    return {
        "name": study.name,
        "date": study.day.isoformat() if study.day else None,
        "days": count_days(timeline, number),
        "result": study.result.name,
        "sequences": list(study.sequences),
        "spacing_mm": [round(mm, 4) for mm in study.shown.labels.spacing_mm[::-1]],
        "registration": {"sequence": one.sequence[0], "to": one.sequence[1], **one.registration.to_json(),
                         "shared_information": None if one.shared is None else round(one.shared, 4)}
        if one.registration else None,
    }  # fmt: skip


def _describe_track(track: TrackedLesion) -> dict[str, Any]:
    return {
        "number": track.number,
        "region": track.region,
        "volumes_ml": _round(track.volumes_ml),
        "diameters_mm": [None if mm is None else _round(mm) for mm in track.diameters_mm],
        "inside_the_scan": list(track.inside),
        "lesions": [
            [
                {"number": lesion.number, "volume_ml": round(lesion.volume_ml, 4),
                 "diameters_mm": _round(lesion.diameters_mm), "measurable": lesion.measurable,
                 "slice": lesion.slice_index, "centre_ras_mm": _round((-lesion.centre_mm[0], -lesion.centre_mm[1],
                                                                      lesion.centre_mm[2]))}
                for lesion in found
            ]
            for found in track.lesions
        ],
        "steps": [
            {"status": step.status, "kind": step.kind, "volume": _to_json(step.volume),
             "diameter": _to_json(step.diameter) if step.diameter else None}
            for step in track.steps
        ],
    }  # fmt: skip


def _to_json(change: Change) -> dict[str, Any]:
    return {
        "before": round(change.before, 4),
        "after": round(change.after, 4),
        "percent": None if change.percent is None else round(change.percent, 2),
        "interval": None if change.interval is None else _round(change.interval),
        "verdict": change.verdict,
    }


def _round(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]


def _to_span(change: Change) -> Span | None:
    return Span(*change.interval) if change.interval else None


def _tell(repeat: Repeat) -> str:
    low, high = find_interval(10.0, repeat)
    return f"{100 * repeat.coverage:.0f} % of {repeat.pairs} ({low:.1f} to {high:.1f} ml around 10 ml)"
