"""`evaluate`: predicted label maps against true ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from brainsegnet._atomic import find_suffix, stem_of, writable, write_text
from brainsegnet.errors import BrainSegNetError, DatasetError, GridMismatch
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import READERS, read_labels
from brainsegnet.io.predictions import find_maps, read_prediction
from brainsegnet.io.tables import SUFFIXES as TABLES
from brainsegnet.metrics.scores import USUAL_RULES, RegionScore, ScoreRules, score_case
from brainsegnet.metrics.tables import to_csv, to_json, to_markdown
from brainsegnet.task import Task, load_task
from brainsegnet.volume import describe_mismatch

Labels = NDArray[Any]
Truths = dict[str, tuple[Path, Task | None]]
"""Case name to its label map, and whose convention that is in; None for the task's own."""

Pairs = dict[str, tuple[Path, Path, Task | None]]
"""Case name to prediction, truth, and the convention of the truth."""


@dataclass(frozen=True)
class Evaluation:
    """Scores by case and region.

    Attributes:
        task: In whose convention and regions.
        scores: Case name to region to score.
        failures: Cases that could not be scored, each with a sentence.
        rules: By which they were scored.
        unpredicted: Cases of the truth that the folder of predictions does not hold; no mean tells of them.
    """

    task: Task
    scores: Mapping[str, Mapping[str, RegionScore]]
    failures: Mapping[str, str] = field(default_factory=dict)
    rules: ScoreRules = USUAL_RULES
    unpredicted: Sequence[str] = ()


def evaluate(
    predicted: Path,
    truth: Path | Sequence[Path],
    task: Task | str,
    out: Path | None = None,
    rules: ScoreRules = USUAL_RULES,
) -> Evaluation:
    """Score predictions: overlap, distances of surfaces, volumes and lesions of each region (`RegionScore`).

    Args:
        predicted: A label map, or a folder of them named after their cases, as `segment` writes them.
        truth: A label map, a folder of label maps of the same names, or folders or tables of cases.
        task: In whose label convention scores are; predictions are brought to it where the JSON of `segment` beside
            them tells theirs, truths where their scheme does, and both are in it otherwise.
        out: Folder that gets `scores.csv`, `scores.json` and `scores.md`, or None.
        rules: Tolerance of the surface Dice, and how lesions are matched.

    Raises:
        DatasetError: nothing to score, or a prediction without a truth; a truth without one is in `unpredicted`.
        BrainSegNetError: no pair can be scored; why the first cannot. Of many, the bad ones are in `failures`.
        OutputError: the folder cannot be written.
    """
    task = task if isinstance(task, Task) else load_task(task)
    if out is not None:
        writable(out / "scores.csv", ())
    pairs, unpredicted = _pairs(predicted, [truth] if isinstance(truth, Path) else list(truth))
    if not pairs:
        raise DatasetError(f"{predicted} holds no label map ({', '.join(READERS)}); name the folder that has them")
    scores: dict[str, Mapping[str, RegionScore]] = {}
    errors: dict[str, BrainSegNetError] = {}
    for name, (found, known, convention) in pairs.items():
        try:
            found_labels, labels, spacing_mm = _read_pair(name, found, known, convention, task)
            scores[name] = score_case(found_labels, labels, task, spacing_mm, name, rules)
        except BrainSegNetError as error:
            errors[name] = error
    if not scores:
        raise next(iter(errors.values()))
    if out is not None:
        write_text(to_csv(scores, task), out / "scores.csv")
        write_text(to_json(scores, task, rules, unpredicted), out / "scores.json")
        write_text(to_markdown(scores, task, rules, unpredicted), out / "scores.md")
    return Evaluation(task, scores, {name: str(error) for name, error in errors.items()}, rules, unpredicted)


def _read_pair(
    name: str, predicted: Path, truth: Path, convention: Task | None, task: Task
) -> tuple[Labels, Labels, tuple[float, float, float]]:
    """Labels of both in the convention of the task, and their spacing."""
    found, known = read_prediction(predicted, task, name), read_labels(truth)
    if not found.on_grid_of(known):
        raise GridMismatch(f"case {name}: {describe_mismatch('the prediction', found, 'the truth', known)}")
    return found.array, task.bring(known.array, convention, name), known.spacing_mm


def _pairs(predicted: Path, truths: Sequence[Path]) -> tuple[Pairs, list[str]]:
    """The pairs, and the cases of the truth that a folder of predictions does not hold."""
    first = truths[0]
    if predicted.is_file() and len(truths) == 1 and first.is_file() and first.suffix not in TABLES:
        return {stem_of(predicted, READERS): (predicted, first, None)}, []
    found = label_files(predicted)
    known = _truths(truths)
    if predicted.is_file() and len(known) == 1:
        name, (path, convention) = next(iter(known.items()))
        return {name: (predicted, path, convention)}, []
    if lone := sorted(found.keys() - known.keys()):
        there = ", ".join(sorted(known)) or "no label map"
        raise DatasetError(f"prediction {lone[0]} has no truth in {', '.join(map(str, truths))}, which holds {there}")
    absent = [] if predicted.is_file() else sorted(known.keys() - found.keys())
    return {name: (path, *known[name]) for name, path in found.items()}, absent


def _truths(truths: Sequence[Path]) -> Truths:
    """The label maps of cases; else, those directly in the folders, of the task's own convention."""
    folders = [truth for truth in truths if truth.is_dir()]
    files: Truths = {name: (path, None) for folder in folders for name, path in label_files(folder).items()}
    try:
        cases = find_cases(truths)
    except DatasetError:
        if not files:
            raise
        return files
    known: Truths = {case.name: (case.lesion, case.convention) for case in cases if case.lesion}
    scans = {path for case in cases for path in case.images.values()}
    others = {name: pair for name, pair in files.items() if pair[0] not in scans}
    if not known and not others:
        there = ", ".join(map(str, truths))
        raise DatasetError(f"case {cases[0].name} has no label map in {there}; name what it is to be scored against")
    return known or others


def label_files(folder: Path) -> dict[str, Path]:
    """Images directly in a folder, maps of probability or entropy aside, by name; or the one file that is named.

    Raises:
        DatasetError: there is no such folder, or the file is no image.
    """
    if folder.is_file() and not find_suffix(folder, tuple(READERS)):
        raise DatasetError(f"{folder} is no image ({', '.join(READERS)}); name a label map or a folder of them")
    if folder.is_file():
        return {stem_of(folder, READERS): folder}
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist; name a label map or a folder of them")
    images = [path for path in sorted(folder.iterdir()) if find_suffix(path, tuple(READERS)) and path.is_file()]
    maps = find_maps(folder)
    return {stem_of(path, READERS): path for path in images if path.name not in maps}
