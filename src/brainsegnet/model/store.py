"""Model folders: `weights.safetensors`, `card.json` and exports; and the models shipped with the package."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from brainsegnet._atomic import replacing
from brainsegnet.errors import MissingExtra, ModelError, describe_invalid
from brainsegnet.model.card import FORMAT, Card, ExportNote, Form, WeightsNote

if TYPE_CHECKING:
    from brainsegnet.model.architecture import BrainSegNet

CARD_FILE, WEIGHTS_FILE, EXPORT_FOLDER = "card.json", "weights.safetensors", "export"
BEST, LAST = "best", "last"
"""The two model folders inside the output folder of a training."""
HOME = Path(__file__).parents[1] / "models"
"""The folder of the shipped models."""
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
_PICKLE_REFUSAL = "a pickle, which can execute code when it is loaded; train with brainsegnet, or name a model folder"

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
            from brainsegnet.model.network import load_into
        sequences, classes = len(self.card.sequences), self.card.task.classes
        net = BrainSegNet(sequences, classes, **dict(self.card.network))
        load_into(net, self.tensors(), f"model {self.folder}")
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
            path = folder / name
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
        card = _read_card(home / CARD_FILE)
        _check_weights(home, card)
    except OSError as error:
        raise ModelError(f"model {folder} cannot be read: {error.strerror or error}") from error
    return Model(home, card)


@contextmanager
def torch_needed() -> Iterator[None]:
    """Turn a failed import of torch or its companions into a `MissingExtra` that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise MissingExtra(f'{package} is not installed; run: pip install "brainsegnet[train]"') from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_models(home: Path = HOME) -> dict[str, Model]:
    """Every model of the package by its name, checked. Errors are those of `open_model`."""
    return {card.parent.name: open_model(card.parent) for card in sorted(home.glob(f"*/{CARD_FILE}"))}


def is_shipped(named: Path, home: Path = HOME) -> bool:
    """Whether this is the name of a shipped model, and no file or folder has that name."""
    return not named.exists() and named == Path(named.name) and (home / named.name / CARD_FILE).is_file()


def resolve_model(named: Path | str, home: Path = HOME) -> Model:
    """The model in a folder or, if there is no such folder, the shipped model of that name.

    Errors are those of `open_model`.
    """
    path = Path(named)
    return open_model(home / path.name if is_shipped(path, home) else path)


def choose_model(cases: Mapping[str, Collection[str]], home: Path | None = None) -> Model:
    """The shipped model that uses most of the sequences of each case. Of several, the one that lacks fewest.

    Args:
        cases: Name of each case to its sequences. Cases without a sequence that any model uses are ignored.
        home: Folder of the models; None is that of the package.

    Raises:
        ModelError: no model uses any sequence, no model is shipped, or two cases need different models.
    """
    models = shipped_models(home or HOME)
    chosen = {case: name for case, sequences in cases.items() if (name := _find_best(models, sequences))}
    if not chosen:
        known = "; ".join(f"{name}: {', '.join(model.card.sequences)}" for name, model in models.items())
        first = next(iter(cases.values()))
        raise ModelError(
            f"no model of the package takes {', '.join(first) or 'nothing'} ({known or 'none is there'}); "
            "name a model folder with --model"
        )
    case, name = next(iter(chosen.items()))
    if other := next((other for other in chosen if chosen[other] != name), None):
        raise ModelError(
            f"the sequences of case {case} call for model {name}, those of case {other} for model {chosen[other]}; "
            "name one with --model, or segment the two kinds of cases apart"
        )
    return models[name]


def _find_best(models: Mapping[str, Model], sequences: Collection[str]) -> str | None:
    used = {name: len(set(model.card.sequences) & set(sequences)) for name, model in models.items()}
    fewest_lacking = sorted(used, key=lambda name: (-used[name], len(models[name].card.sequences)))
    return fewest_lacking[0] if any(used.values()) else None


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
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
