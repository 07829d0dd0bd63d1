"""Model folders: `weights.safetensors` and the `card.json` that says all about them; loading executes nothing.

Models that lie inside the package: found by name, or by the sequences that a case has.
"""

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
from brainsegnet.model.card import FORMAT, Architecture, Card, Data, ExportNote, Form, Input, TrainingNote, WeightsNote

if TYPE_CHECKING:
    from brainsegnet.model.architecture import BrainSegNet

__all__ = [
    "Architecture",
    "Card",
    "Data",
    "Input",
    "Model",
    "TrainingNote",
    "open_model",
    "save_model",
]

CARD_FILE, WEIGHTS_FILE, EXPORT_FOLDER = "card.json", "weights.safetensors", "export"
BEST, LAST = "best", "last"
"""The two model folders that a training keeps inside its own."""
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")

Weights = Mapping[str, Any]
"""Tensors by name, as `state_dict` gives them; torch itself is not imported here."""


@dataclass(frozen=True)
class Model:
    """A model folder whose card is valid and whose weights are the ones that the card describes."""

    folder: Path
    card: Card

    def tensors(self) -> Weights:
        """Weights by name, on the CPU.

        Raises:
            ModelError: the file is not safetensors.
            MissingExtra: torch is not installed.
        """
        with torch_needed():
            from brainsegnet.model.weights import read_tensors
        return read_tensors(self.folder / WEIGHTS_FILE)[0]

    def build(self) -> "BrainSegNet":
        """The network with its weights, in evaluation mode, on the CPU.

        Raises:
            ModelError: a tensor is missing, unknown or of another shape than the card describes.
            MissingExtra: torch is not installed.
        """
        with torch_needed():
            from brainsegnet.model.architecture import BrainSegNet
            from brainsegnet.model.weights import load_into
        card, shape = self.card, self.card.network
        net = BrainSegNet(
            len(card.sequences), card.task.classes, shape.widths, shape.refined, shape.stride, shape.nonlinear
        )
        load_into(net, self.tensors(), f"model {self.folder}")
        return net.eval()

    def exported(self, form: Form) -> Path:
        """The checked file of an export.

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
    """Write weights and card; the folder is made.

    Both are written beside the former ones and take their place together, so a crash leaves the former model; what else
    lies in the folder stays.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
        MissingExtra: torch is not installed.
    """
    with torch_needed():
        from safetensors import SafetensorError

        from brainsegnet.model.weights import write_tensors
    with replacing(folder / CARD_FILE) as new_card, replacing(folder / WEIGHTS_FILE) as new_weights:
        try:
            write_tensors(weights, new_weights)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        note = WeightsNote(sha256=hash_file(new_weights), bytes=new_weights.stat().st_size)
        written = card.model_copy(update={"weights": note, "exports": {}})
        _write_card(written, new_card)
    return Model(folder, written)


def save_exports(model: Model, write: Callable[[Path], Mapping[Form, ExportNote]]) -> Model:
    """Put other forms of the weights into a model folder, in place of those it had.

    Args:
        model: Its folder gets `export/`, and its card says so.
        write: Fills a folder and tells what it put there.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    with replacing(model.folder / CARD_FILE) as new_card, replacing(model.folder / EXPORT_FOLDER) as folder:
        folder.mkdir()
        card = model.card.model_copy(update={"exports": dict(write(folder))})
        _write_card(card, new_card)
    return Model(model.folder, card)


def replace_card(model: Model, card: Card) -> Model:
    """Say something else on the card of a model; weights and exports stay.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    with replacing(model.folder / CARD_FILE) as new_card:
        _write_card(card, new_card)
    return Model(model.folder, card)


def open_model(folder: Path) -> Model:
    """A model folder, or the best (else the last) one that a training keeps in its own folder, checked.

    Raises:
        ModelError: the folder is absent, incomplete, altered, of another format (a pickle, say) or too new.
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
    """Turn the absence of torch, or of what comes with it, into a sentence.

    Raises:
        MissingExtra: a package cannot be found in the block.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        raise MissingExtra(f'{package} is not installed; run: pip install "brainsegnet[train]"') from error


def _find_home(folder: Path) -> Path:
    """The folder that holds the card."""
    if not folder.is_dir():
        raise ModelError(f"model {folder} {_say_why_no_folder(folder)}")
    for home in (folder, folder / BEST, folder / LAST):
        if (home / CARD_FILE).is_file():
            return home
    if pickles := _find_pickles(folder.iterdir()):
        raise ModelError(f"model {folder} holds no {CARD_FILE}, only {pickles[0]}, {_PICKLE_REFUSAL}")
    raise ModelError(f"model {folder} holds no {CARD_FILE}; name a folder that training wrote")


_PICKLE_REFUSAL = "a pickle, which can execute code when it is loaded; train with brainsegnet, or name a model folder"


def _say_why_no_folder(path: Path) -> str:
    if _find_pickles([path]):
        return f"is {_PICKLE_REFUSAL}"
    if path.exists():
        return f"is a file; name the folder that holds {CARD_FILE} and {WEIGHTS_FILE}"
    return "does not exist; name a folder that training wrote"


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


def _write_card(card: Card, path: Path) -> None:
    path.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")


def hash_file(path: Path) -> str:
    """SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


HOME = Path(__file__).parents[1] / "models"


def shipped_models(home: Path = HOME) -> dict[str, Model]:
    """Every model of the package by name, checked.

    Raises:
        ModelError: one was altered.
    """
    return {card.parent.name: open_model(card.parent) for card in sorted(home.glob(f"*/{CARD_FILE}"))}


def is_shipped(named: Path, home: Path = HOME) -> bool:
    """Whether this is the name of a shipped model, and of nothing else here."""
    return not named.exists() and named == Path(named.name) and (home / named.name / CARD_FILE).is_file()


def resolve_model(named: Path | str, home: Path = HOME) -> Model:
    """A model folder; or, where there is no such folder, the shipped model of that name.

    Raises:
        ModelError: neither can be used.
    """
    path = Path(named)
    return open_model(home / path.name if is_shipped(path, home) else path)


def choose_model(cases: Mapping[str, Collection[str]], home: Path | None = None) -> Model:
    """The shipped model that uses most of the sequences of each of some cases, of several the one that lacks fewest.

    Cases of which no model takes anything have no say.

    Args:
        cases: Case name to its sequences, at least one.
        home: Where the models lie; None is the package.

    Raises:
        ModelError: none uses any sequence of any case, none is shipped, or two cases call for different ones.
    """
    models = shipped_models(home or HOME)
    chosen = {case: name for case, sequences in cases.items() if (name := _choose(models, sequences))}
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


def _choose(models: Mapping[str, Model], sequences: Collection[str]) -> str | None:
    """The name of the model that uses most of the sequences, of several the one that lacks fewest; or None."""
    used = {name: len(set(model.card.sequences) & set(sequences)) for name, model in models.items()}
    lacking = {name: len(model.card.sequences) - used[name] for name, model in models.items()}
    return max(used, key=lambda name: (used[name], -lacking[name])) if any(used.values()) else None
