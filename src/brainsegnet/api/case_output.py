"""What `segment` writes of a case: label map, maps on request, a picture, and the JSON that says all about them."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainsegnet.inference.card import Card
from brainsegnet.inference.model import Model
from brainsegnet.inference.predict import Found, Prediction, Ready, finish
from brainsegnet.output import stem_of, write_text
from brainsegnet.preprocessing.alignment import Aligner
from brainsegnet.scans.files import write_image
from brainsegnet.volume import Case

ENTROPY = "entropy"
HARDLY = 0.25
"""Mean Dice below which a model is said to find hardly anything."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A case that was read.

    Attributes:
        case: As it was read.
        ready: The same for the network; None where a GPU is to prepare it.
        seconds: That reading took.
        aligner: How its sequences came onto one grid.
        notes: What could not be read, and is not needed for the labels.
    """

    case: Case
    ready: Ready | None
    seconds: float
    aligner: Aligner
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segmented:
    """One case done: the label map's file, and what stands in the JSON beside it."""

    name: str
    path: Path
    report: Mapping[str, Any]


def write_case(found: Found, loaded: Loaded, model: Model, path: Path, picture: bool) -> Segmented:
    """Write everything about a case; the JSON comes last, so its presence says that all is there.

    Raises:
        OutputError: the folder is not writable, or the disk is full.
    """
    started, case, prediction = time.perf_counter(), found.ready.case, finish(found, model.card)
    write_image(prediction.labels, path)
    maps = dict(prediction.probabilities or {}) | ({ENTROPY: prediction.entropy} if prediction.entropy else {})
    files = {name: path.with_name(f"{stem_of(path)}_{_plain(name)}.nii.gz") for name in maps}
    for name, file in files.items():
        write_image(maps[name], file)
    if picture:
        _draw(case, prediction, model, path)
    seconds = {"read": loaded.seconds, **prediction.seconds, "write": time.perf_counter() - started}
    expected = expected_dice(model.card, prediction.used)
    report = {
        "case": case.name,
        "labels": path.name,
        "probabilities": {tissue: files[tissue].name for tissue in prediction.probabilities or {}},
        "task": model.card.task.name,
        "convention": {str(value): tissue for value, tissue in model.card.task.labels.items()},
        "sequences": {"used": list(prediction.used), "absent": list(prediction.absent)},
        "geometry": {"grid": next(iter(case.images)), "moved": loaded.aligner.to_json()},
        "volumes_ml": prediction.volumes_ml,
        "dropped": {
            "margin": None if found.options.keep_islands else model.card.islands.margin,
            "islands": prediction.islands_dropped,
            "ml": prediction.dropped_ml,
        },
        "mirrored": found.options.mirror,
        **_describe_uncertainty(prediction, files),
        "validation": expected,
        "validated_on": model.card.training.held_out_sources or "unseen cases",
        "model": _describe_model(model),
        "engine": found.engine,
        "memory": {"one_pass_gb": round(found.pass_bytes / 1e9, 3)},
        "notes": [*found.notes, *loaded.notes],
        "doubts": [*prediction.doubts, *doubt_sequences(expected, prediction.used)],
        "seconds": {stage: round(duration, 4) for stage, duration in seconds.items()},
        "brainsegnet": version("brainsegnet"),
        "intended_use": model.card.intended_use,
    }
    write_text(json.dumps(report, indent=2) + "\n", path.with_name(f"{stem_of(path)}.json"))
    return Segmented(case.name, path, report)


def expected_dice(card: Card, used: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """Mean Dice on unseen cases by region, with all sequences and with those that were used; empty where not measured.

    >>> from brainsegnet.inference.card import Architecture, Input
    >>> from brainsegnet.inference.origin import TrainingNote
    >>> from brainsegnet.task import ISLES2022
    >>> note = TrainingNote(subsets={"dwi+adc": {"lesion": 0.7}, "dwi": {"lesion": 0.6}})
    >>> shape = Architecture(widths=(1, 1), refined=1)
    >>> card = Card(name="x", task=ISLES2022, input=Input(sequences=("dwi", "adc")), network=shape, training=note)
    >>> expected_dice(card, ["dwi"])
    {'all sequences': {'lesion': 0.7}, 'those used': {'lesion': 0.6}}
    """
    measured = card.training.subsets
    wanted = {"all sequences": card.sequences, "those used": used}
    return {what: measured["+".join(names)] for what, names in wanted.items() if "+".join(names) in measured}


def doubt_sequences(expected: Mapping[str, Mapping[str, float]], used: Sequence[str]) -> list[str]:
    """A sentence where the model hardly found anything on unseen cases with these sequences alone; none elsewhere.

    >>> doubt_sequences({"all sequences": {"lesion": 0.67}, "those used": {"lesion": 0.0}}, ["adc"])
    ['with adc alone the model found hardly anything on unseen cases (best Dice 0.00); add sequences']
    >>> doubt_sequences({"all sequences": {"lesion": 0.67}, "those used": {"lesion": 0.64}}, ["dwi"])
    []
    """
    best = max(expected.get("those used", {}).values(), default=1.0)
    if best >= HARDLY:
        return []
    found = f"found hardly anything on unseen cases (best Dice {best:.2f})"
    return [f"with {' and '.join(used)} alone the model {found}; add sequences"]


def _describe_uncertainty(prediction: Prediction, files: Mapping[str, Path]) -> dict[str, Any]:
    if prediction.intervals is None:
        return {}
    intervals = {region: vars(interval) for region, interval in prediction.intervals.items()}
    return {"uncertainty": {ENTROPY: files[ENTROPY].name, "volume_intervals": intervals}}


def _describe_model(model: Model) -> dict[str, Any]:
    sha256 = model.card.weights.sha256 if model.card.weights else None
    return {"name": model.card.name, "folder": str(model.folder), "sha256": sha256}


def _draw(case: Case, prediction: Prediction, model: Model, path: Path) -> None:
    """The result over the scan, beside the truth where it is known."""
    from brainsegnet.evaluation.figures import overlay_figure, save_figure

    figure = overlay_figure(case, prediction.labels.array, model.card.task, prediction.used[:4])
    save_figure(figure, path.with_name(f"{stem_of(path)}.png"))


def _plain(tissue: str) -> str:
    """A tissue as a part of a file name: `necrosis + non-enhancing` is `necrosis-non-enhancing`."""
    return "-".join(tissue.replace("+", " ").split())
