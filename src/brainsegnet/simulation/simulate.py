"""`grow`: phantoms and realistic cases on disk, in the folders and names of BRATS 2015.

`grow --stroke`: phantoms of ischaemic stroke on disk, in the folders and names of ISLES 2022 or ISLES 2017.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from brainsegnet._atomic import writable
from brainsegnet._types import Shape
from brainsegnet.anatomy.label_maps import open_anatomies
from brainsegnet.errors import DatasetError, MissingExtra, TaskError
from brainsegnet.io.case_files import LESION
from brainsegnet.io.images import write_image
from brainsegnet.io.layouts import smir_path, vsd_path
from brainsegnet.simulation.phantom import DEMO_SHAPE, simulate_phantom
from brainsegnet.simulation.stroke_case import DrawMap, Library, StrokeTask, simulate_stroke
from brainsegnet.volume import Case, LabelMap


def simulate(
    out: Path,
    cases: int = 8,
    seed: int = 0,
    shape: Shape | None = None,
    watch: Callable[[str], None] | None = None,
    anatomy: str | Path | None = None,
) -> list[Path]:
    """Grow cases: heads with a glioma. The same seed gives the same bytes on one kind of processor.

    Without an anatomy they are phantoms, quick to grow, for trying things out and for tests. With one they are cases to
    train on: a tumour simulated by reaction and diffusion in a deformed head, and the faults of scanners.

    Args:
        out: Folder that gets a folder for each case.
        cases: How many; case i is simulated from seed + i, and named after it.
        seed: Of the first case.
        shape: Voxels (D, H, W) of a phantom or a procedural head; the head keeps its size in millimetres.
        watch: Told the name of each case that is done.
        anatomy: For realistic cases: `icbm152`, `procedural`, or a folder of label maps with FreeSurfer's values.

    Returns:
        The folders of the cases.

    Raises:
        OutputError: the folder cannot be written.
        TaskError: no case is asked for, or the seed is negative.
        ImageError: the shape is too coarse for a head, or a label map is none of a whole brain.
        DatasetError: the folder of label maps is missing or empty.
        MissingExtra: torch, or nilearn for `icbm152`, is not installed.
    """
    if cases < 1:
        raise TaskError(f"{cases} phantoms cannot be simulated; ask for one or more")
    if seed < 0:
        raise TaskError(f"seed must be 0 or more, not {seed}")
    make = _choose(shape, anatomy)
    writable(out / "phantom", ())
    folders = []
    for number in range(seed, seed + cases):
        case = make(number)
        _write(case, out / case.name, number)
        folders.append(out / case.name)
        if watch:
            watch(case.name)
    return folders


def _choose(shape: Shape | None, anatomy: str | Path | None) -> Callable[[int], Case]:
    """What makes case `number`."""
    if anatomy is None:
        return lambda number: simulate_phantom(number, shape or DEMO_SHAPE)
    simulate_glioma, heads = load_realistic().simulate_glioma, open_anatomies(anatomy, shape)
    return lambda number: simulate_glioma(number, heads(number), f"glioma{number:04d}")


def _write(case: Case, folder: Path, number: int) -> None:
    parts = {**case.images, **({LESION: case.lesion} if case.lesion else {})}
    for channel, (name, volume) in enumerate(parts.items()):
        write_image(volume, folder / vsd_path(name, 10 * number + channel))


ATLAS_NAME = "ArterialAtlas"
"""How the file of arterial territories begins."""
_ENDINGS = {"dwi": "dwi", "adc": "adc", LESION: "msk"}


def simulate_strokes(
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
        cases: How many; case i is simulated from seed + i, and named after it.
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
    from brainsegnet.io.images import write_image

    if cases < 1:
        raise TaskError(f"{cases} phantoms cannot be simulated; ask for one or more")
    if seed < 0:
        raise TaskError(f"seed must be 0 or more, not {seed}")
    writable(out / "phantom", ())
    folders = []
    for number in range(seed, seed + cases):
        case = simulate_stroke(number, task, library, detail)
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
    """What strokes are simulated from: lesion shapes, arteries and heads; what is not named is simulated too.

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
    from brainsegnet.io.images import read_labels

    files = sorted(path for ending in ("*.nii", "*.nii.gz") for path in folder.rglob(ending))
    atlases = [path for path in files if path.name.startswith(ATLAS_NAME)]
    masks = [path for path in files if path not in atlases]
    if not masks:
        raise DatasetError(f"{folder} holds no lesion masks (.nii or .nii.gz); name a folder of masks in MNI space")
    return Library(draw_shape=_reader(masks), atlas=read_labels(atlases[0]) if atlases else None)


def _reader(masks: list[Path]) -> DrawMap:
    from brainsegnet.io.images import read_labels

    def draw(rng: np.random.Generator) -> LabelMap:
        return read_labels(masks[int(rng.integers(len(masks)))])

    return draw


def load_realistic() -> "ModuleType":
    """The module that renders, which needs torch.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        from brainsegnet.simulation import realistic
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra('realistic cases need torch; run: pip install "brainsegnet[train]"') from error
    return realistic
