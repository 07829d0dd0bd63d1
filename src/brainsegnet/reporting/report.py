"""`report`: write one HTML page about a training, a model, or predictions."""

import datetime
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainsegnet._atomic import writable, write_text
from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.lesion_matching import LESION_RULES
from brainsegnet.metrics.pairs import search_label_files
from brainsegnet.metrics.scores import USUAL_RULES, ScoreRules
from brainsegnet.metrics.table import Column, Table, number_columns, text_columns
from brainsegnet.metrics.unseen import Notes, read_notes
from brainsegnet.model.card import Card
from brainsegnet.model.store import Model, hash_file
from brainsegnet.plotting.charts import reliability_figure, training_curve_figure
from brainsegnet.plotting.slices import inline_svg
from brainsegnet.reporting.calibration import calibration_table
from brainsegnet.reporting.inspect import by_folds, card_rows, describe_unseen, find_model
from brainsegnet.reporting.sections import (
    Charts,
    Facts,
    Listing,
    Section,
    SectionPart,
    Tiles,
    render_page,
    score_sections,
)
from brainsegnet.task import Task
from brainsegnet.training.finetune import SLOWER, adopt
from brainsegnet.training.log import read_log
from brainsegnet.training.recipes import RECIPES, Recipe

_SHOWN = 12
"""Validations that are listed: the last ones."""
_DIGITS = 16
_DIAGRAM = 480
"""Width of the reliability diagram in pixels; it is higher than wide."""
_UNKNOWN = (
    "The card does not hold which cases were left out by --exclude, how often the model was validated, whether images "
    "were resampled or registered, nor on how many devices of which kind it ran."
)
_BREAK = " \\\n    "
"""Between the parts of a long command."""


def report(
    source: Path,
    out: Path,
    truth: Sequence[Path] = (),
    task: Task | str | None = None,
    worst: int = 4,
    rules: ScoreRules = USUAL_RULES,
    viewer: bool = False,
) -> Mapping[str, str]:
    """Write one HTML page that contains everything it shows.

    Args:
        source: Output folder of `train` or model folder: the page shows card, curves and validation scores. Or a folder
            of predictions: it shows scores, distributions and the worst cases.
        out: Page to write, .html.
        truth: For predictions: label maps, or folders or tables of cases. From cases, the worst ones are also drawn.
        task: For predictions: their label convention.
        worst: Number of the worst cases to show.
        rules: For predictions: rules of the scores, as for `evaluate`.
        viewer: For predictions: whether the worst cases can be scrolled through. This adds megabytes and a script.

    Returns:
        Name of each case that could not be scored, to a sentence that says why. The page holds them too.

    Raises:
        DatasetError: there is neither a training nor a prediction, or predictions come without a truth.
        BrainSegNetError: as `evaluate`.
        OutputError: the page cannot be written.
    """
    writable(out, (".html",))
    failures: Mapping[str, str] = {}
    if model := find_model(source):
        if truth:
            raise DatasetError(f"{source} is a model, which is reported without a truth; name predictions, or leave it")
        card = model.card
        title, subtitle = f"Model: {source.resolve().name}", f"task {card.task.name}, trained {card.created}"
        sections = _describe_training(source, model.folder, card)
    else:
        if not truth or task is None:
            raise DatasetError(f"{source} holds no model; to report on predictions, name their truth too, and --task")
        evaluation = evaluate(source, truth, task, rules=rules)
        title, subtitle = f"Predictions: {source.resolve().name}", f"task {evaluation.task.name}"
        shown = score_sections(evaluation, source, truth, worst, viewer)
        sections, failures = _describe_predictions(shown, evaluation, source, truth, out), evaluation.failures
    subtitle += f"; report of {datetime.date.today().isoformat()}"
    footer = f"Made by brainsegnet {version('brainsegnet')}. Research software, not a medical device."
    write_text(render_page(title, subtitle, sections, footer), out)
    return failures


def _describe_training(source: Path, folder: Path, card: Card) -> list[Section]:
    """Validation scores, curves, card, and how to repeat a training."""
    scores = [(r, f"{v:.3f}", "mean whole-scan Dice") for r, v in card.training.scores.items() if v is not None]
    notes = [f"Dice on unseen cases ({describe_unseen(card)})."]
    validation = [Section("Validation", [Tiles(scores)], notes)] if scores else []
    return [*validation, *_model_sections(source, folder, card), _repeat_training(source, folder, card)]


def _describe_predictions(
    sections: Sequence[Section], evaluation: Evaluation, predicted: Path, truth: Sequence[Path], out: Path
) -> list[Section]:
    """Scores, worst cases, model, and how to repeat predictions."""
    notes = read_notes(predicted, evaluation.scores)
    model = model_of(notes)
    about = _model_sections(model.folder, model.folder, model.card) if model else []
    return [*sections, *about, _repeat_predictions(predicted, truth, evaluation, notes, out)]


def _model_sections(source: Path, folder: Path, card: Card) -> list[Section]:
    """Curves, where the log of the training is found: in its output folder, above `best` and `last`; and the card.

    Between them the calibration of the probabilities, if it was measured.
    """
    logs = (home / "log.csv" for home in (source, folder, folder.parent))
    rows = read_log(next((log for log in logs if log.is_file()), source / "log.csv"))
    measured = [_calibration_section(card)] if card.calibration else []
    return [*([_curve_section(rows)] if rows else []), *measured, Section("Model card", [Facts(card_rows(card))])]


def _calibration_section(card: Card) -> Section:
    """The reliability diagram and the errors."""
    label = "Share of true voxels over the predicted probability, a line for each region"
    drawn = inline_svg(reliability_figure(card.calibration), "calibration", label)
    diagram = f'<div style="max-width: {_DIAGRAM}px">{drawn}</div>'
    table = calibration_table(card.calibration)
    notes = [f"Unseen cases: {describe_unseen(card)}.", *table.notes]
    return Section("Calibration of probabilities", [Charts([("", diagram)]), replace(table, notes=())], notes)


def _curve_section(rows: Sequence[Mapping[str, Any]]) -> Section:
    curve = inline_svg(training_curve_figure(rows), "curve", "Loss and validation Dice over the steps")
    regions = list(dict.fromkeys(key for row in rows for key in row if key.startswith("dice_")))
    scored = [row for row in rows if any(region in row for region in regions)]
    columns = [*text_columns("Step", "Stage"), Column("Loss", ".4f")]
    columns += number_columns(*(f"Dice {region.removeprefix('dice_')}" for region in regions))
    last = [[row.get(key) for key in ("step", "stage", "loss", *regions)] for row in scored[-_SHOWN:]]
    more = [f"The last {_SHOWN} of {len(scored)} validations are listed."] if len(scored) > _SHOWN else []
    minutes = rows[-1].get("minutes")
    took = [f"{rows[-1]['step']} steps in {minutes:.1f} minutes."] if minutes is not None else []
    listed = [Table(columns, last)] if last else []
    return Section("Training", [Charts([("", curve)]), *listed], [*took, *more])


def _repeat_training(source: Path, folder: Path, card: Card) -> Section:
    training = card.training
    budget = " ".join(f"--{kind} {value:g}" for kind, value in training.budget.items() if value)
    of_the_data = training.held_out and not (by_folds(card) or training.held_out_sources)
    recipe = str(training.recipe.get("name", "quick"))
    flags = [
        f"--recipe {_typed(recipe)} {budget}",
        f"--sequences {_typed(*card.sequences)} --seed {training.seed}",
        f"--hold-out {_typed(*training.held_out)}" if of_the_data else "--validation 0",
        *_other_flags(card),
    ]
    lines = [
        f"pip install {_typed('brainsegnet[train]==' + card.versions.get('brainsegnet', version('brainsegnet')))}",
        _BREAK.join([f"brainsegnet train DATA --task {_typed(card.task.name)} --out {_typed(source)}", *flags]),
        f"brainsegnet report {_typed(source)} --out report.html",
    ]
    weights = [("weights.safetensors", card.weights.sha256)] if card.weights else []
    exports = [(name, sha) for note in card.exports.values() for name, sha in note.files.items()]
    values = [(key, json.dumps(value)) for key, value in training.recipe.items() if key != "name"]
    parts: list[SectionPart] = [Listing(lines), Facts([*weights, *exports]), Facts(values, f"Recipe {recipe}")]
    notes = [f"DATA: the cases of the card. Model: {folder}.", *_own_recipe(card), _UNKNOWN]
    return Section("How to repeat", parts, notes)


def _other_flags(card: Card) -> list[str]:
    """What the training was started from, and the share of dropped sequences where it is not the recipe's own."""
    training, usual = card.training, RECIPES.get(str(card.training.recipe.get("name")))
    start = [f"--from {_typed(training.started_from.name)}"] if training.started_from else []
    dropped = training.recipe.get("drop_sequences")
    other = usual is not None and isinstance(dropped, (int, float)) and dropped != usual.drop_sequences
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
    slowed = (
        f", with the learning rate times {1 / SLOWER:g}, because --from lowers it" if card.training.started_from else ""
    )
    return [f"These values are not those of --recipe {name}; pass them to train() in Python as a Recipe{slowed}."]


def _repeat_predictions(
    predicted: Path, truth: Sequence[Path], evaluation: Evaluation, notes: Notes, out: Path
) -> Section:
    task, rules = _typed(evaluation.task.name), evaluation.rules
    task += "" if rules.tolerance_mm == USUAL_RULES.tolerance_mm else f" --tolerance-mm {rules.tolerance_mm:g}"
    task += "" if rules.hd95 == USUAL_RULES.hd95 else f" --hd95 {rules.hd95}"
    names = [name for name, rule in LESION_RULES.items() if rule == rules.lesions != USUAL_RULES.lesions]
    task += "".join(f" --lesions {name}" for name in names)
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
    files, _ = search_label_files(predicted)
    hashes = [[n, files[n].name, hash_file(files[n])[:_DIGITS]] for n in evaluation.scores if n in files]
    table = Table([*text_columns("Case", "Prediction"), Column(f"SHA-256, first {_DIGITS} digits")], hashes)
    return Section("How to repeat", [Listing(lines), Facts([row for row in known if row[1]]), table])


def model_of(notes: Notes) -> Model | None:
    """The model that made all predictions, if it is still where it was and has the same weights."""
    models = {(note["model"].get("folder"), note["model"].get("sha256")) for note in notes.values()}
    if len(models) != 1:
        return None
    folder, sha256 = next(iter(models))
    try:
        found = find_model(Path(str(folder)))
    except BrainSegNetError:
        return None
    return found if found and found.card.weights and found.card.weights.sha256 == sha256 else None


def _typed(*words: object) -> str:
    return shlex.join(str(word) for word in words)
