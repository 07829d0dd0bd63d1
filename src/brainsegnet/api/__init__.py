"""The verbs: each composes the rooms, and only here do disk and network meet."""

from brainsegnet.api.inspection import inspect
from brainsegnet.api.phantoms import grow
from brainsegnet.api.scoring import evaluate
from brainsegnet.api.segmentation import SegmentOptions, segment
from brainsegnet.api.training_run import TrainOptions, train

__all__ = ["SegmentOptions", "TrainOptions", "evaluate", "grow", "inspect", "segment", "train"]
