"""`Segmenter`: a model that is opened once and segments case after case in memory, from any thread."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Self

from brainsegnet.errors import BrainSegNetError, ImageError, MissingSequence
from brainsegnet.inference.engine import Engine, open_engine, stays_on_cpu
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.predict import LoadedCase, PreparedCase, RawPrediction, compute, finish, prepare_case
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.io.images import from_array, from_nibabel, from_sitk, read_image
from brainsegnet.model.store import Model, resolve_model
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.volume import Case, Volume

ImageLike = Any
"""A `Volume`; a nibabel or SimpleITK image; an array (I, J, K) and its affine to RAS+ millimetres, as nibabel has them;
or the path of an image file."""


class Segmenter:
    """A model ready to segment cases in memory; files are written only if a result is saved.

    It may be called from several threads: cases are prepared in parallel and go through the network one at a time. A
    pickled segmenter loads the model again where it is unpickled. A `with` block closes it at the end.

    Args:
        model: Name of a shipped model, model folder, output folder of `train`, or an open `Model`.
        options: How to segment; `resample` and `register` also apply to images in memory.
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
            images: Sequence name to image. The first sequence of the model that is present gives the grid. Sequences
                that the model does not know are ignored.
            name: Of the case, for messages and the report; a `Case` has its own.

        Raises:
            MissingSequence: a sequence is absent and the model needs it, or all are absent.
            GridMismatch: a sequence is on another grid, and neither `resample` nor `register` is chosen.
            ImageError: an image cannot be read or used.
            MemoryError: a forward pass needs more memory than there is.
        """
        loaded = LoadedCase(images) if isinstance(images, Case) else self._load(images, name)
        return self.finish(self.compute(self.prepare(loaded)))

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences that the model uses, in its order."""
        return self.model.card.sequences

    @property
    def prepares_on_cpu(self) -> bool:
        """Whether a case is prepared on the CPU, and so while another case is in the network."""
        return stays_on_cpu(self.options.device)

    def open(self) -> Engine:
        """The engine; the first call loads the model.

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
        """Release the model; further calls are refused."""
        with self._lock:
            self._engine, self._closed = None, True

    def prepare(self, loaded: LoadedCase) -> PreparedCase:
        """First of three steps: check, bring upright, crop and normalise."""
        card = self.model.card
        return prepare_case(loaded, card) if self.prepares_on_cpu else prepare_case(loaded, card, self.open().prepare)

    def compute(self, prepared_case: PreparedCase) -> RawPrediction:
        """Second step: the network, for one case at a time."""
        with self._lock:
            return compute(prepared_case, self.open(), self.options)

    def finish(self, raw: RawPrediction) -> Segmentation:
        """Third step: back to the grid of the case and the labels of the task."""
        return finish(raw, self.model.card, self.model.folder)

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

    def _load(self, images: Mapping[str, ImageLike], name: str) -> LoadedCase:
        """The sequences of the model among the images, on one grid."""
        if not images:
            raise MissingSequence(f"case {name} has no image; give one or more of {', '.join(self.sequences)}")
        known = [sequence for sequence in self.sequences if sequence in images] or list(images)
        volumes = {sequence: to_volume(images[sequence], f"case {name}: {sequence}") for sequence in known}
        aligner = Aligner(name, self.options.register)
        if self.options.resample or self.options.register:
            first = next(iter(volumes.values()))
            volumes = {
                sequence: volume if volume.on_grid_of(first) else aligner(sequence, volume, first)
                for sequence, volume in volumes.items()
            }
        return LoadedCase(Case(name, volumes), aligner.to_json())


def to_volume(image: ImageLike, name: str = "the image") -> Volume:
    """An image in one of the forms that `Segmenter` takes, as a `Volume`.

    Args:
        image: See `ImageLike`.
        name: What the image is called in messages.

    Raises:
        ImageError: it has none of these forms, or cannot be read.

    >>> import numpy as np
    >>> to_volume((np.zeros((2, 3, 4)), np.eye(4))).shape
    (4, 3, 2)
    """
    if isinstance(image, Volume):
        return image
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, tuple) and len(image) == 2:
        return from_array(*image, name)
    if hasattr(image, "dataobj") and hasattr(image, "affine"):
        return from_nibabel(image, name)
    if hasattr(image, "GetDirection"):
        return from_sitk(image, name)
    raise ImageError(
        f"{name} is a {type(image).__name__}; give a Volume, a nibabel or SimpleITK image, a pair of array and affine, "
        "or a path"
    )
