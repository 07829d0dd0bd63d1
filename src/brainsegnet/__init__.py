"""Fast 3-D segmentation of brain lesions in multi-modal MRI: Brain SegNet (Hu et al., BMC Medical Imaging 2020).

The verbs of the command line are functions here: `train`, `segment`, `evaluate`, and so on. They load what they need
when they are first used, so that importing the package stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from brainsegnet.errors import BrainSegNetError

if TYPE_CHECKING:
    from brainsegnet.api.compare_options import CompareOptions
    from brainsegnet.api.comparison import compare
    from brainsegnet.api.exporting import export
    from brainsegnet.api.figure_parts import FigureOptions
    from brainsegnet.api.inspection import inspect
    from brainsegnet.api.models import models
    from brainsegnet.api.options import TrainOptions, Watch
    from brainsegnet.api.phantoms import grow
    from brainsegnet.api.publishing import figure, report, table
    from brainsegnet.api.ranking import rank
    from brainsegnet.api.scoring import evaluate
    from brainsegnet.api.segmentation import SegmentOptions, segment
    from brainsegnet.api.submission import submit
    from brainsegnet.api.training_run import train
    from brainsegnet.task import Task, load_task
    from brainsegnet.training.curriculum import Budget, Recipe
    from brainsegnet.volume import LabelMap, Volume

_HOMES = {
    "inspect": "api.inspection",
    "models": "api.models",
    "grow": "api.phantoms",
    "CompareOptions": "api.compare_options",
    "compare": "api.comparison",
    "FigureOptions": "api.figure_parts",
    "figure": "api.publishing",
    "report": "api.publishing",
    "table": "api.publishing",
    "evaluate": "api.scoring",
    "rank": "api.ranking",
    "export": "api.exporting",
    "SegmentOptions": "api.segmentation",
    "segment": "api.segmentation",
    "submit": "api.submission",
    "TrainOptions": "api.options",
    "train": "api.training_run",
    "Watch": "api.options",
    "Task": "task",
    "load_task": "task",
    "Budget": "training.curriculum",
    "Recipe": "training.curriculum",
    "Volume": "volume",
    "LabelMap": "volume",
}

__all__ = [
    "BrainSegNetError",
    "Budget",
    "CompareOptions",
    "FigureOptions",
    "LabelMap",
    "Recipe",
    "SegmentOptions",
    "Task",
    "TrainOptions",
    "Volume",
    "Watch",
    "compare",
    "evaluate",
    "export",
    "figure",
    "grow",
    "inspect",
    "load_task",
    "models",
    "rank",
    "report",
    "segment",
    "submit",
    "table",
    "train",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module 'brainsegnet' has no attribute {name!r}")
    return getattr(import_module(f"brainsegnet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
