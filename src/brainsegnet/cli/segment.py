"""The commands that look at cases: segment, evaluate, inspect. Heavy libraries load when a command runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from brainsegnet._atomic import IMAGES, OutputOptions, find_suffix
from brainsegnet.cli.app import (
    Overwrite,
    Paths,
    allow_no,
    app,
    flatten,
    keep_existing,
    report_failures,
    report_left_out,
    verb,
)
from brainsegnet.cli.bars import CasesBar
from brainsegnet.cli.messages import complain, detail, say, show, show_table
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference import SegmentOptions
from brainsegnet.metrics import ScoreOptions
from brainsegnet.reporting import ReportOptions, name_page

if TYPE_CHECKING:
    from brainsegnet.pipeline.batch import BatchResult, SavedCase

allow_no(SegmentOptions)
flatten(SegmentOptions)


@dataclass(frozen=True)
class NamedFiles:
    """What stands for each sequence: instead of CASES a file, beside a study one of its series."""

    flair: str | None = None
    """FLAIR image: a file, or a folder of one DICOM series, to name one case instead of giving CASES. Beside a study:
    the number or name of its series, whatever that seems to be."""
    t1: str | None = None
    "T1 image."
    t1c: str | None = None
    "T1 image after contrast agent (T1c, T1Gd, T1ce)."
    t2: str | None = None
    "T2 image."
    dwi: str | None = None
    "Diffusion-weighted image."
    adc: str | None = None
    "Apparent diffusion coefficient map."
    rcbf: str | None = None
    "Relative cerebral blood flow map."
    rcbv: str | None = None
    "Relative cerebral blood volume map."
    mtt: str | None = None
    "Mean transit time map."
    tmax: str | None = None
    "Map of the time to the maximum of the residue function."
    ttp: str | None = None
    "Time to peak map."


@verb(app)
def segment(
    cases: Paths | None = None,
    /,
    *,
    model: Path | None = None,
    out: Path | None = None,
    files: Annotated[NamedFiles | None, Parameter(name="*")] = None,
    options: Annotated[SegmentOptions | None, Parameter(name="*")] = None,
    output: Annotated[OutputOptions | None, Parameter(name="*")] = None,
    pages: Annotated[ReportOptions | None, Parameter(name="*")] = None,
    timings: bool = False,
) -> None:
    """Segment studies from the scanner, or prepared cases: write a label map and a JSON for each.

    Example: brainsegnet segment STUDY --out lesion.nii.gz

    Parameters
    ----------
    cases
        Studies (folder, zip or file of DICOM, or folder of other images), folders of cases, or tables.
    model
        Name of a shipped model, model folder, or output folder of train. By default the shipped model for the
        disease that the data set tells. Where it tells none, DWI or ADC means stroke, else tumour is meant.
    out
        Label map to write; for several cases, the folder that gets one for each. By default segmented.nii.gz for one
        case named by its files, else the folder segmented, if it does not exist yet.
    timings
        Show the seconds of each stage as a table at the end.
    """
    from brainsegnet.errors import OutputError, UsageError
    from brainsegnet.pipeline.segment import segment as run

    named = {name: word for name, word in vars(files or NamedFiles()).items() if word is not None}
    if not (named or cases):
        raise UsageError("name either studies and folders of cases, or the files of one case (--flair, --t1c, ...)")
    target = out or Path("segmented" if cases else "segmented.nii.gz")
    output, pages = output or OutputOptions(), pages or ReportOptions()
    if pages.report:
        if find_suffix(target, IMAGES) and not output.skip_existing:
            keep_existing([name_page(target)], output.overwrite)
        options = replace(options or SegmentOptions(), uncertainty=True)
    if out is None and target.exists() and not (output.overwrite or output.skip_existing):
        raise OutputError(f"{target} is there already, perhaps of another scan; name where to write with --out")
    with _SavedCases(pages, output.overwrite) as bar:
        alone = {name: Path(word) for name, word in named.items()}
        done = run(cases or alone, model, target, options, bar, output, named if cases else None)
        failures = {**done.failures, **bar.complete(done.skipped)}
    if timings:
        _show_timings(done)
    report_left_out(done.left_out)
    report_failures(failures, len(done.done) + len(done.skipped) + len(done.failures) - len(failures))


@verb(app)
def evaluate(
    predicted: Path,
    truth: Paths,
    /,
    *,
    task: str,
    out: Path | None = None,
    options: Annotated[ScoreOptions | None, Parameter(name="*")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Score predicted label maps against true ones, region by region.

    Example: brainsegnet evaluate predictions/ BRATS/ --task brats2015 --out scores/

    Parameters
    ----------
    predicted
        A label map, or a folder of them named after their cases.
    truth
        A label map, a folder of label maps with the same names, or folders or tables of cases.
    task
        Label convention of the predictions. If the JSON of segment is beside one, that decides.
    out
        Folder for scores.csv, scores.json and scores.md.
    """
    from brainsegnet.metrics.evaluate import evaluate as run
    from brainsegnet.metrics.score_tables import console_table, describe_unpredicted
    from brainsegnet.metrics.scores import ScoreRules

    keep_existing([out / name for name in ("scores.csv", "scores.json", "scores.md")] if out else [], overwrite)
    with CasesBar() as bar:
        evaluation = run(predicted, truth, task, out, ScoreRules.of(options or ScoreOptions()), bar)
    show_table(console_table(evaluation))
    for sentence in describe_unpredicted(evaluation.unpredicted):
        complain(sentence)
    report_failures(evaluation.failures, len(evaluation.scores))


@verb(app)
def inspect(model_or_case: Path | None = None, /) -> None:
    """Show what is in a model, a case, a raw study or a folder of cases, and which of them cannot be used.

    Without an argument, list the models in the package: sequences, tissues, training data, licence, scores and hashes.

    Example: brainsegnet inspect BRATS/

    Parameters
    ----------
    model_or_case
        Name of a shipped model, model folder, output folder of train, folder or table of cases, raw study (folder, zip
        or file of DICOM, or a folder of images), or image file. The exit code is 1 if segment could not use a case.
    """
    from dataclasses import replace

    from brainsegnet.metrics.table import count_cases
    from brainsegnet.reporting.inspect import inspect as run

    with CasesBar() as bar:
        found = run(model_or_case, bar)
    show_table(replace(found, notes=()))
    for note in found.notes:
        show(note)
    if found.unusable:
        complain(f"{count_cases(len(found.unusable))} cannot be segmented, see above")
        sys.exit(1)


class _SavedCases(CasesBar):
    """Says what was found in each case that is done. What is odd about the model is said once."""

    def __init__(self, pages: ReportOptions, overwrite: bool) -> None:
        super().__init__()
        self._pages, self._overwrite, self._warned = pages, overwrite, False

    def complete(self, skipped: Sequence["SavedCase"]) -> dict[str, str]:
        """Write the pages that cases lack which were done before. Returns a sentence for each that fails."""
        failures = {}
        for case in skipped if self._pages.report else ():
            if not name_page(case.path).exists() or self._overwrite:
                try:
                    self._write_page(case.path)
                except (BrainSegNetError, OSError, MemoryError) as error:
                    failures[case.name] = f"case {case.name}: {error or 'there is not enough memory for its report'}"
        return failures

    def _write_page(self, path: Path) -> None:
        from brainsegnet.reporting.patient import write_patient_report

        page = name_page(path)
        keep_existing([page], self._overwrite)
        write_patient_report(path, page, self._pages)
        say(f"report: {page}")

    def on_case(self, name: str, result: Any) -> None:  # noqa: ANN401
        """Say volumes, seconds, what was dropped, what absent sequences cost, and warnings."""
        report = result.report
        from brainsegnet.inference.steps import describe_steps

        for line in describe_steps(report):
            say(f"{name}: {line}")
        volumes = ", ".join(f"{region} {ml:.1f} ml" for region, ml in report["volumes_ml"]["regions"].items())
        found = "nothing found" if result.is_empty else volumes
        absent = f"; without {', '.join(report['sequences']['absent'])}" if report["sequences"]["absent"] else ""
        say(f"{name}: {found}; {result.seconds:.1f} s{absent}; {result.path}")
        if count := report["dropped"]["components"]:
            parts = f"{count} component{'s' if count > 1 else ''} of {report['dropped']['ml']:.1f} ml in all"
            say(f"{name}: dropped {parts}, of lower confidence; --keep-all-components keeps them")
        if (decided := report["presence"]) and not decided["kept"]:
            said = f"{decided['marked_ml']:.1f} ml of {decided['tissue']} became {decided['becomes']}"
            chance = f"probability {decided['probability']:.2f} that the scan has any"
            say(f"{name}: {said} ({chance}); --no-presence-check keeps it")
        if absent and len(report["validation"]) == 2:
            whole, part = report["validation"].values()
            changes = ", ".join(f"{region} {part[region]:.2f} instead of {whole[region]:.2f}" for region in part)
            say(f"{name}: Dice in validation on {report['validated_on']} with these sequences alone: {changes}")
        for warning in report["warnings"]:
            about_model = warning.startswith(f"model {report['model']['name']} ")
            if not (about_model and self._warned):
                complain(f"warning: {warning}" if about_model else f"{name}: warning: {warning}")
            self._warned |= about_model
        stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in report["seconds"].items())
        detail(f"{name}: {report['engine']}; one pass {report['memory']['one_pass_gb']} GB; {stages}")
        for note in report["notes"]:
            detail(f"{name}: {note}")
        if self._pages.report:
            self._write_page(result.path)


def _show_timings(cases: "BatchResult") -> None:
    from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns

    stages = ("read", "align", "brain", "prepare", "network", "write")
    rows: list[list[Cell]] = []
    for case in cases.done:
        seconds = [case.report["seconds"].get(stage, 0.0) for stage in stages]
        rows.append([case.name, *seconds, sum(seconds), case.seconds, case.report["memory"]["one_pass_gb"]])
    columns = [*text_columns("case"), *number_columns(*stages, "sum", "files to files", "one pass, GB", form=".2f")]
    show_table(Table(columns, rows, "seconds, and memory"))
    show(f"{cases.seconds:.2f} s in all, the network at work for {cases.computing:.2f} s of them")
