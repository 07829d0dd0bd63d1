"""Drawings of a follow-up: volumes over time, and the studies side by side at one level of the head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from brainsegnet.followup.compare import Placed, Timeline, TrackedLesion
from brainsegnet.followup.retest import find_interval
from brainsegnet.plotting.overlays import overlay, shades, spelt
from brainsegnet.plotting.palettes import colours
from brainsegnet.plotting.slices import Picture, Scene, View, arrange, literal
from brainsegnet.preprocessing.alignment import resample

_INK, _FAINT, _GRID, _BAND = "#1d2733", "#5d6b7a", "#e3e8ed", "#e8eef4"
_VERDICTS = {"grown": "#d55e00", "shrunk": "#0072b2", "stable": "#5d6b7a", "not known": "#5d6b7a"}
"""Colours that the colour-blind tell apart (Okabe and Ito)."""
_PANEL, _KEY = 2.9, 0.35
"""Inches: width of a picture of one study, height of the key."""
APART_MM = 6.0
"""Levels nearer to each other than this are drawn once."""
MOST_STUDIES = 4
"""Studies side by side: the first and the last ones."""
SHOWN = ("flair", "t1c", "dwi", "t2", "adc", "t1")
"""Sequences in the order in which two are chosen to be drawn."""
SCALE_MM = 50


@dataclass(frozen=True)
class Level:
    """An axial slice of the first study's grid, turned upright and cropped, and a lesion that is seen there."""

    index: int
    track: TrackedLesion


def chart_volumes(timeline: Timeline, region: str) -> Figure:
    """Volumes of a region over time; the band is where a repeat of the first study would lie."""
    volumes = timeline.volumes[region]
    days = [one.study.day for one in timeline.placed]
    first = days[0]
    known = [day for day in days if day is not None]
    at = [float((day - first).days) for day in known] if first and len(known) == len(days) else []
    at = at if len(set(at)) == len(days) else [float(number) for number in range(1, len(days) + 1)]
    dated = at[0] == 0.0
    figure = Figure(figsize=(6.2, 3.1), facecolor="white")
    figure.set_layout_engine("constrained")
    axes: Axes = figure.subplots()
    verdicts = ["stable", *(change.verdict for change in timeline.since_first[region])]
    if timeline.note and (repeat := timeline.note.volumes.get(region)):
        low, high = find_interval(volumes[0], repeat)
        axes.axhspan(low, high, color=_BAND, zorder=0)
        for x, ml, verdict in zip(at, volumes, verdicts, strict=True):
            axes.vlines(x, *find_interval(ml, repeat), color=_VERDICTS[verdict], linewidth=1.6)
    axes.plot(at, volumes, color=_FAINT, linewidth=1.2, zorder=2)
    for x, ml, verdict, later in zip(at, volumes, verdicts, [*volumes[1:], 0.0], strict=True):
        axes.plot([x], [ml], "o", color=_VERDICTS[verdict], markersize=7, zorder=3)
        below = later > ml  # where no line runs
        axes.annotate(
            f"{ml:.1f}", (x, ml), (8, -14 if below else 6), textcoords="offset points", color=_INK, fontsize=10
        )
    _finish(axes, at, dated)
    axes.set_ylim(0, 1.15 * max(axes.get_ylim()[1], *volumes, 0.1))
    return figure


def choose_levels(timeline: Timeline, scene: Scene, most: int) -> list[Level]:
    """The slices to show: through lesions that changed first, then through the largest."""
    changed = [track for track in timeline.tracks if _changed(track)]
    others = [track for track in timeline.tracks if not _changed(track)]
    ranked = [*sorted(changed, key=_change_ml, reverse=True), *sorted(others, key=_largest_ml, reverse=True)]
    levels: list[Level] = []
    for track in ranked:
        index = _find_level(track, timeline.placed, scene)
        apart = [abs(index - level.index) * scene.spacing_mm[0] for level in levels]
        if 0 <= index < scene.box.shape[0] and all(mm >= APART_MM for mm in apart) and len(levels) < most:
            levels.append(Level(index, track))
    return levels


def arrange_studies(timeline: Timeline) -> Scene:
    """How the first study's grid is turned and cropped for pictures."""
    first = timeline.placed[0]
    return arrange(next(iter(first.images.values())), [first.study.shown.labels.array], "slice")


def draw_level(timeline: Timeline, scene: Scene, level: Level, names: Sequence[str]) -> Figure:
    """The studies side by side at one level of the first study, a row for each sequence, with outlines of the labels.

    Args:
        timeline: The follow-up.
        scene: That of `arrange_studies`.
        level: The slice.
        names: Above each column, for each study.
    """
    numbers = choose_columns(len(timeline.placed))
    placed = [timeline.placed[number] for number in numbers]
    rows = choose_sequences(timeline.placed)
    tall, wide = View(0, level.index).size_mm(scene.spacing_mm, scene.box.shape)
    panel = _PANEL * tall / wide
    width, height = len(placed) * _PANEL, len(rows) * panel + 0.3 + _KEY
    figure = Figure(figsize=(width, height), facecolor="black")
    grid = timeline.placed[0].study.shown.labels
    palette = colours(timeline.task)
    for column, one in enumerate(placed):
        labels = scene.turn(resample(one.study.shown.labels, grid, one.transform).array)
        for row, sequence in enumerate(rows):
            left, bottom = column / len(placed), 1 - (0.3 + (row + 1) * panel) / height
            axes = figure.add_axes((left, bottom, 0.99 / len(placed), 0.99 * panel / height))
            grey = _cut_grey(one, sequence, timeline, scene, level)
            picture = (
                shades(np.zeros((1, 1)))
                if grey is None
                else overlay(grey, View(0, level.index).cut(labels), palette, 0.15)
            )
            axes.imshow(picture, extent=(0, wide, tall, 0), interpolation="bicubic")
            axes.set_axis_off()
            _annotate(axes, spelt(sequence) if column == 0 else "", scale=row == len(rows) - 1, size=(tall, wide))
        figure.text((column + 0.5) / len(placed), 1 - 0.16 / height, literal(names[numbers[column]]), color="white",
                    size=10, ha="center", va="center")  # fmt: skip
    tissues = [Patch(color=palette[value], label=literal(name)) for value, name in timeline.task.labels.items()]
    figure.legend(handles=tissues, loc="lower center", ncols=len(tissues), frameon=False, labelcolor="white",
                  fontsize=9, handlelength=1.0, handleheight=1.0)  # fmt: skip
    return figure


def choose_columns(count: int) -> list[int]:
    """The studies that are drawn: the first and the last ones.

    Examples:
        >>> choose_columns(2), choose_columns(6)
        ([0, 1], [0, 3, 4, 5])
    """
    return list(range(count)) if count <= MOST_STUDIES else [0, *range(count - MOST_STUDIES + 1, count)]


def choose_sequences(placed: Sequence[Placed]) -> list[str]:
    """At most two sequences to draw, those that most studies have, in the order of `SHOWN`."""
    names = list(dict.fromkeys(name for one in placed for name in one.images))
    count = {name: sum(name in one.images for one in placed) for name in names}
    rank = {name: place for place, name in enumerate(SHOWN)}
    return sorted(names, key=lambda name: (-count[name], rank.get(name, len(rank))))[:2]


def _cut_grey(one: Placed, sequence: str, timeline: Timeline, scene: Scene, level: Level) -> Picture | None:
    if sequence not in one.images:
        return None
    image = resample(one.images[sequence], timeline.placed[0].study.shown.labels, one.transform)
    return View(0, level.index).cut(scene.grey(image))


def _annotate(axes: Axes, name: str, scale: bool, size: tuple[float, float]) -> None:
    tall, wide = size
    for place, side, align in ((0.03, "R", "left"), (0.97, "L", "right")):
        axes.text(place, 0.97, side, color="0.75", size=9, ha=align, va="top", transform=axes.transAxes)
    if name:
        axes.text(0.03, 0.03, literal(name), color="white", size=9, ha="left", va="bottom", transform=axes.transAxes)
    if scale:
        axes.plot([0.96 * wide - SCALE_MM, 0.96 * wide], [0.97 * tall] * 2, color="white", linewidth=1.5)
        axes.text(
            0.96 * wide - SCALE_MM / 2,
            0.955 * tall,
            f"{SCALE_MM // 10} cm",
            color="white",
            size=8,
            ha="center",
            va="bottom",
        )
    axes.set_xlim(0, wide)
    axes.set_ylim(tall, 0)


def _finish(axes: Axes, at: Sequence[float], dated: bool) -> None:
    axes.set_xticks(list(at))
    axes.set_xticklabels([f"{x:.0f}" for x in at])
    axes.set_xlabel("Days since the first study" if dated else "Study", color=_FAINT)
    axes.set_ylabel("ml", color=_FAINT)
    room = 0.08 * (at[-1] - at[0])
    axes.set_xlim(at[0] - room, at[-1] + 2 * room)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(colors=_FAINT, length=0)


def _changed(track: TrackedLesion) -> bool:
    return any(step.volume.verdict in ("grown", "shrunk") for step in track.steps)


def _change_ml(track: TrackedLesion) -> float:
    return max(abs(step.volume.after - step.volume.before) for step in track.steps)


def _largest_ml(track: TrackedLesion) -> float:
    return max(track.volumes_ml)


def _find_level(track: TrackedLesion, placed: Sequence[Placed], scene: Scene) -> int:
    """Where the largest lesion of a group is widest, as a slice of the turned and cropped grid of the first study."""
    lesion, one = max(
        ((lesion, one) for one, found in zip(placed, track.lesions, strict=True) for lesion in found),
        key=lambda pair: pair[0].volume_ml,
    )
    own, first = one.study.shown.labels, placed[0].study.shown.labels
    at = np.linalg.inv(first.affine) @ np.linalg.inv(one.matrix) @ own.affine @ (*lesion.voxel, 1)
    axis = scene.how.axes[0]
    index = float(at[axis])
    if scene.how.flips[0]:
        index = first.shape[axis] - 1 - index
    return round(index) - scene.box.start[0]
