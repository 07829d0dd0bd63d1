"""`evaluate`: score predicted label maps against true ones, and write the scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from brainsegnet._atomic import writable, write_text
from brainsegnet.errors import BrainSegNetError, DatasetError, GridMismatch
from brainsegnet.io.cases import read_prediction
from brainsegnet.io.images import READERS, read_labels
from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.pairs import find_pairs
from brainsegnet.metrics.score_file import SCORES, to_json
from brainsegnet.metrics.score_tables import full_table, reading_tables
from brainsegnet.metrics.scores import USUAL_RULES, RegionScore, ScoreRules, score_case
from brainsegnet.metrics.unseen import find_seen
from brainsegnet.progress import Callback, CaseCounter
from brainsegnet.task import Task, load_task
from brainsegnet.volume import describe_mismatch


def evaluate(
    predicted: Path,
    truth: Path | Sequence[Path],
    task: Task | str,
    out: Path | None = None,
    rules: ScoreRules = USUAL_RULES,
    callback: Callback | None = None,
) -> Evaluation:
    """Score predictions by overlap, distances of surfaces, volumes and lesions of each region.

    Args:
        predicted: A label map, or a folder of them named after their cases, as `segment` writes them.
        truth: A label map, a folder of label maps with the same names, or folders or tables of cases.
        task: Label convention of the scores. Predictions are translated to it if the JSON of `segment` beside them
            names their convention, and truths if their layout does. All others must already be in it.
        out: Folder that gets `scores.csv`, `scores.json` and `scores.md`; None writes nothing.
        rules: Choices that the definitions of the scores leave open, such as the tolerance of surface Dice.
        callback: Its `on_progress` receives how many cases are done.

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
    pairs, unpredicted, errors = find_pairs(predicted, [truth] if isinstance(truth, Path) else list(truth))
    if not pairs and not errors:
        raise DatasetError(f"{predicted} holds no label map ({', '.join(READERS)}); name the folder that has them")
    scores: dict[str, Mapping[str, RegionScore]] = {}
    counter = CaseCounter(callback, len(pairs))
    for name, (found, known, convention) in pairs.items():
        try:
            scores[name] = _score_pair(name, found, known, convention, task, rules)
        except BrainSegNetError as error:
            errors[name] = error
        counter.advance()
    if not scores:
        raise next(iter(errors.values()))
    failures = {name: str(error) for name, error in errors.items()}
    evaluation = Evaluation(task, scores, failures, rules, unpredicted, find_seen(predicted, scores))
    if out is not None:
        write_text(full_table(evaluation).to_csv(), out / "scores.csv")
        write_text(to_json(evaluation), out / SCORES)
        write_text("\n".join(table.to_markdown() for table in reading_tables(evaluation)), out / "scores.md")
    return evaluation


def _score_pair(
    name: str, predicted: Path, truth: Path, convention: Task | None, task: Task, rules: ScoreRules
) -> dict[str, RegionScore]:
    """Scores of one case, both label maps brought to the convention of the task."""
    found, known = read_prediction(predicted, task, name), read_labels(truth)
    if not found.on_grid_of(known):
        raise GridMismatch(f"case {name}: {describe_mismatch('the prediction', found, 'the truth', known)}")
    labels = task.bring(known.array, convention, name)
    return score_case(found.array, labels, task, known.spacing_mm, name, rules)
