"""`submit`: pack predictions into one zip for the platforms that score BRATS 2015 and ISLES 2017.

The task says what its platform requires. Both platforms identify a case by the number of one of its images, which ends
the name of that image's file.
"""

import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainsegnet._atomic import replacing, writable
from brainsegnet._types import Affine
from brainsegnet.errors import DatasetError, GridMismatch, MissingSequence, OutputError, TaskError
from brainsegnet.io.case_files import LESION
from brainsegnet.io.cases import CaseFiles, find_cases, read_prediction
from brainsegnet.io.images import READERS, read_image, write_image
from brainsegnet.task import TASKS, Platform, Task, load_task
from brainsegnet.volume import LabelMap, describe_gap

_IDENTIFIER = re.compile(r"(VSD|SMIR)\.Brain[^.]*\.XX\.O\.(MR_[^.]+|OT)\.(?P<number>[0-9]+)", re.IGNORECASE)
_METHOD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_ARCHIVE = (".zip",)
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip can hold: the same predictions give the same bytes."""


@dataclass(frozen=True, eq=False)
class Upload:
    """A prediction and the file that it becomes in the zip.

    Attributes:
        case: Name of the case.
        prediction: File of the predicted label map.
        file: Name of the file in the zip.
        affine: Affine (4, 4) of the scan, which the file gets.
    """

    case: str
    prediction: Path
    file: str
    affine: Affine


def submit(
    predictions: Path,
    data: Path | Sequence[Path],
    task: Task | str,
    name: str,
    out: Path,
    id_from: str | None = None,
) -> list[Upload]:
    """Pack predictions for the platform that scores BRATS 2015 or ISLES 2017. All is checked before a file is written.

    Args:
        predictions: Folder of label maps named after their cases, as `segment` writes them.
        data: Folders of the cases under their original names, which hold the numbers that the platform knows.
        task: `brats2015`, `isles2017`, or a task file that names a platform.
        name: Name of the method, which becomes part of the file names.
        out: The zip to write.
        id_from: Sequence whose number stands for the case. None takes the one of the task: FLAIR for BRATS 2015, MTT
            for ISLES 2017.

    Returns:
        The contents of the zip.

    Raises:
        TaskError: the task has no platform.
        DatasetError: a prediction is missing or doubled, or a number is missing or doubled.
        MissingSequence: a case has no such sequence.
        GridMismatch: a prediction is not on the grid of its scan.
        LabelError: a prediction holds values outside the task.
        ImageError: a prediction cannot be read.
        OutputError: the zip cannot be written, or the name of the method cannot be part of a file name.
    """
    task = task if isinstance(task, Task) else load_task(task)
    find_platform(task)
    writable(out, _ARCHIVE)
    cases = find_cases([data] if isinstance(data, Path) else list(data))
    uploads = plan_uploads(cases, predictions, task, name, id_from)
    write_uploads(uploads, task, out)
    return uploads


def plan_uploads(
    cases: Sequence[CaseFiles], predictions: Path, task: Task, method: str, id_from: str | None = None
) -> list[Upload]:
    """Decide which prediction becomes which file, and check everything. Arguments and errors are those of `submit`."""
    platform = find_platform(task)
    sequence = id_from or platform.id_from
    paths = _find_predictions(cases, predictions)
    images = {case.name: _find_image(case, sequence) for case in cases}
    files = {name: name_file(platform, method, number) for name, number in _number(images, sequence).items()}
    affines = {name: _check(name, paths[name], image, sequence, task) for name, image in images.items()}
    return [Upload(name, path, files[name], affines[name]) for name, path in paths.items()]


def write_uploads(uploads: Sequence[Upload], task: Task, out: Path) -> None:
    """Write one zip of all files. The files themselves are uncompressed, so that any platform can read them.

    Raises:
        OutputError: `out` cannot be written.
    """
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for upload in uploads:
            member = zipfile.ZipInfo(upload.file, _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, _encode(upload, task))


def find_platform(task: Task) -> Platform:
    """The platform of a task.

    Raises:
        TaskError: the task has none.
    """
    if task.platform is None:
        known = ", ".join(name for name, other in TASKS.items() if other.platform)
        raise TaskError(
            f"task {task.name} has no platform to upload to; those of {known} have one, and a task file can name one "
            "(platform: prefix, suffix, dtype, id_from)"
        )
    return task.platform


def name_file(platform: Platform, method: str, identifier: str) -> str:
    """The name of one file for a platform: parts separated by dots.

    Raises:
        OutputError: the name of the method holds other characters than letters, digits, `_` and `-`.
    """
    if not _METHOD.fullmatch(method):
        raise OutputError(f"{method!r} cannot be a part of file names; use letters, digits, - and _ only")
    return f"{platform.prefix}.{method}.{identifier}{platform.suffix}"


def find_identifier(path: Path) -> str | None:
    """The number of an image, from the name of its file or, where that was renamed, of its folder.

    Examples:
        >>> find_identifier(Path("pat1/VSD.Brain.XX.O.MR_Flair.54193/VSD.Brain.XX.O.MR_Flair.54193.mha"))
        '54193'
        >>> find_identifier(Path("training_1/SMIR.Brain.XX.O.MR_MTT.127014/mtt.nii"))
        '127014'
        >>> find_identifier(Path("pat1/flair.nii.gz"))
    """
    found = _IDENTIFIER.match(path.name) or _IDENTIFIER.fullmatch(path.parent.name)
    return found["number"] if found else None


def _encode(upload: Upload, task: Task) -> bytes:
    """A prediction as the platform wants it."""
    classes = read_prediction(upload.prediction, task, upload.case).array.astype(find_platform(task).dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / upload.file
        write_image(LabelMap(classes, upload.affine), path, compress=False)
        return path.read_bytes()


def _find_predictions(cases: Sequence[CaseFiles], folder: Path) -> dict[str, Path]:
    """The label map of each case."""
    if not folder.is_dir():
        fact = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder} {fact}; name the folder that holds a label map for each case")
    found = {case.name: [p for s in READERS if (p := folder / f"{case.name}{s}").is_file()] for case in cases}
    if missing := [name for name, paths in found.items() if not paths]:
        few = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DatasetError(
            f"{folder} holds no prediction for {len(missing)} of {len(cases)} cases ({few}); segment them too"
        )
    for name, paths in found.items():
        if len(paths) > 1:
            raise DatasetError(f"case {name} has two predictions, {paths[0]} and {paths[1].name}; remove one")
    return {name: paths[0] for name, paths in found.items()}


def _find_image(case: CaseFiles, sequence: str) -> Path:
    path = case.lesion if sequence == LESION else case.images.get(sequence)
    if path is None:
        raise MissingSequence(
            f"case {case.name} has no {sequence}, only {', '.join(case.images)}; name the sequence whose number the "
            "platform knows with --id-from"
        )
    return path


def _number(images: Mapping[str, Path], sequence: str) -> dict[str, str]:
    """Case to the number of its image; no two alike."""
    owners: dict[str, str] = {}
    for case, image in images.items():
        number = find_identifier(image)
        if number is None:
            raise DatasetError(
                f"case {case}: no number is in the name of {image}; the platform knows {sequence} by the original "
                "name, such as VSD.Brain.XX.O.MR_Flair.54193.mha"
            )
        if (owner := owners.setdefault(number, case)) != case:
            raise DatasetError(
                f"cases {owner} and {case} both have number {number} in {sequence}; leave one of the two out"
            )
    return {case: number for number, case in owners.items()}


def _check(case: str, prediction: Path, image: Path, sequence: str, task: Task) -> Affine:
    """The affine of the scan, if the prediction fits it and the task."""
    labels, scan = read_prediction(prediction, task, case), read_image(image)
    if not labels.on_grid_of(scan):
        fact = describe_gap("the prediction", labels, sequence, scan)
        raise GridMismatch(f"case {case}: {fact}; segment the case again from its original files")
    return scan.affine
