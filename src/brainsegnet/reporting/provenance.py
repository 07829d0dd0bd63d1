"""How a result came about, from its JSON: what was done to the study, the model, the files and the command."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.steps import describe_motion
from brainsegnet.metrics.table import Cell, Table, text_columns
from brainsegnet.model.card import Card
from brainsegnet.plotting.overlays import spelt
from brainsegnet.plotting.viewer import get
from brainsegnet.reporting.report import model_of

Facts = list[tuple[str, str]]
_SHOWN_DIGITS = 16


def describe_work(note: Mapping[str, Any]) -> Facts:
    """What was done to the images before and after the network, by step. Parts that a JSON lacks are left out."""
    used, geometry, brain = (get(note, name) for name in ("sequences", "geometry", "brain"))
    rows: Facts = []
    if used:
        absent = [spelt(name) for name in used.get("absent", [])]
        told = ", ".join(spelt(name) for name in used.get("used", []))
        rows.append(("Sequences", told + (f"; without {', '.join(absent)}" if absent else "")))
    if grid := geometry.get("grid"):
        native = _spell_mm(geometry.get("native_spacing_mm") or geometry.get("spacing_mm", []))
        rows.append(("Reference", f"{spelt(grid)}, voxels of {native}; the label map is on its grid"))
    moved = [f"{spelt(name)} {describe_motion(motion)}" for name, motion in get(geometry, "moved").items()]
    rows.append(("Alignment", "; ".join(moved) or "all sequences are on one grid and were taken as they are"))
    if brain:
        how = {"extracted": "found in the scans by the brain network", "file": "from the mask that was given"}
        volume = f", {brain['volume_ml']:.0f} ml" if isinstance(brain.get("volume_ml"), int | float) else ""
        rows.append(("Brain", how.get(str(brain.get("how")), "as given; the skull was removed before") + volume))
    if spacing := geometry.get("spacing_mm"):
        rows.append(("Network", f"{note.get('engine') or 'engine not stated'}; voxels of {_spell_mm(spacing)}"))
    dropped = get(note, "dropped")
    if count := dropped.get("components"):
        parts = "1 component" if count == 1 else f"{count} components"
        rows.append(("Left out", f"{parts} of {dropped.get('ml', 0):.1f} ml, of lower confidence"))
    if (decided := get(note, "presence")) and decided.get("kept") is False:
        change = f"{decided['marked_ml']:.1f} ml of {decided['tissue']} became {decided['becomes']}"
        rows.append(("Decided", f"{change}: probability {decided['probability']:.2f} that the scan has any"))
    rows += [("Note", str(sentence)) for sentence in note.get("notes", [])]
    return rows


def _spell_mm(spacing: Sequence[float]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(f"{mm:.3g}" for mm in spacing) + " mm"


def describe_model(note: Mapping[str, Any]) -> Facts:
    """The essentials of the model card. They name no training case."""
    told, found = get(note, "model"), model_of({"": note}) if "model" in note else None
    rows = [("Name", str(told.get("name", "not stated")))]
    if found:
        rows += _describe_card(found.card)
    elif told:
        rows.append(("Card", "the model is no longer where it was, so its card is not shown"))
    return [*rows, ("Weights, SHA-256", str(told.get("sha256") or "not stated"))]


def _describe_card(card: Card) -> Facts:
    training = card.training
    scores = training.subsets.get("+".join(card.sequences), training.scores)
    means = ", ".join(f"{region} {value:.2f}" for region, value in scores.items() if value is not None)
    unseen = training.held_out_sources or f"{len(training.held_out)} cases"
    simulated = f", and {training.simulated.seen} simulated ones" if training.simulated else ""
    return [
        ("Finds", ", ".join(card.task.labels.values())),
        ("Trained on", f"{training.data.count} cases{simulated}; {training.data.sources}"),
        ("Mean Dice", f"{means} ({unseen})" if means else "not measured"),
        ("Licence", card.licence),
        ("Intended use", card.intended_use),
        ("Created", str(card.created)),
    ]


def describe_images(note: Mapping[str, Any], digest: str, identify: bool) -> Table:
    """Each image and the label map with its hash; with the names of files and series if they may be shown."""
    rows: list[list[Cell]] = []
    for name, facts in get(note, "inputs").items():
        known = facts if isinstance(facts, dict) else {}
        shown = [str(known.get("series") or Path(str(known.get("path", ""))).name)] if identify else []
        rows.append([spelt(name), *shown, str(known.get("sha256", "not stated"))[:_SHOWN_DIGITS]])
    rows.append(["label map", *([str(note.get("labels", ""))] if identify else []), digest[:_SHOWN_DIGITS]])
    names = ["File or series"] if identify else []
    return Table(text_columns("Image", *names, f"SHA-256, first {_SHOWN_DIGITS} digits"), rows)


def describe_commands(note: Mapping[str, Any], hide: Callable[[str], str]) -> list[str]:
    """The commands that make the result again; STUDY and MASK stand for what the page does not name.

    Args:
        note: Content of the JSON.
        hide: Hides the names in the value of an option.
    """
    commands = [_describe_segment(note, hide)]
    if note.get("corrected") is True:
        words = ("brainsegnet", "measure", "MASK", "--like", "result.json", "--out", "corrected.nii.gz", "--report")
        commands.append(shlex.join(words))
    return commands


def _describe_segment(note: Mapping[str, Any], hide: Callable[[str], str]) -> str:
    options, plain = get(note, "options"), SegmentOptions()
    words = ["brainsegnet", "segment", "STUDY", "--out", "result.nii.gz", "--report"]
    if name := get(note, "model").get("name"):
        words[3:3] = ["--model", hide(str(name))]
    for field in fields(SegmentOptions):
        value, flag = options.get(field.name), field.name.replace("_", "-")
        if field.name not in options or value == getattr(plain, field.name) or field.name == "uncertainty":
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", "MASK" if field.name == "brain_mask" else hide(str(value))]
    return shlex.join(words)
