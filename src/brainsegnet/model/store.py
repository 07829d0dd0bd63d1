"""Model folders: `weights.safetensors`, `card.json` and exports; and the models shipped with the package."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from brainsegnet._atomic import hash_file as hash_file
from brainsegnet._atomic import replacing, sweep, unfinished
from brainsegnet._documents import load_json, read_text
from brainsegnet.errors import BrainSegNetError, MissingExtra, ModelError, describe_invalid
from brainsegnet.model.card import FORMAT, Card, ExportNote, Form, WeightsNote
from brainsegnet.task import STROKE, TASKS, TUMOUR, Task

if TYPE_CHECKING:
    from brainsegnet.model.architecture import BrainSegNet

CARD_FILE, WEIGHTS_FILE, EXPORT_FOLDER = "card.json", "weights.safetensors", "export"
BRAIN_CARD_FILE = "brain.json"
"""The card of the model that extracts brains; see `model.brain_card`."""
BEST, LAST = "best", "last"
"""The two model folders inside the output folder of a training."""
HOME = Path(__file__).parents[1] / "models"
"""The folder of the shipped models."""
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
_PICKLE_REFUSAL = "a pickle, which can execute code when it is loaded; train with brainsegnet, or name a model folder"

_STROKE_SEQUENCES = {"dwi", "adc"}

Weights = Mapping[str, Any]
"""Tensors by name, as `state_dict` gives them; torch itself is not imported here."""


@dataclass(frozen=True)
class Model:
    """A model folder that was checked: a valid card, and weights that match it. Opening it executes nothing.

    Attributes:
        folder: The model folder.
        card: Content of `card.json`.
    """

    folder: Path
    card: Card

    def tensors(self) -> Weights:
        """The weights by name, on the CPU.

        Raises:
            ModelError: the file is not safetensors.
            MissingExtra: torch is not installed.
        """
        with torch_needed():
            from brainsegnet.model.network import read_tensors
        return read_tensors(self.folder / WEIGHTS_FILE)[0]

    def build(self) -> "BrainSegNet":
        """The network with its weights, in evaluation mode, on the CPU.

        Raises:
            ModelError: a tensor is missing, unknown, or of another shape than the card describes.
            MissingExtra: torch is not installed.
        """
        with torch_needed():
            from brainsegnet.model.architecture import BrainSegNet
            from brainsegnet.model.network import check_fit, load_into, without_memory
        sequences, classes = len(self.card.sequences), self.card.task.classes
        tensors, origin = self.tensors(), f"model {self.folder}"
        with without_memory():
            check_fit(BrainSegNet(sequences, classes, **dict(self.card.network)), tensors, origin)
        net = BrainSegNet(sequences, classes, **dict(self.card.network))
        load_into(net, tensors, origin)
        return net.eval()

    def exported(self, form: Form) -> Path:
        """The file of an export, after a check.

        Raises:
            ModelError: the model has no such export, it is absent or altered, or it was made from other weights.
        """
        remedy = f"make it with: brainsegnet export {self.folder}"
        note, folder = self.card.exports.get(form), self.folder / EXPORT_FOLDER
        if note is None:
            raise ModelError(f"model {self.folder} has no {form} export; {remedy}")
        if self.card.weights is None or note.weights != self.card.weights.sha256:
            raise ModelError(f"the {form} export of model {self.folder} was made from other weights; {remedy}")
        for name, sha256 in note.files.items():
            path = folder / Path(name).name
            if not path.is_file():
                raise ModelError(f"{path} does not exist; {remedy}")
            if hash_file(path) != sha256:
                raise ModelError(f"{path} is not the file that its card describes (SHA-256 differs); {remedy}")
        return folder / next(iter(note.files))


def save_model(folder: Path, card: Card, weights: Weights) -> Model:
    """Write weights and card into a folder, which is created if needed.

    Other files of the folder stay; exports are removed from the card. Both files replace earlier ones together at the
    end, so a crash leaves the earlier model.

    Raises:
        OutputError: the folder cannot be created or written to, or the disk is full.
        MissingExtra: torch is not installed.
    """
    with torch_needed():
        from brainsegnet.model.network import write_tensors
    with replacing(folder / CARD_FILE) as new_card, replacing(folder / WEIGHTS_FILE) as new_weights:
        write_tensors(weights, new_weights)
        note = WeightsNote(sha256=hash_file(new_weights), bytes=new_weights.stat().st_size)
        card = card.model_copy(update={"weights": note, "exports": {}})
        _write_card(card, new_card)
    return Model(folder, card)


def save_exports(model: Model, write: Callable[[Path], Mapping[Form, ExportNote]]) -> Model:
    """Replace the exports of a model by what `write` puts into an empty folder and describes.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    with replacing(model.folder / CARD_FILE) as new_card, replacing(model.folder / EXPORT_FOLDER) as folder:
        folder.mkdir()
        card = model.card.model_copy(update={"exports": dict(write(folder))})
        _write_card(card, new_card)
    return Model(model.folder, card)


def replace_card(model: Model, card: Card) -> Model:
    """Replace the card of a model; weights and exports stay.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    with replacing(model.folder / CARD_FILE) as new_card:
        _write_card(card, new_card)
    return Model(model.folder, card)


def open_model(folder: Path) -> Model:
    """Open and check a model folder. From the output folder of a training it opens the best model, else the last.

    Raises:
        ModelError: the folder is absent, incomplete, altered, in another format (such as a pickle) or too new.
    """
    try:
        home = _find_home(folder)
        settle(home)
        card = _read_card(home / CARD_FILE)
        _check_weights(home, card)
    except OSError as error:
        raise ModelError(f"model {folder} cannot be read: {error.strerror or error}") from error
    return Model(home, card)


def settle(home: Path) -> None:
    """Finish the exchange of a card in a model folder, if a process was killed before it.

    A temporary card takes its place if it describes the weights and exports in the folder. Other temporary files are
    removed.
    """
    for left in unfinished(home):
        if left.name == CARD_FILE and left.is_dead:
            with suppress(OSError, ModelError):
                card = _read_card(left.path)
                _check_weights(home, card)
                model = Model(home, card)
                for form in card.exports:
                    model.exported(form)
                os.replace(left.path, home / CARD_FILE)
    sweep(home)


@contextmanager
def torch_needed() -> Iterator[None]:
    """Turn a failed import of torch or its companions into a `MissingExtra` that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise MissingExtra(f'{package} is not installed; run: pip install "brainsegnet[train]"') from error


def shipped_models(home: Path = HOME) -> dict[str, Model]:
    """Every model of the package by its name, checked. Errors are those of `open_model`."""
    return {card.parent.name: open_model(card.parent) for card in sorted(home.glob(f"*/{CARD_FILE}"))}


def is_shipped(named: Path, home: Path = HOME) -> bool:
    """Whether this is the name of a shipped model, and no file or folder has that name."""
    return not named.exists() and named == Path(named.name) and (home / named.name / CARD_FILE).is_file()


def is_brain_model(named: Path, home: Path = HOME) -> bool:
    """Whether this is the name of the shipped model that extracts brains, and no file or folder has that name."""
    return not named.exists() and named == Path(named.name) and (home / named.name / BRAIN_CARD_FILE).is_file()


def resolve_model(named: Path | str, home: Path = HOME) -> Model:
    """The model in a folder or, if there is no such folder, the shipped model of that name.

    Errors are those of `open_model`, and ModelError for the model that extracts brains.
    """
    path = Path(named)
    if is_brain_model(path, home):
        names = ", ".join(card.parent.name for card in sorted(home.glob(f"*/{CARD_FILE}")))
        raise ModelError(
            f"model {path} finds the brain in scans with the skull on, and no lesions; segment runs it by itself where "
            f"it is needed, so name another one: {names}"
        )
    return open_model(home / path.name if is_shipped(path, home) else path)


class Candidate(NamedTuple):
    """What is known of a case before a model is chosen for it.

    Attributes:
        sequences: Its sequences.
        disease: The disease that its data set or its task tells; empty if neither does.
        source: The data set or task that tells it.
    """

    sequences: Collection[str]
    disease: str = ""
    source: str = ""

    @property
    def likely_disease(self) -> str:
        """The disease that is told. If none is, DWI or ADC means stroke, and other sequences mean tumour."""
        return self.disease or (STROKE if _STROKE_SEQUENCES & {*self.sequences} else TUMOUR)


class Choice(NamedTuple):
    """A shipped model, and the sentence part that says why it was chosen."""

    model: Model
    reason: str


def find_task(note: Mapping[str, Any]) -> Task | None:
    """The task of a result, by the name or the model in its JSON; None if neither has the labels of the JSON."""
    convention, model = note.get("convention"), note.get("model")
    listed = convention.items() if isinstance(convention, dict) else ()
    labels = {int(value): str(tissue) for value, tissue in listed if value.isdecimal()}
    candidates = [TASKS.get(str(note.get("task")))]
    folder = model.get("folder") if isinstance(model, dict) else None
    if isinstance(folder, str) and folder:
        with suppress(BrainSegNetError):  # a model that was moved is no reason not to look at its result
            candidates.append(open_model(Path(folder)).card.task)
    return next((task for task in candidates if task and labels and dict(task.labels) == labels), None)


def choose_model(cases: Mapping[str, Candidate], home: Path | None = None) -> Choice:
    """The shipped model for the disease of the cases. Of several, the one that uses most of their sequences.

    Of models that use as many, it is the one that lacks fewest.

    Args:
        cases: Name of each case to what is known of it. Cases without a sequence that a model uses are ignored.
        home: Folder of the models; None is that of the package.

    Raises:
        ModelError: there is no model for a disease that a data set or task tells. Or no model uses any sequence, no
            model is shipped, or two cases need different models.
    """
    models = shipped_models(home or HOME)
    chosen = {case: name for case, known in cases.items() if (name := _find_best(models, case, known))}
    if not chosen:
        known = "; ".join(f"{name}: {', '.join(model.card.sequences)}" for name, model in models.items())
        first = next(iter(cases.values()))
        raise ModelError(
            f"no model of the package {f'for {first.disease} ' if first.disease else ''}takes "
            f"{', '.join(first.sequences) or 'nothing'} ({known or 'none is there'}); name a model folder with --model"
        )
    case, name = next(iter(chosen.items()))
    if other := next((other for other in chosen if chosen[other] != name), None):
        raise ModelError(
            f"case {case} calls for model {name} ({_describe_reason(models[name], cases[case])}), case {other} for "
            f"model {chosen[other]} ({_describe_reason(models[chosen[other]], cases[other])}); name one with --model, "
            "or segment the two kinds of cases apart"
        )
    return Choice(models[name], _describe_reason(models[name], cases[case]))


def _find_best(models: Mapping[str, Model], case: str, known: Candidate) -> str | None:
    """Name of the best model for a case; None if none uses any of its sequences."""
    fitting = {name: model for name, model in models.items() if model.card.task.disease == known.likely_disease}
    if known.disease and not fitting:
        there = "; ".join(f"{name}: {model.card.task.disease}" for name, model in models.items())
        raise ModelError(
            f"case {case}: {known.source} means {known.disease}, for which the package has no model "
            f"({there or 'none is there'}); name a model folder with --model"
        )
    best = _most_used(fitting, known.sequences)
    return best if best or known.disease else _most_used(models, known.sequences)


def _most_used(models: Mapping[str, Model], sequences: Collection[str]) -> str | None:
    used = {name: len(set(model.card.sequences) & set(sequences)) for name, model in models.items()}
    fewest_lacking = sorted(used, key=lambda name: (-used[name], len(models[name].card.sequences)))
    return fewest_lacking[0] if any(used.values()) else None


def _describe_reason(model: Model, known: Candidate) -> str:
    """Why a model was chosen for a case."""
    if known.disease:
        return f"{known.source} means {known.disease}"
    if model.card.task.disease != known.likely_disease:
        return f"it alone takes {', '.join(name for name in known.sequences if name in model.card.sequences)}"
    if known.likely_disease == STROKE:
        telling = [name.upper() for name in known.sequences if name in _STROKE_SEQUENCES]
        return f"{' and '.join(telling)} {'mean' if len(telling) > 1 else 'means'} stroke"
    return "there is no DWI or ADC"


def _find_home(folder: Path) -> Path:
    """The folder that holds the card."""
    for home in (folder, folder / BEST, folder / LAST):
        if (home / CARD_FILE).is_file():
            return home
    if folder.is_dir():
        pickles = _find_pickles(folder.iterdir())
        rest = f", only {pickles[0]}, {_PICKLE_REFUSAL}" if pickles else "; name a folder that training wrote"
        raise ModelError(f"model {folder} holds no {CARD_FILE}{rest}")
    if _find_pickles([folder]):
        raise ModelError(f"model {folder} is {_PICKLE_REFUSAL}")
    if folder.exists():
        raise ModelError(f"model {folder} is a file; name the folder that holds {CARD_FILE} and {WEIGHTS_FILE}")
    raise ModelError(f"model {folder} does not exist; name a folder that training wrote")


def _find_pickles(paths: Iterable[Path]) -> list[str]:
    return sorted(path.name for path in paths if path.suffix.lower() in PICKLES)


def _read_card(path: Path) -> Card:
    try:
        content = load_json(read_text(path))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); the model is incomplete, copy it again") from error
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise ModelError(
            f"{path} has format {version}, this version reads up to {FORMAT}; update it: pip install -U brainsegnet"
        )
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        defect = describe_invalid(error.errors()[0])
        raise ModelError(f"{path} is no card of a model: {defect}; copy the model again") from error


def _write_card(card: Card, path: Path) -> None:
    path.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")


def _check_weights(home: Path, card: Card) -> None:
    path = home / WEIGHTS_FILE
    if not path.is_file():
        pickles = _find_pickles(home.iterdir())
        remedy = f"{pickles[0]} is {_PICKLE_REFUSAL}" if pickles else "copy the whole model again"
        raise ModelError(f"model {home} holds no {WEIGHTS_FILE}; {remedy}")
    if card.weights is None:
        raise ModelError(f"{home / CARD_FILE} does not say which weights it describes; copy the model again")
    if path.stat().st_size != card.weights.bytes or hash_file(path) != card.weights.sha256:
        raise ModelError(f"{path} is not the file that its card describes (SHA-256 differs); copy the model again")
    if name := find_nan(path):
        raise ModelError(f"{path} holds NaN or infinite weights, in {name} first; train the model again")


def find_nan(path: Path) -> str:
    """Name of the first tensor in a safetensors file that holds NaN or infinite values; empty if none does.

    A network with such weights finds nothing, without an error. The result is also empty for a file of another kind.
    """
    import numpy as np

    floats = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    with path.open("rb") as file, suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return ""
        start = 8 + length
        for name, note in load_json(file.read(length).decode()).items():
            if name != "__metadata__" and note["dtype"] in floats:
                begin, end = note["data_offsets"]
                file.seek(start + begin)
                if not np.isfinite(np.frombuffer(file.read(end - begin), floats[note["dtype"]])).all():
                    return str(name)
    return ""
