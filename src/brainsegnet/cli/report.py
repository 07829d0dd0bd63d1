"""The command report: a page about a model, about predictions, or about the result of one patient."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainsegnet._atomic import IMAGES, find_suffix
from brainsegnet.cli.app import Folders, Overwrite, Paths, app, keep_existing, report_failures, verb
from brainsegnet.cli.messages import say
from brainsegnet.metrics import ScoreOptions
from brainsegnet.reporting import ReportOptions


@verb(app)
def report(
    source: Path,
    truth: Paths | None = None,
    /,
    *,
    out: Path,
    task: str | None = None,
    worst: int = 4,
    options: Annotated[ScoreOptions | None, Parameter(name="*")] = None,
    viewer: bool = False,
    images: Folders | None = None,
    identify: bool = False,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML page about a model, about predictions and their scores, or about the result of one patient.

    Example: brainsegnet report predictions/ BRATS/ --task brats2015 --out report.html

    Example: brainsegnet report lesion.nii.gz --out lesion.html

    Parameters
    ----------
    source
        Output folder of train, model folder, folder of predictions, or a label map of segment.
    truth
        For predictions: folders or tables of cases, which are also drawn, or a folder of label maps.
    out
        Page to write, .html.
    task
        For predictions: their label convention.
    worst
        Number of the worst cases to show.
    viewer
        For predictions: make the worst cases ones to scroll through, with a script; up to 5 MB for each.
    images
        For a label map: images, or folders that hold them, where they are no longer where its JSON tells.
    identify
        For a label map: show the name of the case, and the names of its files and series.
    """
    if find_suffix(source, IMAGES) and not truth:
        from brainsegnet.reporting.patient import write_patient_report

        keep_existing([out], overwrite)
        write_patient_report(source, out, ReportOptions(True, identify), images or [])
        say(f"done; open {out}")
        return
    from brainsegnet.metrics.scores import ScoreRules
    from brainsegnet.reporting.report import report as run

    keep_existing([out], overwrite)
    rules = ScoreRules.of(options or ScoreOptions())
    failures = run(source, out, truth or [], task, worst, rules, viewer)
    say(f"done; open {out}")
    report_failures(failures, 1)
