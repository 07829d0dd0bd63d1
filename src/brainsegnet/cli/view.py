"""The command view: a result as one page to scroll through."""

from pathlib import Path

from brainsegnet.cli.app import Folders, Overwrite, app, keep_existing, verb
from brainsegnet.cli.messages import complain, say


@verb(app)
def view(
    result: Path,
    /,
    *,
    out: Path,
    images: Folders | None = None,
    truth: Path | None = None,
    task: str | None = None,
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
    """
    from brainsegnet.plotting.result import view as run

    keep_existing([out], overwrite)
    for warning in run(result, out, images or [], truth, task).warnings:
        complain(f"warning: {warning}")
    say(f"done; open {out}")
