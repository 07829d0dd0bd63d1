"""Studies of one patient compared: registered to the first, volumes and diameters over time, and lesions one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import ndimage

from brainsegnet._types import Affine, ItkObject
from brainsegnet.errors import DatasetError
from brainsegnet.followup.matching import Match, Outcome, follow_lesions, match_lesions
from brainsegnet.followup.retest import (
    Repeat,
    RetestNote,
    Verdict,
    find_interval,
    find_range,
    judge,
    judge_volumes,
    read_notes,
)
from brainsegnet.followup.studies import SAME_PATIENT, Study
from brainsegnet.metrics.lesions import ANY_LESION, ENHANCING, Lesion, measure_lesions
from brainsegnet.plotting.viewer import bring_images
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.registration import Pyramid, Registration, build_motion, measure, register
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap, Volume, load_itk

LEAST_SHARED = 0.5
"""Share of the smaller of two images' own information that scans of one patient have in common after registration.
The heads of two patients had 0.34 to 0.46, and one head with new noise and bias 0.84 and more."""
MOST_RATIO = 1.5
"""Ratio of the slice spacings of two studies from which the interval of a repeat is doubtful."""
FINEST = 2
"""Level of the pyramid at which agreement is measured."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A study on its own grid, and how it lies to the first one.

    Attributes:
        study: The study.
        images: Each sequence on the grid of the label map.
        sequence: Which was registered, and to which of the first study.
        registration: To the first study; None for the first.
        shared: Share of information in common after registration, see `LEAST_SHARED`; None if not comparable.
    """

    study: Study
    images: Mapping[str, Volume]
    sequence: tuple[str, str] = ("", "")
    registration: Registration | None = None
    shared: float | None = None

    @property
    def transform(self) -> ItkObject:
        """From points of the first study to points of this one; None for the first."""
        return self.registration.transform if self.registration else None

    @property
    def matrix(self) -> Affine:
        """(4, 4) from points of the first study to points of this one, in millimetres."""
        return self.registration.matrix if self.registration else np.eye(4)


@dataclass(frozen=True)
class Change:
    """A volume or diameter compared with an earlier one.

    Attributes:
        before, after: In ml or mm.
        interval: Between which values a repeat of the earlier scan would lie, if nothing has changed; None if that was
            not measured for the model and region.
        verdict: Whether the later value is outside.
    """

    before: float
    after: float
    interval: tuple[float, float] | None
    verdict: Verdict

    @property
    def percent(self) -> float | None:
        """Change in per cent; None from nothing."""
        return 100 * (self.after / self.before - 1) if self.before else None


@dataclass(frozen=True)
class Step:
    """What became of a group of lesions from one study to the next.

    Attributes:
        kind: What happened apart from volumes; empty where there was nothing before and after.
        volume: Volumes of all lesions of the group together.
        diameter: Largest diameters of the group; None where there is no lesion before or after.
    """

    kind: Outcome | None
    volume: Change
    diameter: Change | None = None

    @property
    def status(self) -> str:
        """In words: `grown`, `shrunk` or `stable` for one lesion, else what happened.

        A lesion that appears or vanishes `within the interval` is so small that repeats of one scan differ as much.
        """
        if self.kind is None:
            return ""
        if self.kind == "same":
            return self.volume.verdict
        if self.kind in ("new", "vanished"):
            return self.kind if self.volume.verdict != "stable" else f"{self.kind}, within the interval"
        return self.kind if self.volume.verdict == "not known" else f"{self.kind}, {self.volume.verdict}"


@dataclass(frozen=True)
class TrackedLesion:
    """A group of lesions over all studies.

    Attributes:
        number: From 1, the largest first.
        region: Region whose lesions they are.
        lesions: Of each study, its lesions in the group.
        steps: From each study to the next.
        inside: Of each study, whether its field of view holds the place of the group.
    """

    number: int
    region: str
    lesions: tuple[tuple[Lesion, ...], ...]
    steps: tuple[Step, ...]
    inside: tuple[bool, ...]

    @property
    def volumes_ml(self) -> tuple[float, ...]:
        """Of each study, the volume of all its lesions in the group."""
        return tuple(sum(lesion.volume_ml for lesion in found) for found in self.lesions)

    @property
    def diameters_mm(self) -> tuple[tuple[float, float] | None, ...]:
        """Of each study, both diameters of the lesion with the largest one; None if there is none."""
        return tuple(max((lesion.diameters_mm for lesion in found), default=None) for found in self.lesions)


@dataclass(frozen=True, eq=False)
class Timeline:
    """All that a follow-up found.

    Attributes:
        placed: The studies in their order.
        ordered: A sentence on their order.
        task: What the labels mean.
        volumes: Region to its volume in each study.
        since_first: Region to the change of each study but the first, from the first.
        since_previous: The same from the study before.
        tracks: Lesions of the regions that are followed one by one, the largest first.
        note: What is known of repeated scans with the model; None if nothing is.
        warnings: Sentences on what makes the comparison doubtful.
    """

    placed: Sequence[Placed]
    ordered: str
    task: Task
    volumes: Mapping[str, tuple[float, ...]]
    since_first: Mapping[str, tuple[Change, ...]]
    since_previous: Mapping[str, tuple[Change, ...]]
    tracks: Sequence[TrackedLesion]
    note: RetestNote | None
    warnings: Sequence[str]


def compare(studies: Sequence[Study], ordered: str = "", same_patient: bool = False) -> Timeline:
    """Compare the studies of one patient, in their order.

    Raises:
        DatasetError: registration shows that the heads are not those of one patient, and `same_patient` is not set.
        ImageError: an image cannot be registered.
    """
    placed, task = place_all(studies, same_patient), studies[0].shown.task
    note = read_notes().get(str(studies[0].model.get("name")))
    volumes = {
        region: tuple(_measure(study.shown.labels, values) for study in studies)
        for region, values in task.regions.items()
    }
    repeats = {region: note.volumes.get(region) if note else None for region in volumes}
    return Timeline(
        placed,
        ordered,
        task,
        volumes,
        {r: tuple(_change(ml[0], later, repeats[r]) for later in ml[1:]) for r, ml in volumes.items()},
        {r: tuple(_change(a, b, repeats[r]) for a, b in pairwise(ml)) for r, ml in volumes.items()},
        [track for region in choose_regions(task) for track in track_lesions(placed, task, region, note)],
        note,
        list_warnings(placed, note),
    )


def choose_regions(task: Task) -> list[str]:
    """The regions whose lesions are followed one by one: the whole lesion, and what enhances.

    Examples:
        >>> from brainsegnet.task import BRATS2021, ISLES2022
        >>> choose_regions(BRATS2021), choose_regions(ISLES2022)
        (['whole', 'enhancing'], ['lesion'])
    """
    whole = next((name for name, values in task.regions.items() if set(values) == set(task.labels)), ANY_LESION)
    return [whole, *([ENHANCING] if ENHANCING in task.regions else [])]


def place_all(studies: Sequence[Study], same_patient: bool = False) -> list[Placed]:
    """Register each study to the first. Errors are those of `compare`."""
    brought = []
    for study in studies:
        labels = study.shown.labels
        arrays = bring_images(study.shown)
        brought.append({name: Volume(array, labels.affine) for name, array in arrays.items()})
    first, grid = brought[0], str(_get_grid(studies[0]))
    pyramids: dict[str, Pyramid] = {}
    placed = [Placed(studies[0], first)]
    for study, images in zip(studies[1:], brought[1:], strict=True):
        own, other = choose_pair(first, images, grid, str(_get_grid(study)))
        reference = pyramids.setdefault(own, Pyramid(first[own], f"{own} of {studies[0].name}"))
        moving = Pyramid(images[other], f"{other} of {study.name}")
        found = register(moving, reference)
        shared = found.after / min(_inform(reference), _inform(moving)) if own == other else None
        if shared is not None and shared < LEAST_SHARED and not same_patient:
            raise DatasetError(
                f"{study.name} and {studies[0].name} are hardly of one patient: after registration their {own} images "
                f"share {shared:.2f} of their information, less than {LEAST_SHARED}; if they are: {SAME_PATIENT}"
            )
        placed.append(Placed(study, images, (other, own), found, shared))
    return placed


def choose_pair(
    first: Mapping[str, Volume], other: Mapping[str, Volume], grid: str, other_grid: str
) -> tuple[str, str]:
    """Which sequence of the first study and which of another to register: the same one if both have it.

    Args:
        first: Images of the first study.
        other: Images of the other one.
        grid: Sequence of the first study that gives its grid, which is taken if the other has it too.
        other_grid: The same of the other.
    """
    common = [name for name in first if name in other]
    if common:
        same = next((name for name in (grid, other_grid) if name in common), common[0])
        return same, same
    return (grid if grid in first else next(iter(first))), (other_grid if other_grid in other else next(iter(other)))


def track_lesions(placed: Sequence[Placed], task: Task, region: str, note: RetestNote | None) -> list[TrackedLesion]:
    """The lesions of a region over all studies, the group with the largest volume first."""
    found = [measure_lesions(one.study.shown.labels, task, region=region) for one in placed]
    grid = placed[0].study.shown.labels
    numbers = []
    for one, measured in zip(placed, found, strict=True):
        own = number_lesions(one.study.shown.labels, measured, task, region)
        numbers.append(bring_numbers(own, measured, one.matrix, grid).array)
    matches = [match_lesions(before, after, grid.spacing_mm) for before, after in pairwise(numbers)]
    tracks = []
    for group in follow_lesions([[lesion.number for lesion in measured] for measured in found], matches):
        lesions = tuple(
            tuple(one for one in measured if one.number in mine)
            for measured, mine in zip(found, group.lesions, strict=True)
        )
        inside = tuple(_holds(one, lesions, placed) for one in placed)
        steps = tuple(_step(before, after, region, note) for before, after in pairwise(lesions))
        tracks.append(TrackedLesion(0, region, lesions, steps, inside))
    tracks.sort(key=lambda track: -max(track.volumes_ml))
    return [replace(track, number=number) for number, track in enumerate(tracks, start=1)]


def number_lesions(labels: LabelMap, lesions: Sequence[Lesion], task: Task, region: str) -> LabelMap:
    """The voxels of each lesion with its number, on the grid of a label map; 0 elsewhere."""
    values = tuple(task.labels) if region == ANY_LESION else task.regions[region]
    parts, count = ndimage.label(np.isin(labels.array, values), np.ones((3, 3, 3)))
    table = np.zeros(count + 1, np.uint16)
    for lesion in lesions:
        table[parts[lesion.voxel]] = lesion.number
    return labels.with_labels(table[parts])


def bring_numbers(numbers: LabelMap, lesions: Sequence[Lesion], matrix: Affine, grid: Volume) -> LabelMap:
    """Numbered lesions on another grid; one that falls between its voxels keeps the one nearest to its centre.

    Args:
        numbers: As `number_lesions` gives them.
        lesions: The lesions.
        matrix: (4, 4) from points of the other grid to points of this one, in millimetres.
        grid: Any volume on the other grid.
    """
    transform = load_itk().AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    brought = resample(numbers, grid, transform)
    array = brought.array.copy()
    kept = set(np.flatnonzero(np.bincount(array[array > 0])).tolist())
    for lesion in lesions:
        if lesion.number in kept:
            continue
        at = np.linalg.inv(matrix @ grid.affine) @ (*lesion.centre_mm, 1)
        d, h, w = np.rint(at[:3]).astype(int).tolist()
        if all(0 <= n < size for n, size in zip((d, h, w), grid.shape, strict=True)) and not array[d, h, w]:
            array[d, h, w] = lesion.number
    return brought.with_array(array)


def list_warnings(placed: Sequence[Placed], note: RetestNote | None) -> list[str]:
    """Sentences on what makes a comparison doubtful."""
    first, told = placed[0].study, []
    for number, one in enumerate(placed, start=1):
        if one.study.shown.note.get("corrected") is True:
            told.append(
                f"study {number} was corrected by hand; the interval is that of repeats without corrections, so "
                "it does not cover this"
            )
    for number, one in enumerate(placed[1:], start=2):
        study = one.study
        if study.sequences != first.sequences:
            told.append(
                f"study {number} was segmented from {', '.join(study.sequences)}, but study 1 from "
                f"{', '.join(first.sequences)}; volumes may differ for this reason alone"
            )
        sizes = [max(each.shown.labels.spacing_mm) for each in (study, first)]
        if max(sizes) > MOST_RATIO * min(sizes):
            told.append(
                f"slices are {sizes[0]:.1f} mm apart in study {number} but {sizes[1]:.1f} mm in study 1; "
                "the interval of a repeat does not cover this"
            )
        if one.registration and one.shared is None:
            told.append(f"study {number} and study 1 have no sequence in common, so the registration is less sure")
        if study.day and study.day == first.day:
            told.append(f"study {number} is of the same day as study 1")
    told += _doubt_decisions(placed)
    if note is None:
        told.append(f"repeats were not measured with model {first.model.get('name')}, so no change is judged")
    elif note.sha256 != first.model.get("sha256"):
        told.append(f"repeats were measured with another version of model {first.model.get('name')}")
    return told


def _doubt_decisions(placed: Sequence[Placed]) -> list[str]:
    """A sentence for each study in which a tissue was ruled out that other studies have."""
    decided = {number: one.study.ruled_out for number, one in enumerate(placed, start=1)}
    if None not in decided.values():
        return []
    return [
        f"it was decided that study {number} has no {found[0]} tissue, where {found[1]:.1f} ml were marked, and other "
        "studies have some; the interval of a repeat does not cover this, so segment them with --no-presence-check "
        "and compare again"
        for number, found in decided.items()
        if found
    ]


def _inform(image: Pyramid) -> float:
    """The information that an image has of itself: its entropy in nats, in and around the head."""
    return max(measure(image, image, build_motion(np.zeros(6), image.middle), FINEST), 1e-6)


def _get_grid(study: Study) -> object:
    geometry = study.shown.note.get("geometry")
    return geometry.get("grid") if isinstance(geometry, dict) else ""


def _measure(labels: LabelMap, values: Sequence[int]) -> float:
    return float(np.count_nonzero(np.isin(labels.array, values))) * labels.voxel_ml


def _change(before: float, after: float, repeat: Repeat | None) -> Change:
    interval = find_interval(before, repeat) if repeat else None
    return Change(before, after, interval, judge_volumes(before, after, repeat))


def _step(before: Sequence[Lesion], after: Sequence[Lesion], region: str, note: RetestNote | None) -> Step:
    if not before and not after:
        return Step(None, Change(0.0, 0.0, None, "not known"))
    kind = Match(*(tuple(lesion.number for lesion in found) for found in (before, after))).kind
    volumes = [sum(lesion.volume_ml for lesion in found) for found in (before, after)]
    if not (before and after):
        return Step(kind, _change(volumes[0], volumes[1], note.appearing.get(region) if note else None))
    volume = _change(volumes[0], volumes[1], note.lesions.get(region) if note else None)
    a, b = (max(lesion.diameters_mm[0] for lesion in found) for found in (before, after))
    repeat = note.diameters.get(region) if note else None
    interval = find_range(a, repeat) if repeat else None
    return Step(kind, volume, Change(a, b, interval, judge(a, b, repeat)))


def _holds(one: Placed, lesions: Sequence[Sequence[Lesion]], placed: Sequence[Placed]) -> bool:
    """Whether the field of view of a study holds the centres of the lesions that other studies have."""
    grid = one.study.shown.labels
    for other, found in zip(placed, lesions, strict=True):
        to_first = np.linalg.inv(other.matrix)
        for lesion in found:
            at = (np.linalg.inv(grid.affine) @ one.matrix @ to_first @ (*lesion.centre_mm, 1))[:3]
            if not all(-0.5 <= n < size - 0.5 for n, size in zip(at, grid.shape, strict=True)):
                return False
    return True
