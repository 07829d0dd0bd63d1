"""Results that exist already: which of them are done, and which must not be replaced.

A case is done if its JSON, which gets its name last, states the same inputs, options and model, and if all files that
it lists exist.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from brainsegnet._atomic import OutputOptions, refuse_existing, stem_of
from brainsegnet.errors import ImageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.layouts import read_note
from brainsegnet.model.card import Card
from brainsegnet.pipeline.inputs import COMPARED, Note, describe_inputs
from brainsegnet.pipeline.study_case import StudyCase


def find_done(
    cases: Sequence[CaseFiles | StudyCase],
    targets: Mapping[str, Path],
    card: Card,
    options: SegmentOptions,
    output: OutputOptions,
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
        elif is_complete(note := read_note(json), target):
            if reason := _find_difference(note, case, card, options, output.verify):
                conflicts[target] = reason
            else:
                done[case.name] = note
    if not output.overwrite:
        refuse_existing(conflicts)
    return done


def is_complete(note: Note, target: Path) -> bool:
    """Whether a JSON is that of a label map, and all files that it lists exist."""
    named: list[object] = [note.get("labels")]
    if isinstance(options := note.get("options"), dict) and options.get("picture"):
        named.append(note.get("picture", f"{stem_of(target)}.png"))
    for kind in ("probabilities", "grids", "preprocessed", "label_files"):
        named += files.values() if isinstance(files := note.get(kind), dict) else ()
    named += others if isinstance(others := note.get("derivatives"), list) else ()
    for kind, keys in (("uncertainty", ("entropy",)), ("dicom", ("segmentation", "report"))):
        if isinstance(files := note.get(kind), dict):
            named += [files[key] for key in keys if files.get(key)]
    there = all(isinstance(name, str) and stay_beside(target, name).is_file() for name in named)
    return there and note.get("labels") == target.name


def stay_beside(target: Path, name: str) -> Path:
    """A file beside the target, or in a folder beside it, whatever a JSON says."""
    return target.parent.joinpath(*[part for part in Path(name).parts[-2:] if part not in ("..", "/")])


def _find_difference(note: Note, case: CaseFiles | StudyCase, card: Card, options: SegmentOptions, verify: bool) -> str:
    """Why a result is not the one that is asked for; empty if it is."""
    model = note.get("model")
    known = model.get("sha256") if isinstance(model, dict) else None
    if not card.weights or known != card.weights.sha256:
        return "it was made with another model"
    before, asked = note.get("options"), options.to_json()
    if not isinstance(before, dict):
        return "its JSON does not state the options"
    before = {**SegmentOptions().to_json(), **before}  # an older release may lack some
    if other := [name for name in asked if before.get(name) != asked[name]]:
        return f"it was made with another --{other[0].replace('_', '-')}"
    recorded = note.get("inputs")
    try:
        inputs = describe_inputs(case, card.sequences, verify, options.brain_mask)
    except ImageError as error:
        return str(error)
    if not isinstance(recorded, dict) or recorded.keys() != inputs.keys():
        return "it was made of other sequences"
    keys = ("sha256",) if verify else COMPARED
    for name, facts in inputs.items():
        earlier = recorded[name] if isinstance(recorded[name], dict) else {}
        if any(earlier.get(key) != facts[key] for key in keys):
            return f"{name} has changed since"
    return ""
