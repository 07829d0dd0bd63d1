"""What a report says of a training and of predictions: sections made from what lies on disk."""

import datetime
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainsegnet._atomic import writable, write_text
from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.io.cases import CaseFiles, find_cases, load_case, read_prediction
from brainsegnet.io.layouts import read_note
from brainsegnet.metrics.evaluate import Evaluation, describe_unpredicted, evaluate, label_files, to_json
from brainsegnet.metrics.lesions import LESION_RULES
from brainsegnet.metrics.scores import USUAL_RULES, ScoreRules
from brainsegnet.model.card import Card
from brainsegnet.model.store import BEST, CARD_FILE, LAST, hash_file, open_model
from brainsegnet.plotting.charts import training_curve_figure
from brainsegnet.plotting.overlays import overlay_figure, render
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.reporting.inspect import by_folds, card_rows, describe_unseen
from brainsegnet.reporting.page import (
    Section,
    case_section,
    facts,
    listing,
    mean_dice,
    page,
    picture,
    summary_sections,
    table,
    tiles,
    worst_cases,
)
from brainsegnet.task import Task
from brainsegnet.training.finetune import SLOWER, adopt
from brainsegnet.training.log import read_log
from brainsegnet.training.recipes import RECIPES, Recipe

PAGES = (".html",)
_INTENDED = "Research software, not a medical device."
PICTURE_DPI = 96
_SHOWN = 12
"""Validations that are listed: the last ones."""
_DIGITS = 16
_UNKNOWN = (
    "The card does not hold which cases were left out by --exclude, how often was validated, whether parts were "
    "resampled or registered, nor on how many devices of which kind it ran."
)
_BREAK = " \\\n    "
"""Between the parts of a long command."""


def find_card(source: Path) -> tuple[Path, Card] | None:
    """The model folder in a training's output folder, or the folder itself, and its card; None if there is none.

    Raises:
        ModelError: there is one, but it cannot be used.
    """
    if not any((home / CARD_FILE).exists() for home in (source, source / BEST, source / LAST)):
        return None
    model = open_model(source)
    return model.folder, model.card


def describe_run(source: Path, folder: Path, card: Card) -> list[Section]:
    """Validation scores, curves, card, and how to repeat a training."""
    rows = read_log(_home(source, folder) / "log.csv")
    parts = [_validation(card)] if any(v is not None for v in card.training.scores.values()) else []
    return [*parts, *_curve_sections(rows), _card_section(card), _how_to_train(source, folder, card)]


def describe_predictions(
    evaluation: Evaluation, predicted: Path, truth: Sequence[Path], worst: int, out: Path
) -> list[Section]:
    """Scores, distributions, worst cases, model, and how to repeat predictions."""
    task = evaluation.task
    scores = json.loads(to_json(evaluation))
    parts = [*summary_sections(scores), _worst_section(predicted, truth, task, scores, worst), case_section(scores)]
    if evaluation.failures:
        body = table(["Case", "Why"], [[n, s] for n, s in evaluation.failures.items()], words=2)
        parts.insert(1, Section("Cases that could not be scored", body))
    if lone := describe_unpredicted(evaluation.unpredicted):
        parts.insert(1, Section("Cases without a prediction", "", lone))
    notes = _notes_beside(predicted, list(evaluation.scores))
    model = _model_of(notes)
    if model is not None:
        parts += [*_curve_sections(read_log(_home(model[0], model[0]) / "log.csv")), _card_section(model[1])]
    return [*parts, _how_to_predict(predicted, truth, evaluation, notes, out)]


def _home(source: Path, folder: Path) -> Path:
    """Where the log of a model lies: in the output folder, above `best` and `last`."""
    homes = (source, folder, folder.parent)
    return next((home for home in homes if (home / "log.csv").is_file()), source)


def _validation(card: Card) -> Section:
    figures = [(r, f"{v:.3f}", "mean whole-scan Dice") for r, v in card.training.scores.items() if v is not None]
    return Section("Validation", tiles(figures), [f"Dice on unseen cases ({describe_unseen(card)})."])


def _curve_sections(rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    if not rows:
        return []
    drawing = render(training_curve_figure(rows), "svg")
    body = picture(drawing, "svg", "Loss and validation Dice over the steps", style="curve")
    regions = list(dict.fromkeys(key for row in rows for key in row if key.startswith("dice_")))
    scored = [row for row in rows if any(region in row for region in regions)]
    last = [
        [str(row["step"]), str(row.get("stage", "")), f"{row['loss']:.4f}" if "loss" in row else ""]
        + [f"{row[region]:.3f}" if region in row else "" for region in regions]
        for row in scored[-_SHOWN:]
    ]
    if last:
        headings = ["Step", "Stage", "Loss", *(f"Dice {region.removeprefix('dice_')}" for region in regions)]
        body += table(headings, last, words=2)
    more = [f"The last {_SHOWN} of {len(scored)} validations are listed."] if len(scored) > _SHOWN else []
    minutes = rows[-1].get("minutes")
    took = [f"{rows[-1]['step']} steps in {minutes:.1f} minutes."] if minutes is not None else []
    return [Section("Training", body, [*took, *more])]


def _card_section(card: Card) -> Section:
    return Section("Model card", facts(card_rows(card)))


def _how_to_train(source: Path, folder: Path, card: Card) -> Section:
    training = card.training
    budget = " ".join(f"--{kind} {value:g}" for kind, value in training.budget.items() if value)
    of_the_data = training.held_out and not (by_folds(card) or training.held_out_sources)
    held = f"--hold-out {_typed(*training.held_out)}" if of_the_data else "--validation 0"
    recipe = str(training.recipe.get("name", "quick"))
    flags = [
        f"--recipe {_typed(recipe)} {budget}",
        f"--sequences {_typed(*card.sequences)} --seed {training.seed}",
        held,
        *_other_flags(card),
    ]
    lines = [
        f"pip install {_typed('brainsegnet[train]==' + card.versions.get('brainsegnet', version('brainsegnet')))}",
        _BREAK.join([f"brainsegnet train DATA --task {_typed(card.task.name)} --out {_typed(source)}", *flags]),
        f"brainsegnet report {_typed(source)} --out report.html",
    ]
    weights = [["weights.safetensors", card.weights.sha256]] if card.weights else []
    exports = [[name, sha] for note in card.exports.values() for name, sha in note.files.items()]
    values = [(key, json.dumps(value)) for key, value in training.recipe.items() if key != "name"]
    body = listing(lines) + facts([*weights, *exports]) + f"<h3>Recipe {escape(recipe)}</h3>\n" + facts(values)
    notes = [f"DATA: the cases of the card. Model: {folder}.", *_own_recipe(card), _UNKNOWN]
    return Section("How to repeat", body, notes)


def _other_flags(card: Card) -> list[str]:
    """What the training was started from, and a share of dropped sequences that is not its recipe's own."""
    training, usual = card.training, RECIPES.get(str(card.training.recipe.get("name")))
    start = [f"--from {_typed(training.started_from.name)}"] if training.started_from else []
    dropped = training.recipe.get("drop_sequences")
    other = usual is not None and dropped is not None and dropped != usual.drop_sequences
    return [*start, *([f"--drop-sequences {dropped:g}"] if other else [])]


def _own_recipe(card: Card) -> list[str]:
    """A sentence where the recipe is not the one that its name stands for today."""
    name = str(card.training.recipe.get("name"))
    try:
        recipe, usual = Recipe.model_validate(card.training.recipe), RECIPES[name]
        dropped = recipe.drop_sequences
        expected = usual.model_copy(update={"drop_sequences": dropped})
        same = recipe == (adopt(expected, card, dropped) if card.training.started_from else expected)
    except (KeyError, ValueError):
        same = False
    if same:
        return []
    slowed = f", the learning rate times {1 / SLOWER:g}, which --from slows down" if card.training.started_from else ""
    return [f"These values are not those of --recipe {name}; hand them to train() in Python as a Recipe{slowed}."]


def _how_to_predict(
    predicted: Path, truth: Sequence[Path], evaluation: Evaluation, notes: Mapping[str, Any], out: Path
) -> Section:
    task = _typed(evaluation.task.name) + _typed_rules(evaluation.rules)
    first: Mapping[str, Any] = next(iter(notes.values()), {})
    model = first.get("model", {})
    segmenting = f"brainsegnet segment CASES --model {_typed(model.get('folder', 'MODEL'))} --out {_typed(predicted)}"
    lines = [
        f"pip install brainsegnet=={first.get('brainsegnet', version('brainsegnet'))}",
        segmenting,
        f"brainsegnet evaluate {_typed(predicted, *truth)} --task {task} --out scores/",
        f"brainsegnet report {_typed(predicted, *truth)} --task {task} --out {_typed(out)}",
    ]
    known = [
        ("model", f"{model.get('name', 'not stated')}, weights SHA-256 {model.get('sha256')}" if model else ""),
        ("engine", str(first.get("engine", ""))),
        ("scored with", f"brainsegnet {version('brainsegnet')}, Python {platform.python_version()}"),
    ]
    files = label_files(predicted)
    hashes = [[n, files[n].name, hash_file(files[n])[:_DIGITS]] for n in evaluation.scores if n in files]
    body = listing(lines) + facts([row for row in known if row[1]])
    return Section("How to repeat", body + table(["Case", "Prediction", "SHA-256, first 16 digits"], hashes, words=2))


def _typed_rules(rules: ScoreRules) -> str:
    """As flags, where they are not the usual ones."""
    tolerance = "" if rules.tolerance_mm == USUAL_RULES.tolerance_mm else f" --tolerance-mm {rules.tolerance_mm:g}"
    names = [name for name, rule in LESION_RULES.items() if rule == rules.lesions != USUAL_RULES.lesions]
    return tolerance + "".join(f" --lesions {name}" for name in names)


def _worst_section(
    predicted: Path, truth: Sequence[Path], task: Task, scores: Mapping[str, Any], count: int
) -> Section:
    """The worst cases, drawn where the truth is given with its scans."""
    scans = _scans(truth)
    files = label_files(predicted)
    parts, rank = [], worst_cases(scores, count)
    for name in rank:
        regions = scores["cases"][name]
        dices = ", ".join(f"{region} {score['dice']:.3f}" for region, score in regions.items())
        caption = f"<b>{escape(name)}</b>: mean Dice {mean_dice(regions):.3f} ({escape(dices)})"
        drawn = _draw(scans[name], files[name], task) if name in scans and name in files else None
        parts.append(
            picture(drawn, "png", f"Prediction and truth of {name}", caption) if drawn else f"<p>{caption}</p>\n"
        )
    why = f"The {len(rank)} of {len(scores['cases'])} cases with the lowest mean Dice over the regions, worst first."
    undrawn = ["Pictures need the scans: name folders of cases as the truth."] if not scans else []
    return Section("Worst cases", "".join(parts), [why, *undrawn])


def _scans(truth: Sequence[Path]) -> dict[str, CaseFiles]:
    try:
        return {case.name: case for case in find_cases(truth) if case.lesion}
    except DatasetError:
        return {}


def _draw(files: CaseFiles, predicted: Path, task: Task) -> bytes | None:
    """A case as a PNG, or None where its scans do not fit its prediction."""
    try:
        case = load_case(files, task.sequences, task, lesion=True, allow_missing=True, align=Aligner(files.name))
        names = [name for name in ("flair", "t1c", "t2") if name in case.images] or list(case.images)[:3]
        labels = read_prediction(predicted, task, files.name).array
        return render(overlay_figure(case, labels, task, names, "slice"), "png", PICTURE_DPI)
    except BrainSegNetError:
        return None


def _notes_beside(predicted: Path, names: Sequence[str]) -> dict[str, Any]:
    """Case to what `segment` wrote into the JSON beside its label map, where there is one."""
    folder = predicted.parent if predicted.is_file() else predicted
    found = {}
    for name in names:
        note = read_note(folder / f"{name}.json")
        if isinstance(note.get("model"), dict):
            found[name] = note
    return found


def _model_of(notes: Mapping[str, Any]) -> tuple[Path, Card] | None:
    """The model that made all predictions, if it is still where it was and has the same weights."""
    models = {(n["model"].get("folder"), n["model"].get("sha256")) for n in notes.values()}
    if len(models) != 1:
        return None
    folder, sha256 = next(iter(models))
    try:
        found = find_card(Path(str(folder)))
    except BrainSegNetError:
        return None
    return found if found and found[1].weights and found[1].weights.sha256 == sha256 else None


def _typed(*words: object) -> str:
    return shlex.join(str(word) for word in words)


def report(
    source: Path,
    out: Path,
    truth: Sequence[Path] = (),
    task: Task | str | None = None,
    worst: int = 4,
    rules: ScoreRules = USUAL_RULES,
) -> Mapping[str, str]:
    """One page of HTML that holds all it shows.

    Args:
        source: Output folder of `train` or a model folder: card, curves, validation scores. Or a folder of predictions:
            scores, distributions, worst cases, and card and curves of the model where they are found.
        out: Page to write, .html.
        truth: For predictions: label maps, or folders or tables of cases; of cases, the worst are drawn.
        task: For predictions: in whose label convention they are.
        worst: How many of the worst cases to show.
        rules: For predictions: as of `evaluate`.

    Returns:
        Cases that could not be scored, each with a sentence; the page holds them too.

    Raises:
        DatasetError: neither a training nor predictions, or no truth for predictions.
        BrainSegNetError: as `evaluate`.
        OutputError: the page cannot be written.
    """
    writable(out, PAGES)
    failures: Mapping[str, str] = {}
    if found := find_card(source):
        if truth:
            raise DatasetError(f"{source} is a model, which is reported without a truth; name predictions, or leave it")
        title, subtitle = f"Model: {source.resolve().name}", f"task {found[1].task.name}, trained {found[1].created}"
        sections = describe_run(source, *found)
    else:
        if not truth or task is None:
            raise DatasetError(f"{source} holds no model; to report on predictions, name their truth too, and --task")
        evaluation = evaluate(source, truth, task, rules=rules)
        title, subtitle = f"Predictions: {source.resolve().name}", f"task {evaluation.task.name}"
        sections, failures = describe_predictions(evaluation, source, truth, worst, out), evaluation.failures
    today, ours = datetime.date.today().isoformat(), f"Made by brainsegnet {version('brainsegnet')}."
    write_text(page(title, f"{subtitle}; report of {today}", sections, f"{ours} {_INTENDED}"), out)
    return failures
