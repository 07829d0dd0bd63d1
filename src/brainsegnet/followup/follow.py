"""`follow`: studies of one patient segmented, registered to the first and compared; JSON, CSV and one HTML page."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from brainsegnet._atomic import OutputOptions, find_suffix, refuse_existing, replacing, stem_of, writable, write_text
from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.followup import FollowOptions
from brainsegnet.followup.compare import Timeline, compare
from brainsegnet.followup.page import build_page, tabulate, to_json
from brainsegnet.followup.studies import order, read_study, require_one_model, require_one_patient
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.images import READERS
from brainsegnet.io.layouts import read_note
from brainsegnet.pipeline.segment import segment
from brainsegnet.progress import Callback

PAGE, NOTE, ROWS = "follow-up.html", "follow-up.json", "follow-up.csv"


def follow(
    paths: Sequence[Path],
    out: Path,
    model: Path | str | None = None,
    options: SegmentOptions | None = None,
    callback: Callback | None = None,
    output: OutputOptions | None = None,
    asked: FollowOptions | None = None,
) -> Timeline:
    """Compare studies of one patient over time.

    Args:
        paths: Raw studies, prepared cases, or label maps of `segment` with their JSON. One path may hold several
            studies.
        out: Folder for the page, the JSON and the CSV, and for the results of studies that are segmented here.
        model: Model for these, as for `segment`.
        options: How to segment.
        callback: As for `segment`.
        output: What happens to results that exist already.
        asked: What to compare and to show.

    Returns:
        What was found.

    Raises:
        DatasetError: there is one study, or two patients.
        ModelError: two models made the results.
        OutputError: the files exist already, or cannot be written.
        BrainSegNetError: as `segment`.
    """
    output, asked = output or OutputOptions(), asked or FollowOptions()
    if find_suffix(out, (*READERS, ".html", ".json", ".csv")):
        raise DatasetError(f"{out} names a file, but a follow-up writes several; name a folder with --out")
    for name in (PAGE, NOTE, ROWS):
        writable(out / name, (Path(name).suffix,))
    if not (output.overwrite or output.skip_existing):
        refuse_existing(dict.fromkeys((out / name for name in (PAGE, NOTE, ROWS) if (out / name).is_file()), ""))
    results: list[Path] = []
    for number, path in enumerate(paths, start=1):
        results += [path] if is_result(path) else _segment(path, number, out, model, options, callback, output)
    studies = [read_study(result) for result in results]
    require_one_model(studies)
    if not asked.same_patient:
        require_one_patient(studies)
    studies, ordered = order(studies)
    timeline = compare(studies, ordered, asked.same_patient)
    save(timeline, out, asked.identify)
    return timeline


def is_result(path: Path) -> bool:
    """Whether a path is a label map of `segment`, whose JSON is beside it."""
    if not (path.is_file() and find_suffix(path, READERS)):
        return False
    note = read_note(path.with_name(f"{stem_of(path, READERS)}.json"))
    return isinstance(note.get("model"), dict) and note.get("labels") == path.name


def save(timeline: Timeline, out: Path, identify: bool = False) -> None:
    """Write page, CSV and JSON; all get their names together. Only the page hides the names of cases and dates."""
    contents = {
        PAGE: build_page(timeline, identify),
        ROWS: tabulate(timeline).to_csv(),
        NOTE: json.dumps(to_json(timeline), indent=2) + "\n",
    }
    with ExitStack() as stack:
        for name, content in reversed(contents.items()):
            write_text(content, stack.enter_context(replacing(out / name)))


def _segment(
    path: Path,
    number: int,
    out: Path,
    model: Path | str | None,
    options: SegmentOptions | None,
    callback: Callback | None,
    output: OutputOptions,
) -> list[Path]:
    """The label maps of the studies at a path, segmented into a folder of their own."""
    batch = segment([path], model, out / f"study{number}", options, callback, output)
    if batch.failures:
        raise BrainSegNetError("; ".join(batch.failures.values()))
    return [case.path for case in sorted([*batch.done, *batch.skipped], key=lambda case: case.name)]
