"""The errors that a user can cause. Each text is one sentence that names the case, the value and the remedy.

All of them derive from `BrainSegNetError`, except `Interrupted`.
"""

import signal
from collections.abc import Mapping
from typing import Any

_DEFECTS = {
    "missing": " is missing",
    "extra_forbidden": " is not known here; take it out, or look at its spelling",
    "model_type": ": names and values are due, as in a: b",
    "dict_type": ": names and values are due, as in {a: b}",
    "tuple_type": ": a list is due, as in [a, b]",
    "too_short": ": at least {min_length} must be named",
    "string_pattern_mismatch": " does not have the form {pattern}",
}
"""Pydantic's name of a defect to plain words for it, where pydantic's own words speak of Python."""


def describe_invalid(defect: Mapping[str, Any]) -> str:
    """Describe one of the `errors()` of pydantic's `ValidationError`: where it is, and what is expected there.

    Examples:
        >>> describe_invalid({"loc": ("regions", "core"), "type": "tuple_type", "msg": "Input should be a valid tuple"})
        'regions.core: a list is due, as in [a, b]'
        >>> describe_invalid({"loc": (), "type": "value_error", "msg": "Value error, two labels have one name"})
        'two labels have one name'
    """
    said = str(defect["msg"]).removeprefix("Value error, ")
    what = _DEFECTS.get(defect["type"], f": {said}")
    for name, value in defect.get("ctx", {}).items():
        what = what.replace(f"{{{name}}}", str(value))
    return (".".join(map(str, defect["loc"])) + what).removeprefix(": ")


def describe_unreadable(error: Exception) -> str:
    """The end of a sentence about a YAML file or table of the user that cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return "is not text in UTF-8; save it as such"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return f"is not YAML: {' '.join(str(error).split())}"


class BrainSegNetError(ValueError):
    """Base class of the errors that a user can cause and correct. Its text is one sentence, shown as it is."""


class ImageError(BrainSegNetError):
    """A file is not an image, or an image cannot be used: not 3-D, empty, constant, NaN or infinite."""


class GridMismatch(BrainSegNetError):
    """Two volumes that must be on one grid are on different grids."""


class MissingSequence(BrainSegNetError):
    """A sequence that is needed is absent."""


class LabelError(BrainSegNetError):
    """A label map holds values that its task does not have."""


class DatasetError(BrainSegNetError):
    """A folder or table holds no cases that can be read."""


class TaskError(BrainSegNetError):
    """A task, a recipe or an option of a training is unknown, out of its range, or contradicts another."""


class ModelError(BrainSegNetError):
    """A model folder is incomplete, altered, in an unsafe format, or made by a newer version."""


class OutputError(BrainSegNetError):
    """A result cannot be written."""


class TrainingDiverged(BrainSegNetError):
    """The loss of a training is no longer a finite number."""


class MissingExtra(BrainSegNetError):
    """An optional library is absent. The text names the extra that installs it."""


class Interrupted(Exception):
    """A signal (Ctrl-C or SIGTERM) stopped a training after its state was written, so that it can be resumed.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
