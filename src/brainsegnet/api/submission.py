"""`submit`: predictions to one zip that the platform of a challenge takes."""

from collections.abc import Sequence
from pathlib import Path

from brainsegnet.output import writable
from brainsegnet.scans.datasets import find_cases
from brainsegnet.scans.submission import Upload, find_platform, plan_uploads, write_uploads
from brainsegnet.task import Task, load_task


def submit(
    predictions: Path,
    data: Path | Sequence[Path],
    task: Task | str,
    name: str,
    out: Path,
    id_from: str | None = None,
) -> list[Upload]:
    """Pack predictions for the platform that scores BRATS 2015 or ISLES 2017; nothing is written unless all is right.

    Args:
        predictions: Folder of label maps named after their cases, as `segment` writes them.
        data: Folders of the cases, in their original names: the numbers that the platform knows stand in them.
        task: `brats2015`, `isles2017`, or a task file that names a platform.
        name: Of the method; goes into the names of the files.
        out: The zip.
        id_from: Sequence whose number stands for the case; None is the one that the task names: FLAIR for BRATS 2015,
            MTT for ISLES 2017.

    Returns:
        What is in the zip.

    Raises:
        BrainSegNetError: a prediction is missing, on another grid or of other labels, a number is missing or occurs
            twice, or the zip cannot be written; one sentence says which.
    """
    task = task if isinstance(task, Task) else load_task(task)
    find_platform(task)
    writable(out, (".zip",))
    cases = find_cases([data] if isinstance(data, Path) else list(data))
    uploads = plan_uploads(cases, predictions, task, name, id_from)
    write_uploads(uploads, task, out)
    return uploads
