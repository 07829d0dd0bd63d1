"""`Segmenter`, the in-memory door: a model that is opened once and segments case after case, from any thread."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Self

import numpy as np

from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.inference.engine import Engine, open_engine, stays_on_cpu
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.predict import PreparedCase, RawPrediction, compute, finish, prepare_case
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.io.images import from_nibabel, from_sitk, read_image
from brainsegnet.model.store import Model, resolve_model
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.volume import Case, Volume

ImageLike = Any
"""A `Volume`; a nibabel or SimpleITK image; a pair of an array (I, J, K) and its affine to RAS+ millimetres, as nibabel
has them; or the path of an image file."""


class Segmenter:
    """A model ready to segment cases in memory; nothing is written unless a result is saved.

    It may be called from several threads at once: cases are prepared side by side and go through the network one after
    the other. It can be pickled, and then opens the model anew where it is used. In a `with` block it is closed at the
    end.

    Args:
        model: Name of a shipped model, model folder, output folder of `train`, or an open `Model`.
        options: How to segment; `resample` and `register` say what becomes of sequences on other grids.
        changes: Fields of `SegmentOptions` by name, in place of those of `options`.

    Raises:
        ModelError: the model cannot be used.
        BrainSegNetError: an option is out of its range.

    >>> segmenter = Segmenter("tumour", threads=2)
    >>> segmenter.sequences
    ('flair', 't1', 't1c', 't2')
    """

    def __init__(
        self,
        model: Model | Path | str,
        options: SegmentOptions | None = None,
        **changes: Any,  # noqa: ANN401
    ) -> None:
        self.model = model if isinstance(model, Model) else resolve_model(model)
        self.options = replace(options or SegmentOptions(), **changes)
        self._lock, self._closed = RLock(), False
        self._engine: Engine | None = None

    def __call__(self, images: Mapping[str, ImageLike] | Case, name: str = "case") -> Segmentation:
        """Segment one case.

        Args:
            images: Sequence name to image; the first one that the model uses, in the model's order, gives the grid.
                Sequences that the model does not know are ignored.
            name: Of the case, for messages and the report.

        Raises:
            MissingSequence: a sequence is absent and the model needs it, or all are.
            GridMismatch: a sequence lies on another grid, and neither `resample` nor `register` is chosen.
            ImageError: an image cannot be read or used.
            MemoryError: a pass needs more than there is.
        """
        aligner = Aligner(name, self.options.register)
        case = images if isinstance(images, Case) else self._arrange(images, name, aligner)
        return replace(self.finish(self.compute(self.prepare(case))), moved=aligner.to_json())

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences that the model uses, in its order."""
        return self.model.card.sequences

    @property
    def prepares_on_cpu(self) -> bool:
        """Whether cases can be prepared before the model is open, while another case is computed."""
        return stays_on_cpu(self.options.device)

    def open(self) -> Engine:
        """The engine; the model is loaded with the first call.

        Raises:
            ModelError, MissingExtra: it cannot be run here.
            BrainSegNetError: the segmenter was closed.
        """
        with self._lock:
            if self._closed:
                raise BrainSegNetError(f"the segmenter of model {self.model.card.name} is closed; make another one")
            if self._engine is None:
                options = self.options
                self._engine = open_engine(
                    self.model, options.device, options.threads, options.precision, options.max_bytes
                )
            return self._engine

    def close(self) -> None:
        """Free the model; further calls are refused."""
        with self._lock:
            self._engine, self._closed = None, True

    def prepare(self, case: Case) -> PreparedCase:
        """The first of three steps: check, bring upright, crop and normalise a case whose sequences share a grid."""
        card = self.model.card
        return prepare_case(case, card) if self.prepares_on_cpu else prepare_case(case, card, self.open().prepare)

    def compute(self, prepared_case: PreparedCase) -> RawPrediction:
        """The second step: the network; one case at a time."""
        with self._lock:
            return compute(prepared_case, self.open(), self.options)

    def finish(self, raw: RawPrediction) -> Segmentation:
        """The third step: back to the grid of the case and the labels of the task."""
        return replace(finish(raw, self.model.card), model_folder=self.model.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "options": self.options}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["model"], state["options"])  # type: ignore[misc]

    def _arrange(self, images: Mapping[str, ImageLike], name: str, aligner: Aligner) -> Case:
        """The sequences of the model among the images, on one grid."""
        known = [sequence for sequence in self.sequences if sequence in images] or list(images)
        volumes = {sequence: to_volume(images[sequence], f"case {name}: {sequence}") for sequence in known}
        if self.options.resample or self.options.register:
            first = next(iter(volumes.values()))
            volumes = {
                sequence: volume if volume.on_grid_of(first) else aligner(sequence, volume, first)
                for sequence, volume in volumes.items()
            }
        return Case(name, volumes)


def to_volume(image: ImageLike, what: str = "the image") -> Volume:
    """An image in one of the forms that `Segmenter` takes, as a `Volume`.

    Args:
        image: See `ImageLike`.
        what: It is, for messages.

    Raises:
        ImageError: it is none of these, or a file cannot be read.

    >>> to_volume((np.zeros((2, 3, 4)), np.eye(4))).shape
    (4, 3, 2)
    """
    if isinstance(image, Volume):
        return image
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, tuple) and len(image) == 2:
        return _from_pair(*image, what)
    if hasattr(image, "dataobj") and hasattr(image, "affine"):
        return from_nibabel(image, what)
    if hasattr(image, "GetDirection"):
        return from_sitk(image, what)
    raise ImageError(
        f"{what} is a {type(image).__name__}; give a Volume, a nibabel or SimpleITK image, a pair of array and affine, "
        "or a path"
    )


def _from_pair(array: ImageLike, affine: ImageLike, what: str) -> Volume:
    array, affine = np.asarray(array), np.asarray(affine, np.float64)
    if array.ndim != 3 or affine.shape != (4, 4):
        raise ImageError(
            f"{what} has an array of shape {array.shape} and an affine of {affine.shape}; 3-D and (4, 4) are due"
        )
    return Volume(array.T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]])
