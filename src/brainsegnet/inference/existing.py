"""Results that exist already: which of them are done, and which must not be replaced.

A case is done if its JSON, which gets its name last, states the same inputs, options and model, and if all files that
it lists exist.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainsegnet._atomic import OutputOptions, refuse_existing, stem_of
from brainsegnet.errors import ImageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.images import describe_file
from brainsegnet.io.layouts import read_note
from brainsegnet.model.card import Card

Note = Mapping[str, Any]


def describe_inputs(files: CaseFiles, sequences: Sequence[str], content: bool) -> dict[str, dict[str, Any]]:
    """Which files a case has and what tells whether they are still the same, by sequence, as `describe_file` gives it.

    "path" is the file, and "part" which part of a shared file the sequence is.

    Args:
        files: Files of the case.
        sequences: Sequences of the model; those that the case lacks are left out.
        content: Whether the hash of all bytes is given too.

    Raises:
        ImageError: a file cannot be read.
    """
    used = {name: files.images[name] for name in sequences if name in files.images}
    described = {path: describe_file(path, content) for path in dict.fromkeys(used.values())}
    parts = {name: {"part": part} for name, part in files.parts.items()}
    return {name: {"path": str(path), **parts.get(name, {}), **described[path]} for name, path in used.items()}


def check_unchanged(case: str, before: Mapping[str, Note], after: Mapping[str, Note]) -> None:
    """Check that no file was written to while it was read.

    Raises:
        ImageError: one was.
    """
    for name, facts in before.items():
        if any(after[name][key] != value for key, value in facts.items()):
            raise ImageError(f"case {case}: {name} was changed while it was read; wait until it is complete")


def find_done(
    cases: Sequence[CaseFiles], targets: Mapping[str, Path], card: Card, options: SegmentOptions, output: OutputOptions
) -> dict[str, Note]:
    """The cases that are done, with the content of their JSON. Without `skip_existing` there are none.

    Args:
        cases: Cases to segment.
        targets: Name of each case to its label map.
        card: Card of the model.
        options: How to segment.
        output: What happens to results that exist already.

    Raises:
        OutputError: a result would be replaced, and `overwrite` is not set.
    """
    done: dict[str, Note] = {}
    conflicts: dict[Path, str] = {}
    for case in cases:
        target = targets[case.name]
        json = target.with_name(f"{stem_of(target)}.json")
        existing = [path for path in (target, json) if path.exists()]
        if not existing:
            continue
        if not output.skip_existing:
            conflicts[existing[0]] = ""
        elif _is_complete(note := read_note(json), target):
            if reason := _find_difference(note, case, card, options, output.verify):
                conflicts[target] = reason
            else:
                done[case.name] = note
    if not output.overwrite:
        refuse_existing(conflicts)
    return done


def _is_complete(note: Note, target: Path) -> bool:
    """Whether a JSON is that of a label map, and all files that it lists exist."""
    maps, uncertainty = note.get("probabilities"), note.get("uncertainty", {})
    entropy = uncertainty.get("entropy") if isinstance(uncertainty, dict) else None
    names = [note.get("labels"), *(maps.values() if isinstance(maps, dict) else ()), *([entropy] if entropy else ())]
    there = all(isinstance(name, str) and target.with_name(Path(name).name).is_file() for name in names)
    return there and note.get("labels") == target.name


def _find_difference(note: Note, case: CaseFiles, card: Card, options: SegmentOptions, verify: bool) -> str:
    """Why a result is not the one that is asked for; empty if it is."""
    model = note.get("model")
    known = model.get("sha256") if isinstance(model, dict) else None
    if not card.weights or known != card.weights.sha256:
        return "it was made with another model"
    before, asked = note.get("options"), options.to_json()
    if not isinstance(before, dict):
        return "its JSON does not state the options"
    if other := [name for name in asked if before.get(name) != asked[name]]:
        return f"it was made with another --{other[0].replace('_', '-')}"
    recorded = note.get("inputs")
    try:
        inputs = describe_inputs(case, card.sequences, content=verify)
    except ImageError as error:
        return str(error)
    if not isinstance(recorded, dict) or recorded.keys() != inputs.keys():
        return "it was made of other sequences"
    keys = ("sha256",) if verify else ("bytes", "modified", "header_sha256")
    for name, facts in inputs.items():
        earlier = recorded[name] if isinstance(recorded[name], dict) else {}
        if any(earlier.get(key) != facts[key] for key in keys):
            return f"{name} has changed since"
    return ""
