"""Fast 3-D segmentation of brain lesions in multi-modal MRI: Brain SegNet (Hu et al., BMC Medical Imaging 2020).

`Segmenter` segments images in memory; `segment`, `train`, `evaluate` and the other verbs of the command line work on
files. The names in `__all__` are the stable API. They load what they need when they are first used, so that importing
the package stays light.

Importing it keeps OpenVINO and NNCF from reporting their use over the network.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from brainsegnet.errors import BrainSegNetError

if TYPE_CHECKING:
    from brainsegnet._atomic import OutputOptions
    from brainsegnet.benchmark import BenchmarkOptions
    from brainsegnet.benchmark.ranking import rank
    from brainsegnet.benchmark.run import run_benchmark
    from brainsegnet.inference import SegmentOptions
    from brainsegnet.inference.segmentation import Segmentation
    from brainsegnet.inference.segmenter import Segmenter
    from brainsegnet.metrics.evaluate import evaluate
    from brainsegnet.paper import FigureOptions
    from brainsegnet.paper.figure_cases import figure
    from brainsegnet.paper.submission import submit
    from brainsegnet.paper.tables import table
    from brainsegnet.pipeline import MeasureOptions
    from brainsegnet.pipeline.measure import measure
    from brainsegnet.pipeline.segment import segment
    from brainsegnet.plotting import DrawingOptions
    from brainsegnet.plotting.result import view
    from brainsegnet.progress import Callback, ProgressEvent
    from brainsegnet.reporting.inspect import inspect
    from brainsegnet.reporting.report import report
    from brainsegnet.simulation.simulate import SimulateOptions, simulate
    from brainsegnet.task import Task, load_task
    from brainsegnet.training import TrainOptions
    from brainsegnet.training.export import export
    from brainsegnet.training.recipes import Recipe
    from brainsegnet.training.train import train
    from brainsegnet.volume import LabelMap, Volume

# OpenVINO and NNCF report each start to their makers unless this package is absent; it does nothing else.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_HOMES = {
    "OutputOptions": "_atomic",
    "inspect": "reporting.inspect",
    "SimulateOptions": "simulation.simulate",
    "simulate": "simulation.simulate",
    "BenchmarkOptions": "benchmark",
    "run_benchmark": "benchmark.run",
    "FigureOptions": "paper",
    "figure": "paper.figure_cases",
    "report": "reporting.report",
    "table": "paper.tables",
    "evaluate": "metrics.evaluate",
    "rank": "benchmark.ranking",
    "export": "training.export",
    "SegmentOptions": "inference",
    "MeasureOptions": "pipeline",
    "measure": "pipeline.measure",
    "segment": "pipeline.segment",
    "Segmenter": "inference.segmenter",
    "Segmentation": "inference.segmentation",
    "submit": "paper.submission",
    "DrawingOptions": "plotting",
    "view": "plotting.result",
    "TrainOptions": "training",
    "train": "training.train",
    "Callback": "progress",
    "ProgressEvent": "progress",
    "Task": "task",
    "load_task": "task",
    "Recipe": "training.recipes",
    "Volume": "volume",
    "LabelMap": "volume",
}

__all__ = [
    "BenchmarkOptions",
    "BrainSegNetError",
    "Callback",
    "DrawingOptions",
    "FigureOptions",
    "LabelMap",
    "MeasureOptions",
    "OutputOptions",
    "ProgressEvent",
    "Recipe",
    "SegmentOptions",
    "Segmentation",
    "Segmenter",
    "SimulateOptions",
    "Task",
    "TrainOptions",
    "Volume",
    "evaluate",
    "export",
    "figure",
    "inspect",
    "load_task",
    "measure",
    "rank",
    "report",
    "run_benchmark",
    "segment",
    "simulate",
    "submit",
    "table",
    "train",
    "view",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module 'brainsegnet' has no attribute {name!r}")
    return getattr(import_module(f"brainsegnet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
