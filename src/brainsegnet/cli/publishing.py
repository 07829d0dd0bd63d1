"""The verbs that carry results out of the house."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainsegnet.cli.app import Paths, app, say


@app.command
def submit(
    predictions: Path,
    data: Paths,
    /,
    *,
    task: str,
    name: str,
    out: Path,
    id_from: Annotated[str | None, Parameter(show_default=False)] = None,
) -> None:
    """Pack predictions for the platform of a challenge; all is checked before anything is written.

    Example: brainsegnet submit predictions/ BRATS2015_Testing/ --task brats2015 --name mymethod --out upload.zip

    Parameters
    ----------
    predictions
        Folder of label maps named after their cases, as segment writes them.
    data
        Folders of the cases, in their original names: the numbers that the platform knows stand in them.
    task
        brats2015, isles2017, or a task file that names a platform (examples/tasks/isles2017_perfusion.yaml).
    name
        Of the method: letters, digits, - and _.
    out
        The zip to write.
    id_from
        Sequence whose number stands for the case; by default the one that the task names: flair for brats2015,
        mtt for isles2017.
    """
    from brainsegnet.paper.submission import submit as run

    uploads = run(predictions, data, task, name, out, id_from)
    say(f"{len(uploads)} {'case' if len(uploads) == 1 else 'cases'} in {out}, from {uploads[0].file} on")
