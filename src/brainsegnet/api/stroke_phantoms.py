"""`grow --stroke`: phantoms of ischaemic stroke on disk, in the folders and names of ISLES 2022 or ISLES 2017."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from brainsegnet.api.anatomies import open_anatomies
from brainsegnet.errors import DatasetError, TaskError
from brainsegnet.output import writable
from brainsegnet.scans.schemes import smir_path
from brainsegnet.scans.table import LESION
from brainsegnet.synthesis.stroke_phantom import DrawMap, Library, StrokeTask, grow_stroke_case
from brainsegnet.volume import LabelMap

ATLAS_NAME = "ArterialAtlas"
"""How the file of arterial territories begins."""
_ENDINGS = {"dwi": "dwi", "adc": "adc", LESION: "msk"}


def grow_strokes(
    out: Path,
    task: StrokeTask = "isles2022",
    cases: int = 8,
    seed: int = 0,
    library: Library | None = None,
    watch: Callable[[str], None] | None = None,
    detail: float = 1.0,
) -> list[Path]:
    """Grow heads with an ischaemic stroke. The same seed and library give the same bytes on one kind of processor.

    Args:
        out: Folder that gets a folder for each case.
        task: isles2022 for DWI and ADC, isles2017 for the six maps of diffusion and perfusion.
        cases: How many; case i is grown from seed + i, and named after it.
        seed: Of the first case.
        library: Heads and lesion shapes from elsewhere, see `open_library`.
        watch: Told the name of each case that is done.
        detail: Factor on the number of voxels along each axis; below 1 for quick trials.

    Returns:
        The folders of the cases.

    Raises:
        OutputError: the folder cannot be written.
        TaskError: no case is asked for, or the seed is negative.
        ImageError: the detail is too low for a head.
    """
    from brainsegnet.scans.files import write_image

    if cases < 1:
        raise TaskError(f"{cases} phantoms cannot be grown; ask for one or more")
    if seed < 0:
        raise TaskError(f"seed must be 0 or more, not {seed}")
    writable(out / "phantom", ())
    folders = []
    for number in range(seed, seed + cases):
        case = grow_stroke_case(number, task, library, detail)
        parts = {**case.images, **({LESION: case.lesion} if case.lesion else {})}
        for channel, (name, volume) in enumerate(parts.items()):
            write_image(volume, out / case.name / stroke_path(case.name, task, name, 10 * number + channel))
        folders.append(out / case.name)
        if watch:
            watch(case.name)
    return folders


def stroke_path(case: str, task: StrokeTask, sequence: str, identifier: int) -> Path:
    """Where ISLES keeps a sequence, or the `lesion`, within the folder of its case.

    >>> stroke_path("sub-strokecase0001", "isles2022", "dwi", 0).as_posix()
    'sub-strokecase0001_ses-0001_dwi.nii.gz'
    >>> stroke_path("phantom_1", "isles2017", "tmax", 127014).as_posix()
    'VSD.Brain.XX.O.MR_Tmax.127014/VSD.Brain.XX.O.MR_Tmax.127014.nii'
    """
    if task == "isles2022":
        return Path(f"{case}_ses-0001_{_ENDINGS[sequence]}.nii.gz")
    return smir_path(sequence, identifier, "VSD")


def open_library(shapes: Path | None = None, anatomy: str | None = None) -> Library:
    """What strokes are grown from: lesion shapes and arteries, and heads; those that are not named are grown too.

    Args:
        shapes: As for `open_shapes`.
        anatomy: As for `open_anatomies`.

    Raises:
        DatasetError: a folder does not exist or holds no label map.
        MissingExtra: nilearn is not installed.
    """
    library = open_shapes(shapes) if shapes else Library()
    if anatomy is None:
        return library
    heads = open_anatomies(anatomy)

    def draw(rng: np.random.Generator) -> LabelMap:
        head = heads(int(rng.integers(2**31)))
        return LabelMap(head.tissue, head.affine)

    return replace(library, draw_head=draw)


def open_shapes(folder: Path) -> Library:
    """A library of lesion masks in MNI space, and of arterial territories if the folder holds `ArterialAtlas*`.

    Args:
        folder: Label maps (.nii or .nii.gz) of lesions, in folders below it too. They are read when they are drawn.

    Raises:
        DatasetError: the folder does not exist or holds no label map.
    """
    from brainsegnet.scans.files import read_labels

    files = sorted(path for ending in ("*.nii", "*.nii.gz") for path in folder.rglob(ending))
    atlases = [path for path in files if path.name.startswith(ATLAS_NAME)]
    masks = [path for path in files if path not in atlases]
    if not masks:
        raise DatasetError(f"{folder} holds no lesion masks (.nii or .nii.gz); name a folder of masks in MNI space")
    return Library(draw_shape=_reader(masks), atlas=read_labels(atlases[0]) if atlases else None)


def _reader(masks: list[Path]) -> DrawMap:
    from brainsegnet.scans.files import read_labels

    def draw(rng: np.random.Generator) -> LabelMap:
        return read_labels(masks[int(rng.integers(len(masks)))])

    return draw
