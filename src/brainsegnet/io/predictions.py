"""Label maps that a model made, and what the JSON that `segment` writes beside each says of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainsegnet._atomic import stem_of
from brainsegnet.errors import LabelError
from brainsegnet.io.images import READERS, read_labels
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap


def read_note(path: Path) -> Mapping[str, Any]:
    """What `segment` wrote into a JSON; empty where there is none, or it is something else."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def find_maps(folder: Path) -> set[str]:
    """Names of the images in a folder that are no label maps: probabilities and entropy, as the JSONs there tell."""
    names: set[str] = set()
    for path in folder.glob("*.json"):
        note = read_note(path)
        probabilities, uncertainty = note.get("probabilities"), note.get("uncertainty")
        named = [*probabilities.values()] if isinstance(probabilities, dict) else []
        named += [*uncertainty.values()] if isinstance(uncertainty, dict) else []
        names |= {name for name in named if isinstance(name, str)}
    return names


def read_prediction(path: Path, task: Task, case: str) -> LabelMap:
    """A predicted label map in the convention of a task, by the names of the tissues where the JSON beside it has them.

    Without such a JSON, its values mean what the task says.

    Args:
        path: The label map.
        task: Whose label values are wanted.
        case: Its name, for messages.

    Raises:
        ImageError, LabelError: it cannot be read, or holds values or tissues that the task does not know.
    """
    labels, source = read_labels(path), _find_convention(path)
    if source is None or dict(source.labels) == dict(task.labels):
        task.check(labels.array, case)
        return labels
    try:
        return labels.with_array(task.bring(labels.array, source, case))
    except LabelError as error:
        raise LabelError(f"{error}; {path.name} is of {source.name}, says the JSON beside it") from error


def _find_convention(path: Path) -> Task | None:
    """What the values of a label map stand for, from the JSON beside it; None if that does not tell."""
    note = read_note(path.with_name(f"{stem_of(path, READERS)}.json"))
    labels, name = note.get("convention"), note.get("task")
    if not isinstance(labels, dict) or not labels:
        return None
    try:
        regions = {"all": [int(value) for value in labels]}
        return Task.model_validate({"name": name, "sequences": ["any"], "labels": labels, "regions": regions})
    except ValueError:
        return None
