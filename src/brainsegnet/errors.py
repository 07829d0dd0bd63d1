"""The errors a user can cause, each carrying one sentence: the case, the value and the remedy."""


class BrainSegNetError(ValueError):
    """Base of every error that a user can cause and mend; its text is one sentence, shown as it is."""


class ImageError(BrainSegNetError):
    """A file is no image, or an image cannot be used: not 3-D, empty, constant, NaN or infinite."""


class GridMismatch(BrainSegNetError):
    """Two volumes that must lie on one grid do not."""


class MissingSequence(BrainSegNetError):
    """A sequence that is needed is absent."""


class LabelError(BrainSegNetError):
    """A label map holds values outside its task."""


class DatasetError(BrainSegNetError):
    """A folder or table holds no readable cases."""


class TaskError(BrainSegNetError):
    """A task or recipe is unknown or contradicts itself."""


class ModelError(BrainSegNetError):
    """A model folder is incomplete, altered, unsafe or too new."""


class OutputError(BrainSegNetError):
    """A result cannot be written."""


class TrainingDiverged(BrainSegNetError):
    """The loss of a training is no longer a number."""


class MissingExtra(BrainSegNetError):
    """An optional library is absent; the text names the extra that installs it."""
