"""The commands on a result: view, a page to scroll through, and measure, for results that were corrected by hand."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainsegnet.cli.app import Folders, Overwrite, app, keep_existing, verb
from brainsegnet.cli.messages import complain, say
from brainsegnet.pipeline import MeasureOptions
from brainsegnet.plotting import ViewerName
from brainsegnet.reporting import ReportOptions


@verb(app)
def view(
    result: Path,
    /,
    *,
    out: Path,
    images: Folders | None = None,
    truth: Path | None = None,
    task: str | None = None,
    viewer: ViewerName = "canvas",
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML page to scroll through a result. It opens offline, in any browser.

    Example: brainsegnet view lesion.nii.gz --out lesion.html

    Parameters
    ----------
    result
        Label map of segment, whose JSON tells the images, or any other label map with --images.
    out
        Page to write, .html.
    images
        Images, or folders that hold them, where they are no longer where the JSON tells.
    truth
        True label map in the same label convention.
    task
        Label convention of a label map without a JSON.
    viewer
        What draws. canvas: a small script that runs in any browser. niivue: NiiVue, with WebGL 2; needs
        brainsegnet[niivue], and shows images and labels alone.
    """
    from brainsegnet.plotting.result import view as run

    keep_existing([out], overwrite)
    for warning in run(result, out, images or [], truth, task, viewer).warnings:
        complain(f"warning: {warning}")
    say(f"done; open {out}")


@verb(app)
def measure(
    mask: Path,
    /,
    *,
    like: Path,
    out: Path | None = None,
    options: Annotated[MeasureOptions | None, Parameter(name="*")] = None,
    reporting: Annotated[ReportOptions | None, Parameter(name="*")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure a result that was corrected by hand, in 3D Slicer or ITK-SNAP, and write it again, marked as corrected.

    Example: brainsegnet measure corrected.seg.nrrd --like lesion.json --out lesion_corrected.nii.gz

    Parameters
    ----------
    mask
        The corrected label map: .seg.nrrd of 3D Slicer, whose segments have the names of the tissues, or an image with
        the label values of the result.
    like
        JSON of the result that was corrected.
    out
        Label map to write; by default it is named after the result, with _corrected.
    """
    from brainsegnet.inference.segmentation import beside
    from brainsegnet.pipeline.measure import measure as run
    from brainsegnet.pipeline.measure import name_corrected

    target, reporting = out or name_corrected(like), reporting or ReportOptions()
    page = beside(target, ".html")
    keep_existing([target, beside(target, ".json"), *([page] if reporting.report else [])], overwrite)
    saved = run(mask, like, target, options)
    before = saved.report["original"]["volumes_ml"].get("regions", {})
    for region, ml in saved.report["volumes_ml"]["regions"].items():
        known = f", before {before[region]:.1f} ml" if region in before else ""
        say(f"{saved.name}: {region} {ml:.1f} ml{known}")
    changed = ", ".join(f"{what.removesuffix('_ml')} {ml:.2f} ml" for what, ml in saved.report["changed"].items())
    say(f"{saved.name}: {changed}; {saved.path}")
    if reporting.report:
        from brainsegnet.reporting.patient import write_patient_report

        write_patient_report(target, page, reporting, options.images if options else ())
        say(f"{saved.name}: {page}")
