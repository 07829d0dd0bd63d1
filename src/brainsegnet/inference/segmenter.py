"""`Segmenter`: a model that is opened once and segments case after case in memory, from any thread.

`open_engine` chooses the backend, the device and the arithmetic with which the model runs.
"""

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any, Self, get_args

from brainsegnet._machine import has_bf16_units, has_integer_units
from brainsegnet.errors import BrainSegNetError, ImageError, MissingExtra, MissingSequence, ModelError
from brainsegnet.inference import Precision, SegmentOptions
from brainsegnet.inference.openvino_backend import Arithmetic, OpenVinoBackend
from brainsegnet.inference.predict import Engine, LoadedCase, PreparedCase, RawPrediction, compute, finish, prepare_case
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.inference.tiling import Backend
from brainsegnet.io.images import from_array, from_nibabel, from_sitk, read_image
from brainsegnet.io.limits import allow_voxels
from brainsegnet.model.card import Card, Form, is_tolerated
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
        """The engine; the first call loads the model. Errors as `open_engine`, and where the segmenter was closed."""
        with self._lock:
            if self._closed:
                raise BrainSegNetError(f"the segmenter of model {self.model.card.name} is closed; make another one")
            if self._engine is None:
                how = self.options
                self._engine = open_engine(self.model, how.device, how.threads, how.precision, how.max_bytes)
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

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, self.options)

    def _load(self, images: Mapping[str, ImageLike], name: str) -> LoadedCase:
        """The sequences of the model among the images, on one grid."""
        if not images:
            raise MissingSequence(f"case {name} has no image; give one or more of {', '.join(self.sequences)}")
        known = [sequence for sequence in self.sequences if sequence in images] or list(images)
        with allow_voxels(self.options.max_voxels):
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
    """An image in one of the forms of `ImageLike`, as a `Volume`; `name` is what it is called in messages.

    Raises:
        ImageError: it has none of these forms, or cannot be read.
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


def open_engine(
    model: Model,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
    max_bytes: int | None = None,
) -> Engine:
    """The fastest way to run a model on this machine.

    Args:
        model: Its exports run without torch; without exports, torch runs the weights.
        device: "auto" is a GPU if there is one and torch is installed, else the CPU.
        threads: Of the CPU; None is all cores.
        precision: Of the CPU. "auto" is int8 where the processor has instructions for it and the card says that the
            loss of Dice is tolerated; else bf16 on the same two conditions; else float.
        max_bytes: Memory of a forward pass; None is what is free.

    Raises:
        ModelError: an export was altered, or the model has no export for the chosen precision (int8, bf16).
        MissingExtra: there is no export, and no torch.
        BrainSegNetError: there is no such device or precision, or the processor has no units for bf16.
    """
    if precision not in get_args(Precision):
        raise BrainSegNetError(f"unknown precision {precision!r}; choose one of {', '.join(get_args(Precision))}")
    if stays_on_cpu(device):
        return Engine(model.card, _open_on_cpu(model, threads, precision), max_bytes)
    from brainsegnet.inference.torch_backend import TorchBackend

    backend = TorchBackend(model.build(), device, threads)
    return Engine(model.card, backend, max_bytes, lambda: _open_on_cpu(model, threads, precision))


def stays_on_cpu(device: str) -> bool:
    """Whether `open_engine` computes on the CPU with this device."""
    return device == "cpu" or (device == "auto" and not _has_gpu())


def _open_on_cpu(model: Model, threads: int | None, precision: Precision) -> Backend:
    """OpenVINO for an export, or torch for the weights if there is none."""
    arithmetic = _choose_arithmetic(model.card, precision)
    if arithmetic != "float" or "fp16" in model.card.exports:
        form: Form = "int8" if arithmetic == "int8" else "fp16"
        return OpenVinoBackend(model.exported(form), model.card, arithmetic, threads)
    try:
        from brainsegnet.inference.torch_backend import TorchBackend
    except MissingExtra as error:
        raise ModelError(
            f"model {model.folder} has no export, which is needed without torch; where torch is installed, run: "
            f"brainsegnet export {model.folder}"
        ) from error
    return TorchBackend(model.build(), "cpu", threads)


def _choose_arithmetic(card: Card, precision: Precision) -> Arithmetic:
    """The arithmetic of a precision, see `open_engine`; bf16 is refused where OpenVINO would not compute in it."""
    if precision == "bf16" and not has_bf16_units():
        raise BrainSegNetError("this processor has no matrix units for bf16 (AMX); choose precision float or int8")
    if precision != "auto":
        return precision
    exports = card.exports
    if "int8" in exports and is_tolerated(exports["int8"].dice_change) and has_integer_units():
        return "int8"
    return "bf16" if "fp16" in exports and is_tolerated(exports["fp16"].bf16_change) and has_bf16_units() else "float"


def _has_gpu() -> bool:
    """Whether torch finds a GPU; torch takes seconds to load, so it is asked only if there is a CUDA driver."""
    if find_spec("torch") is None:
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    from brainsegnet.inference.torch_backend import choose_device

    return choose_device("auto").type == "cuda"
