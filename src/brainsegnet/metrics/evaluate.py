"""`evaluate`: score predicted label maps against true ones, and write tables of the scores.

CSV and JSON hold every score, the console a selection. Tables for reading also name the label convention, the number of
empty masks and the rules.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, FiniteFloat, ValidationError

from brainsegnet._atomic import find_suffix, stem_of, writable, write_text
from brainsegnet.errors import BrainSegNetError, DatasetError, GridMismatch, describe_invalid
from brainsegnet.io.case_files import TABLES
from brainsegnet.io.cases import find_cases, read_prediction
from brainsegnet.io.images import READERS, read_labels
from brainsegnet.io.layouts import find_maps
from brainsegnet.metrics.scores import (
    EMPTY_RULE,
    METRICS,
    USUAL_RULES,
    CaseScores,
    Empty,
    RegionScore,
    ScoreRules,
    score_case,
    to_dicts,
)
from brainsegnet.metrics.statistics import INTERVAL_RULE, Summary, summarise
from brainsegnet.metrics.table import Cell, Column, Estimate, Span, Table, count_cases, number_columns, text_columns
from brainsegnet.task import Task, load_task
from brainsegnet.volume import describe_mismatch

Truths = dict[str, tuple[Path, Task | None]]
"""Case name to its label map and the convention of that map; None means the convention of the task."""

COLUMNS = {
    "dice": Column("Dice"),
    "sensitivity": Column("Sens."),
    "specificity": Column("Spec.", ".4f"),
    "precision": Column("Prec."),
    "hd95_mm": Column("HD95", ".2f"),
    "assd_mm": Column("ASSD", ".2f"),
    "surface_dice": Column("SDice"),
    "lesion_dice": Column("LDice"),
    "lesion_f1": Column("LF1"),
    "lesions_found": Column("Found", ".1f"),
    "lesions_missed": Column("Missed", ".1f"),
    "lesions_invented": Column("Invented", ".1f"),
    "volume_error_ml": Column("Err. ml", ".2f"),
    "predicted_volume_ml": Column("Pred. ml", ".2f"),
    "true_volume_ml": Column("True ml", ".2f"),
}
"""Metric to its column in tables for reading; Markdown shows all of them."""
_ON_CONSOLE = "dice sensitivity specificity precision hd95_mm surface_dice lesion_f1 volume_error_ml".split()
SCORES = "scores.json"
_NAMED = 20
"""Number of cases that a sentence names; the JSON names all."""
_ABBREVIATIONS = (
    "HD95 and ASSD (average symmetric surface distance) in mm; SDice: surface Dice; LDice, LF1: Dice and F1 by lesion; "
    "Err.: predicted less true volume."
)


@dataclass(frozen=True)
class Evaluation:
    """Scores of predictions by case and region, in the label convention of a task.

    Attributes:
        task: Task whose regions are scored.
        scores: Case name to region to score.
        failures: Name of each case that could not be scored, to a sentence that says why.
        rules: Rules of the scores.
        unpredicted: True cases that have no prediction. They are in no mean.
    """

    task: Task
    scores: CaseScores
    failures: Mapping[str, str] = field(default_factory=dict)
    rules: ScoreRules = USUAL_RULES
    unpredicted: Sequence[str] = ()


class ScoreFile(BaseModel):
    """The part of a `scores.json` that other commands read."""

    task: str
    regions: Mapping[str, tuple[int, ...]]
    cases: Mapping[str, Mapping[str, Mapping[str, FiniteFloat | Empty | None]]]
    mean: Mapping[str, Mapping[str, FiniteFloat]]
    sd: Mapping[str, Mapping[str, FiniteFloat]]
    interval: Mapping[str, Mapping[str, tuple[FiniteFloat, FiniteFloat]]]
    rules: Mapping[str, Any]


def evaluate(
    predicted: Path,
    truth: Path | Sequence[Path],
    task: Task | str,
    out: Path | None = None,
    rules: ScoreRules = USUAL_RULES,
) -> Evaluation:
    """Score predictions by overlap, distances of surfaces, volumes and lesions of each region.

    Args:
        predicted: A label map, or a folder of them named after their cases, as `segment` writes them.
        truth: A label map, a folder of label maps with the same names, or folders or tables of cases.
        task: Label convention of the scores. Predictions are translated to it if the JSON of `segment` beside them
            names their convention, and truths if their layout does. All others must already be in it.
        out: Folder that gets `scores.csv`, `scores.json` and `scores.md`; None writes nothing.
        rules: Choices that the definitions of the scores leave open, such as the tolerance of surface Dice.

    Returns:
        The scores by case and region, the cases that could not be scored, and those without a prediction.

    Raises:
        DatasetError: there is nothing to score, or a prediction has no truth.
        BrainSegNetError: no pair can be scored; the text says why for the first. Single bad ones are in `failures`.
        OutputError: the folder cannot be written.
    """
    task = task if isinstance(task, Task) else load_task(task)
    if out is not None:
        writable(out / "scores.csv", ())
    pairs, unpredicted = _find_pairs(predicted, [truth] if isinstance(truth, Path) else list(truth))
    if not pairs:
        raise DatasetError(f"{predicted} holds no label map ({', '.join(READERS)}); name the folder that has them")
    scores: dict[str, Mapping[str, RegionScore]] = {}
    errors: dict[str, BrainSegNetError] = {}
    for name, (found, known, convention) in pairs.items():
        try:
            scores[name] = _score_pair(name, found, known, convention, task, rules)
        except BrainSegNetError as error:
            errors[name] = error
    if not scores:
        raise next(iter(errors.values()))
    evaluation = Evaluation(task, scores, {name: str(error) for name, error in errors.items()}, rules, unpredicted)
    if out is not None:
        write_text(full_table(evaluation).to_csv(), out / "scores.csv")
        write_text(to_json(evaluation), out / SCORES)
        write_text("\n".join(table.to_markdown() for table in reading_tables(evaluation)), out / "scores.md")
    return evaluation


def full_table(evaluation: Evaluation) -> Table:
    """All scores of each case and region, then those of all cases together for each region, for CSV.

    The rows of all cases are `mean`, `sd` and, with three or more cases, `ci95_low` and `ci95_high`. The column
    `labels` holds the label values of the region. The column `empty` says which mask was empty; in the row `mean`, how
    many cases of each kind there are.

    Raises:
        DatasetError: there is no case, or a case lacks a region. The functions below raise it too.
    """
    summary, task, rows = summarise(evaluation.scores), evaluation.task, list[list[Cell]]()

    def add(case: str, region: str, row: Mapping[str, Any], empty: str | None = None) -> None:
        labels = "+".join(map(str, task.regions[region]))
        rows.append([case, task.name, region, labels, *(row[metric] for metric in METRICS), empty])

    for name, regions in evaluation.scores.items():
        for region, score in regions.items():
            add(name, region, asdict(score), score.empty)
    for region, mean in summary.mean.items():
        add("mean", region, mean, _list_counts(summary.empty[region]))
        for name, spread in (("sd", summary.sd), ("ci95_low", summary.low), ("ci95_high", summary.high)):
            if region in spread:
                add(name, region, spread[region])
    return Table(number_columns("case", "task", "region", "labels", *METRICS, "empty"), rows)


def reading_tables(evaluation: Evaluation) -> list[Table]:
    """Tables for Markdown: means, their intervals with notes, and all cases."""
    summary = summarise(evaluation.scores)
    means: list[list[Cell]] = [
        [region, *(Estimate(row[metric], summary.sd[region][metric]) for metric in COLUMNS)]
        for region, row in summary.mean.items()
    ]
    intervals: list[list[Cell]] = [
        [region, *(Span(row[metric], summary.high[region][metric]) for metric in COLUMNS)]
        for region, row in summary.low.items()
    ]
    columns = [*text_columns("Region"), *COLUMNS.values()]
    tables = [Table(columns, means, f"Mean ± standard deviation over {count_cases(summary.cases)}")]
    if intervals:
        tables.append(Table(columns, intervals, "95 % intervals of the means"))
    notes = [*_describe(summary, evaluation), *describe_unpredicted(evaluation.unpredicted)]
    tables[-1] = replace(tables[-1], notes=notes)
    rows = _list_rows(to_dicts(evaluation.scores), COLUMNS)
    return [*tables, Table([*text_columns("Case"), *columns], rows, "Case by case")]


def console_table(evaluation: Evaluation, per_case: bool = True) -> Table:
    """A table of 80 columns: the cases if wanted, then mean, standard deviation and interval."""
    summary = summarise(evaluation.scores)
    groups = {f"Mean of {count_cases(summary.cases)}": summary.mean, "Standard deviation": summary.sd}
    if summary.low:
        groups |= {"Mean, 95 % from": summary.low, "Mean, 95 % to": summary.high}
    singles = _list_rows(to_dicts(evaluation.scores if per_case else {}), _ON_CONSOLE)
    rows = singles + _list_rows(groups, _ON_CONSOLE)
    columns = [*text_columns("Case", "Region"), *(COLUMNS[metric] for metric in _ON_CONSOLE)]
    bold = range(len(singles), len(rows))
    return Table(columns, rows, notes=_describe(summary, evaluation), grouped=True, bold_rows=bold)


def to_json(evaluation: Evaluation) -> str:
    """All scores in full precision, for scripts.

    `convention` maps label values to tissues, and `regions` maps names to label values. `interval` maps region and
    metric to the ends of the 95 % interval of the mean; it is empty with fewer than three cases. `rules` holds numbers,
    and the keys ending in `_rule` hold sentences.
    """
    summary, task = summarise(evaluation.scores), evaluation.task
    surface_rule, lesion_rule = evaluation.rules.describe()
    document = {
        "task": task.name,
        "convention": {str(value): tissue for value, tissue in task.labels.items()},
        "regions": {region: list(values) for region, values in task.regions.items()},
        "cases": to_dicts(evaluation.scores),
        "mean": summary.mean,
        "sd": summary.sd,
        "interval": {r: {m: [low[m], summary.high[r][m]] for m in METRICS} for r, low in summary.low.items()},
        "empty": summary.empty,
        "lesions": summary.lesions,
        "rules": asdict(evaluation.rules),
        "empty_rule": EMPTY_RULE,
        "interval_rule": INTERVAL_RULE,
        "surface_rule": surface_rule,
        "lesion_rule": lesion_rule,
        "unpredicted": list(evaluation.unpredicted),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_scores(path: Path) -> ScoreFile:
    """Read a `scores.json` that `evaluate` wrote.

    Raises:
        DatasetError: the file cannot be read, or holds something else.
    """
    try:
        return ScoreFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read: {reason}; make it with: brainsegnet evaluate --out") from error
    except ValidationError as error:
        defect = describe_invalid(error.errors()[0])
        raise DatasetError(f"{path} is no {SCORES} as evaluate writes it with --out: {defect}") from error


def describe_unpredicted(names: Sequence[str]) -> list[str]:
    """A sentence about the true cases that have no prediction, if there are any."""
    if not names:
        return []
    few = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    have, are = ("case of the truth has", "is") if len(names) == 1 else ("cases of the truth have", "are")
    return [f"{len(names)} {have} no prediction and {are} not in these scores: {few}."]


def _list_rows(groups: Mapping[str, Mapping[str, Mapping[str, Any]]], metrics: Iterable[str]) -> list[list[Cell]]:
    """A row for each name and region."""
    metrics = list(metrics)
    return [[name, r, *(row[m] for m in metrics)] for name, regions in groups.items() for r, row in regions.items()]


def describe_convention(task: Task) -> str:
    """A sentence that says what the labels of a task mean, and which of them each region combines."""
    tissues = ", ".join(f"{value} {tissue}" for value, tissue in task.labels.items())
    regions = "; ".join(f"{region} = {' + '.join(map(str, values))}" for region, values in task.regions.items())
    return f"Labels of {task.name}: {tissues}. Regions: {regions}."


def describe_empty(summary: Summary) -> str:
    """A sentence that says how many masks of each region were empty."""
    return f"Empty masks: {'; '.join(f'{r}: {_list_counts(counts)}' for r, counts in summary.empty.items())}."


def _list_counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def _describe(summary: Summary, evaluation: Evaluation) -> list[str]:
    lesions = []
    for region, counts in summary.lesions.items():
        found = ", ".join(f"{count} {name.removeprefix('lesions_')}" for name, count in counts.items())
        lesions.append(f"{region}: {found}")
    return [
        describe_convention(evaluation.task),
        EMPTY_RULE,
        describe_empty(summary),
        _ABBREVIATIONS,
        *evaluation.rules.describe(),
        f"Lesions: {'; '.join(lesions)}.",
        *([INTERVAL_RULE] if summary.low else []),
    ]


def _score_pair(
    name: str, predicted: Path, truth: Path, convention: Task | None, task: Task, rules: ScoreRules
) -> dict[str, RegionScore]:
    """Scores of one case, both label maps brought to the convention of the task."""
    found, known = read_prediction(predicted, task, name), read_labels(truth)
    if not found.on_grid_of(known):
        raise GridMismatch(f"case {name}: {describe_mismatch('the prediction', found, 'the truth', known)}")
    labels = task.bring(known.array, convention, name)
    return score_case(found.array, labels, task, known.spacing_mm, name, rules)


def _find_pairs(predicted: Path, truths: Sequence[Path]) -> tuple[dict[str, tuple[Path, Path, Task | None]], list[str]]:
    """Case to prediction, truth and its convention; and the cases that a folder of predictions does not hold."""
    if predicted.is_file() and len(truths) == 1 and truths[0].is_file() and truths[0].suffix not in TABLES:
        return {stem_of(predicted, READERS): (predicted, truths[0], None)}, []
    found = label_files(predicted)
    known = _find_truths(truths)
    if predicted.is_file() and len(known) == 1:
        name, (path, convention) = next(iter(known.items()))
        return {name: (predicted, path, convention)}, []
    if lone := sorted(found.keys() - known.keys()):
        there = ", ".join(sorted(known)) or "no label map"
        raise DatasetError(f"prediction {lone[0]} has no truth in {', '.join(map(str, truths))}, which holds {there}")
    absent = [] if predicted.is_file() else sorted(known.keys() - found.keys())
    return {name: (path, *known[name]) for name, path in found.items()}, absent


def _find_truths(truths: Sequence[Path]) -> Truths:
    """The label maps of cases; else those directly in the folders, which are in the task's own convention."""
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
    """The label maps directly in a folder, or a single file, by name; maps of probability or entropy are left out.

    Raises:
        DatasetError: there is no such folder, or the file is not an image.
    """
    if folder.is_file() and not find_suffix(folder, READERS):
        raise DatasetError(f"{folder} is no image ({', '.join(READERS)}); name a label map or a folder of them")
    if folder.is_file():
        return {stem_of(folder, READERS): folder}
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist; name a label map or a folder of them")
    images = [path for path in sorted(folder.iterdir()) if find_suffix(path, READERS) and path.is_file()]
    maps = find_maps(folder)
    return {stem_of(path, READERS): path for path in images if path.name not in maps}
