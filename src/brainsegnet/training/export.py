"""`export`: write a trained model in formats that run without torch. The 8-bit ranges come from its training cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet._machine import has_bf16_units
from brainsegnet._types import Doubles, Floats
from brainsegnet.errors import DatasetError
from brainsegnet.inference.openvino_backend import Arithmetic, OpenVinoBackend
from brainsegnet.inference.tiling import TiledPredictor
from brainsegnet.model.card import ExportNote, Form, is_tolerated
from brainsegnet.model.store import Model, hash_file, open_model, save_exports, torch_needed
from brainsegnet.progress import Callback
from brainsegnet.training import TrainOptions
from brainsegnet.training.split import load_scans, split_cases
from brainsegnet.training.train import score

if TYPE_CHECKING:
    from brainsegnet.model.graphs import OpenVinoModel
    from brainsegnet.training.sampler import Scan

SAMPLES = 24
"""Number of training samples from which the ranges of 8-bit integers are taken."""
COMPARED = 12
"""Largest number of whole scans on which Dice in 8 bits and in bf16 is compared."""


def export(model: Path, data: Path | Sequence[Path] = (), callback: Callback | None = None) -> Model:
    """Write a model in the formats of OpenVINO and ONNX into its own folder, so that it runs without torch.

    Args:
        model: Model folder, or output folder of `train`.
        data: Folders or tables with the cases that the model was trained on. Without them there is no 8-bit export, and
            the loss of Dice in bf16 is not measured.
        callback: Receives a sentence that lists what was written.

    Returns:
        The model with its exports.

    Raises:
        ModelError: the model cannot be used.
        DatasetError: none of the cases that the model was trained on is in `data`.
        MissingExtra: torch, openvino's converter, nncf or onnx is not installed.
        OutputError: the folder cannot be written to.
    """
    opened = open_model(model)
    folders = [data] if isinstance(data, Path) else list(data)
    scans = training_scans(opened, folders) if folders else {}
    exported = export_with(opened, scans)
    (callback or Callback()).on_message(describe(exported))
    return exported


def export_with(model: Model, scans: Mapping[str, "Scan"], onnx: bool = True) -> Model:
    """As `export`, with prepared training scans by name. Without scans there is no 8-bit export."""
    with torch_needed():
        from brainsegnet.model import graphs

    def note(folder: Path, *names: str) -> ExportNote:
        weights = model.card.weights.sha256 if model.card.weights else ""
        return ExportNote(files={name: hash_file(folder / name) for name in names}, weights=weights)

    def write(folder: Path) -> Mapping[Form, ExportNote]:
        net = model.build()
        whole = graphs.to_openvino(net)
        graphs.write_openvino(whole, folder / "fp16.xml")
        notes: dict[Form, ExportNote] = {"fp16": note(folder, "fp16.xml", "fp16.bin")}
        if onnx:
            graphs.write_onnx(net, folder / "model.onnx")
            notes["onnx"] = note(folder, "model.onnx")
        if scans:
            changes, files = _write_eight_bits(model, whole, folder, scans), note(folder, "int8.xml", "int8.bin")
            notes["int8"] = files.model_copy(update={"cases": tuple(scans), "dice_change": changes["int8"]})
            notes["fp16"] = notes["fp16"].model_copy(update={"bf16_change": changes.get("bf16", {})})
        return notes

    return save_exports(model, write)


def _write_eight_bits(
    model: Model, whole: "OpenVinoModel", folder: Path, scans: Mapping[str, "Scan"]
) -> dict[Arithmetic, dict[str, float]]:
    """Write int8.xml and .bin, and return what `compare` finds.

    Ranges are clipped; where that costs too much Dice, the whole ranges are taken if they cost less.
    """
    from brainsegnet.model.graphs import quantise, write_openvino

    samples, compared = draw_samples(model, scans), dict(list(scans.items())[:COMPARED])
    tried: dict[bool, dict[Arithmetic, dict[str, float]]] = {}
    for clip in (True, False):
        write_openvino(quantise(whole, samples, clip), folder / "int8.xml")
        tried[clip] = compare(model, folder, compared)
        if is_tolerated(tried[clip]["int8"]):
            return tried[clip]
    clipped, entire = (min(tried[clip]["int8"].values()) for clip in (True, False))
    if clipped > entire:
        write_openvino(quantise(whole, samples, True), folder / "int8.xml")
    return tried[clipped > entire]


def draw_samples(model: Model, scans: Mapping[str, "Scan"]) -> list[Floats]:
    """Training samples (C, D, H, W) without augmentation; half of them are centred on a lesion."""
    import torch

    from brainsegnet.training.recipes import QUICK, Stage
    from brainsegnet.training.sampler import Sampler

    patch = QUICK.patch or model.card.task.patch
    plain = QUICK.model_copy(update={"drop_sequences": 0.0})
    sampler = Sampler(list(scans.values()), plain, patch, 0, torch.device("cpu"))
    stage = Stage(name="plain", share=1, augment=0, gamma=0)
    return [sampler.cut([sampler.draw(number, stage)])[0][0].numpy() for number in range(SAMPLES)]


def compare(model: Model, folder: Path, scans: Mapping[str, "Scan"]) -> dict[Arithmetic, dict[str, float]]:
    """Change of Dice against floats by region, mean over the scans: in 8 bits, and in bf16 if that is fast here."""
    card = model.card

    def dice(arithmetic: Arithmetic) -> dict[str, Doubles]:
        file = folder / ("int8.xml" if arithmetic == "int8" else "fp16.xml")
        predictor = TiledPredictor(OpenVinoBackend(file, card, arithmetic))
        return score(predictor, scans.values(), card.task, card.components.confidence_margin)

    others: list[Arithmetic] = ["int8", "bf16"] if has_bf16_units() else ["int8"]
    floats = dice("float")
    return {
        arithmetic: {region: round(float(np.mean(d - floats[region])), 6) for region, d in dice(arithmetic).items()}
        for arithmetic in others
    }


def describe(model: Model) -> str:
    """The exports of a model, and the change of Dice in 8 bits and in bf16, in one sentence."""
    exports = model.card.exports
    written, note = f"{model.folder}: {', '.join(exports)}", exports.get("int8")
    if note is None:
        return f"{written}; name the training cases to get int8, which is several times as fast"
    eight = f"change of Dice in 8 bits: {_verdict(note.dice_change, 'the instructions')}"
    if not (change := exports["fp16"].bf16_change):
        return f"{written}; {eight}"
    return f"{written}; {eight}; in bf16: {_verdict(change, 'the units, but not int8')}"


def _verdict(change: Mapping[str, float], what: str) -> str:
    changes = ", ".join(f"{region} {by:+.4f}" for region, by in change.items())
    used = f"used by default where the processor has {what}" if is_tolerated(change) else "used only if asked for"
    return f"{changes}; {used}"


def training_scans(model: Model, folders: Sequence[Path]) -> Mapping[str, "Scan"]:
    """The training cases of the model that are in the folders, prepared.

    Raises:
        DatasetError: none of them is there.
        BrainSegNetError: a case cannot be used; one sentence says which and why.
    """
    card = model.card
    split = split_cases(folders, card.task, TrainOptions(validation=0, sequences=card.sequences, resample=True))
    known = [case for case in split.training if case.name in card.training.data.cases]
    if not known:
        raise DatasetError(
            f"none of the {len(card.training.data.cases)} cases that model {card.name} was trained on is in the data; "
            "name the folders it was trained on"
        )
    return load_scans(known, split)
