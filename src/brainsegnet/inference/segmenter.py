"""`Segmenter`: a model that is loaded once and segments case after case in memory, from any thread.

`open_engine` chooses the backend, the device and the arithmetic of the model.
"""

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any, Self, get_args

from brainsegnet._atomic import find_suffix
from brainsegnet._machine import has_bf16_units, has_integer_units
from brainsegnet.errors import BrainSegNetError, DatasetError, ImageError, MissingExtra, MissingSequence, ModelError
from brainsegnet.inference import Precision, SegmentOptions
from brainsegnet.inference.brain import BrainExtractor
from brainsegnet.inference.openvino_backend import Arithmetic, OpenVinoBackend
from brainsegnet.inference.predict import Engine, LoadedCase, PreparedCase, RawPrediction, compute, finish, prepare_case
from brainsegnet.inference.raw import RawCase, load_images
from brainsegnet.inference.segmentation import Segmentation
from brainsegnet.inference.steps import DicomSource
from brainsegnet.inference.tiling import Backend
from brainsegnet.io.images import READERS, from_array, from_nibabel, from_sitk, read_image
from brainsegnet.io.limits import allow_voxels
from brainsegnet.model.card import Card, Form, is_tolerated
from brainsegnet.model.store import Model, resolve_model
from brainsegnet.volume import Case, Volume

ImageLike = Any
"""An image in one of these forms: a `Volume`; an image of nibabel or SimpleITK; a pair of an array (I, J, K) and its
affine (4, 4) to RAS+ millimetres, as in nibabel; or the path of an image file, or of the folder or zip of a DICOM
series."""


class Segmenter:
    """Finds lesions in scans in memory, with a model that is loaded once.

    Call it with the sequences of one case. It returns a `Segmentation` and writes no file. Threads may share one
    segmenter: they prepare cases in parallel, and one case at a time goes through the network. A pickled segmenter
    loads the model again where it is unpickled. A `with` block releases the model at its end.

    Args:
        model: Name of a shipped model (`tumour`, `stroke`, `perfusion`), model folder, output folder of `train`, or
            open `Model`.
        options: How to segment.
        changes: Single fields of `SegmentOptions` by name, which replace those of `options`: `probabilities=True`.

    Raises:
        ModelError: the model cannot be used.
        BrainSegNetError: an option is out of its range.

    Examples:
        >>> segmenter = Segmenter("tumour", threads=2)
        >>> segmenter.sequences
        ('flair', 't1', 't1c', 't2')
        >>> result = segmenter({"flair": "flair.nii.gz", "t1c": "t1c.nii.gz"})  # doctest: +SKIP
        >>> result.volumes_ml["regions"]["whole"]  # doctest: +SKIP
        116.816
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
        self._extractor: BrainExtractor | None = None
        self._lock_extractor = RLock()

    def __call__(self, images: Mapping[str, ImageLike] | Case, name: str = "case") -> Segmentation:
        """Segment one case.

        Args:
            images: Sequence name to image, in any form of `ImageLike`, each on its own grid, with or without the skull.
                Sequences that the model does not use are ignored. A `Case` is taken as it is, so it must be prepared.
            name: Name of the case, for messages and the report. A `Case` has its own name.

        Returns:
            The label map on the grid of the reference (by default the sequence with the thinnest slices), with volumes
            in ml, warnings and the maps that the options ask for.

        Raises:
            MissingSequence: the model needs a sequence that is absent, or all are absent.
            GridMismatch: a sequence is on another grid, and `register` is off.
            ImageError: an image cannot be read or used, or shows no brain.
            DatasetError: a folder of DICOM holds no series, or several.
            MemoryError: the network needs more memory than there is, even for the thinnest slab.
        """
        loaded = LoadedCase(images) if isinstance(images, Case) else self._load(images, name)
        return self.finish(self.compute(self.prepare(loaded)))

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the sequences that the model uses, in the order of its channels."""
        return self.model.card.sequences

    @property
    def prepares_on_cpu(self) -> bool:
        """Whether cases are prepared on the CPU, which can happen while another case is in the network."""
        return stays_on_cpu(self.options.device)

    def open(self) -> Engine:
        """Load the model if it is not loaded yet, and return the engine that runs it.

        Raises:
            BrainSegNetError: the segmenter is closed, or there is no such device or precision.
            ModelError: an export of the model is altered or absent.
            MissingExtra: the model has no export, and torch is not installed.
        """
        with self._lock:
            if self._closed:
                raise BrainSegNetError(f"the segmenter of model {self.model.card.name} is closed; make another one")
            if self._engine is None:
                how = self.options
                self._engine = open_engine(self.model, how.device, how.threads, how.precision, how.max_bytes)
            return self._engine

    def close(self) -> None:
        """Release the model. The segmenter refuses later calls."""
        with self._lock:
            self._engine, self._closed = None, True

    def prepare(self, loaded: LoadedCase) -> PreparedCase:
        """First of the three steps of a call: check the case, turn it upright, crop it to the brain and normalise it.

        Errors are those of a call.
        """
        card = self.model.card
        return prepare_case(loaded, card) if self.prepares_on_cpu else prepare_case(loaded, card, self.open().prepare)

    def compute(self, prepared_case: PreparedCase) -> RawPrediction:
        """Second of the three steps of a call: run the network, for one case at a time."""
        with self._lock:
            return compute(prepared_case, self.open(), self.options)

    def finish(self, raw: RawPrediction) -> Segmentation:
        """Third of the three steps of a call: bring the result to the grid of the case and the labels of the task."""
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
        volumes: dict[str, Volume] = {}
        sources: dict[str, DicomSource] = {}
        with allow_voxels(self.options.max_voxels):
            for sequence in known:
                if source := find_dicom(images[sequence]):
                    volumes[sequence], sources[sequence] = source.series.read(source.number), source
                else:
                    volumes[sequence] = to_volume(images[sequence], f"case {name}: {sequence}")
        return self.load(RawCase(name, volumes, sources))

    def load(self, raw: RawCase) -> LoadedCase:
        """Before the three steps: align the images, find the brain, and bring all to the voxels of the model.

        Errors are those of a call.
        """
        return load_images(raw, self.model.card, self.options, self._open_extractor)

    def _open_extractor(self) -> BrainExtractor:
        with self._lock_extractor:
            if self._extractor is None:
                self._extractor = BrainExtractor(self.options.threads)
            return self._extractor


def find_dicom(image: ImageLike) -> DicomSource | None:
    """The DICOM series in a folder, a zip or a file; None if the image is something else.

    Raises:
        DatasetError: a folder holds no DICOM, or several series.
        ImageError: the series cannot be used.
    """
    if not isinstance(image, (str, Path)):
        return None
    path = Path(image)
    if not path.is_dir() and (find_suffix(path, READERS) or not path.is_file()):
        return None
    from brainsegnet.io.dicom import read_study

    series = read_study(path).series
    if len(series) > 1:
        names = ", ".join(one.name for one in series)
        raise DatasetError(f"{path} holds {len(series)} series, {names}; name the folder of one")
    return DicomSource(series[0])


def to_volume(image: ImageLike, name: str = "the image") -> Volume:
    """Convert an image in any form of `ImageLike` to a `Volume`.

    Args:
        image: The image.
        name: What messages call it.

    Raises:
        ImageError: the image has none of these forms, or cannot be read.
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
    """Load a model in the form that runs fastest on this machine.

    Args:
        model: Model to load. Its exports run without torch; without exports, torch runs the weights.
        device: "auto" is a GPU if there is one and torch is installed, else the CPU.
        threads: Number of CPU threads; None means all cores.
        precision: Arithmetic on the CPU. "auto" is int8 if the processor has instructions for it and the card shows a
            tolerated loss of Dice. Otherwise it is bf16 on the same two conditions, else float.
        max_bytes: Memory for one forward pass; None means the free memory.

    Raises:
        ModelError: an export is altered, or the model has none for the chosen precision (int8, bf16).
        MissingExtra: the model has no export, and torch is not installed.
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
    """Whether `open_engine` computes on the CPU if it is given this device."""
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
