"""What tells whether the files of a case are still the same: their place, size, time and hashes, for the JSON."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainsegnet.errors import ImageError
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.dicom import DicomSeries
from brainsegnet.io.dicom_files import Open, read_each
from brainsegnet.io.images import describe_file
from brainsegnet.io.results import describe_place
from brainsegnet.pipeline.choose import Choice
from brainsegnet.pipeline.study_case import StudyCase

Note = Mapping[str, Any]
COMPARED = ("bytes", "modified", "header_sha256")
"""What is compared where the content is not."""
MASK = "brain_mask"


def describe_inputs(
    case: CaseFiles | StudyCase, sequences: Sequence[str], content: bool, mask: Path | None = None
) -> dict[str, dict[str, Any]]:
    """What tells whether the files of a case are still the same, by sequence.

    Args:
        case: A case or a study.
        sequences: Sequences of the model; those that the case lacks are left out.
        content: Whether the hash of all bytes is given too.
        mask: File of the brain mask, which counts as an input too.

    Returns:
        As `describe_file` gives it, with the "path", and the "part" of a file of several images. A DICOM series has the
        "series", its number of "files", and one hash over all of them.

    Raises:
        ImageError: a file cannot be read.
    """
    if isinstance(case, CaseFiles):
        used = {name: case.images[name] for name in sequences if name in case.images}
        described = {path: _describe_file(path, content) for path in dict.fromkeys(used.values())}
        parts = {name: {"part": part} for name, part in case.parts.items()}
        found = {name: {**described[path], **parts.get(name, {})} for name, path in used.items()}
    else:
        found = {name: _describe_choice(case.choices[name], content) for name in sequences if name in case.choices}
    return found if mask is None else {**found, MASK: _describe_file(mask, content)}


def to_relative(inputs: Mapping[str, Note], folder: Path) -> dict[str, Note]:
    """The same with paths relative to a folder, so that results and scans may move together."""
    return {name: _place(facts, folder) for name, facts in inputs.items()}


def _place(facts: Note, folder: Path) -> dict[str, Any]:
    placed = {**facts, "path": describe_place(facts["path"], folder)}
    return placed | ({"sources": [_place(one, folder) for one in facts["sources"]]} if "sources" in facts else {})


def check_unchanged(case: str, before: Mapping[str, Note], after: Mapping[str, Note]) -> None:
    """Check that no file was written to while it was read.

    Raises:
        ImageError: one was.
    """
    for name, facts in before.items():
        if any(after[name][key] != value for key, value in facts.items()):
            raise ImageError(f"case {case}: {name} was changed while it was read; wait until it is complete")


def _describe_file(path: Path, content: bool) -> dict[str, Any]:
    return {"path": str(path), **describe_file(path, content)}


def _describe_choice(choice: Choice, content: bool) -> dict[str, Any]:
    """The series of a choice and, unless it is the first volume of one, which volumes make it and how."""
    found = _describe_sources(choice, content)
    volumes = [list(finding.shown) for finding in choice.findings]
    if volumes != [[0]]:
        found["volumes"] = volumes
    if len(volumes) > 1:
        found["b_values"] = [finding.header.b_value or 0.0 for finding in choice.findings]
    return found


def _describe_sources(choice: Choice, content: bool) -> dict[str, Any]:
    sources = list(dict.fromkeys(finding.source for finding in choice.findings))
    facts = [
        _describe_series(source, content)
        if isinstance(source, DicomSeries)
        else {"series": choice.name, **_describe_file(source.path, content)}
        for source in sources
    ]
    if len(facts) == 1:
        return facts[0]
    hashes = [key for key in ("header_sha256", "sha256") if key in facts[0]]
    return {
        "path": facts[0]["path"],
        "series": choice.name,
        "bytes": sum(one["bytes"] for one in facts),
        "modified": max(one["modified"] for one in facts),
        **{key: _hash(one[key] for one in facts) for key in hashes},
        "sources": facts,
    }


def _describe_series(series: DicomSeries, content: bool) -> dict[str, Any]:
    """As `describe_file`, over all files of a series; the identifiers of its images stand for the headers."""
    identifiers = {frame.file: frame.sop_uid for stack in series.stacks for frame in stack.frames}
    names = sorted(identifiers)
    inside = [series.root / name for name in names] if series.root.is_dir() else [series.root]
    try:
        stats = [path.stat() for path in inside]
    except OSError as error:
        raise ImageError(f"{error.filename or series.root} cannot be read: {error.strerror or error}") from error
    facts = {
        "path": str(series.root),
        "series": series.name,
        "files": len(names),
        "bytes": sum(stat.st_size for stat in stats),
        "modified": round(max(stat.st_mtime for stat in stats), 6),
        "header_sha256": _hash(f"{name} {identifiers[name]}" for name in names),
    }
    return {**facts, "sha256": _hash(read_each(series.root, names, _hash_file))} if content else facts


def _hash_file(open_file: Open, name: str) -> str:
    with open_file(name) as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
