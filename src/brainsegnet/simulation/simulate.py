"""Simulate cases on disk, in the folders and file names of BRATS 2015, ISLES 2022 or ISLES 2017.

Heavy libraries load when the first case is simulated, so the command line takes its flags from `SimulateOptions`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from brainsegnet.errors import DatasetError, MissingExtra, TaskError
from brainsegnet.progress import Callback
from brainsegnet.simulation import StrokeTask

if TYPE_CHECKING:
    from brainsegnet.simulation.stroke_case import Library
    from brainsegnet.volume import Case


@dataclass(frozen=True)
class SimulateOptions:
    """Which cases to simulate: phantoms by default, or realistic gliomas or strokes.

    A phantom is a head with a glioma, quick to make, for trials and tests. The other cases are made for training. The
    fields are the options of `brainsegnet simulate`.

    Raises:
        TaskError: the number of cases or the seed is out of range, or two options exclude each other.
    """

    cases: int = 8
    "Number of cases."
    seed: int = 0
    """Seed of the first case; case i has seed + i, also in its name. A seed gives the same bytes on one kind of
    processor."""
    shape: tuple[int, int, int] | None = None
    "Voxels of a phantom or a procedural anatomy along slices, rows and columns; its size in millimetres stays."
    realistic: bool = False
    """Simulate gliomas for training: they grow and infiltrate in a deformed anatomy, with scanner artefacts. Needs
    torch."""
    stroke: StrokeTask | None = None
    "Simulate ischaemic strokes for training, in the file names of isles2022 (DWI, ADC) or isles2017 (six maps)."
    anatomy: str | Path | None = None
    """Anatomies of realistic gliomas and strokes: a folder of FreeSurfer label maps, icbm152 (from nilearn), or
    procedural. By default icbm152 for gliomas if nilearn is installed, else procedural."""
    shapes: Path | None = None
    "For strokes: a folder of lesion masks in MNI space that give the shapes. By default all shapes are simulated."
    detail: float = 1.0
    "For strokes: factor on the number of voxels along each axis; below 1 for quick trials."

    def __post_init__(self) -> None:
        if self.cases < 1:
            raise TaskError(f"{self.cases} cases cannot be simulated; ask for one or more")
        if self.seed < 0:
            raise TaskError(f"seed must be 0 or more, not {self.seed}")
        if self.stroke and self.realistic:
            raise TaskError("every simulated stroke is realistic; leave out --realistic or --stroke")
        if self.stroke and self.shape:
            raise TaskError("a stroke is scanned on the grid of its data set; leave out --shape or --stroke")
        if not self.stroke and (self.shapes or self.detail != 1):
            raise TaskError("--shapes and --detail are for strokes; add --stroke isles2022 or --stroke isles2017")
        if self.anatomy and not (self.realistic or self.stroke):
            raise TaskError(
                f"--anatomy {self.anatomy} is for realistic gliomas and strokes; add --realistic or --stroke"
            )


def simulate(out: Path, options: SimulateOptions | None = None, callback: Callback | None = None) -> list[Path]:
    """Simulate cases, by default eight phantoms, and write each into a folder of its own.

    Args:
        out: Folder that gets a folder for each case.
        options: Which cases to simulate.
        callback: Its `on_case` is called with the folder of each case that is done.

    Returns:
        The folders of the cases.

    Raises:
        OutputError: the folder cannot be written.
        ImageError: the shape or the detail is too coarse for a head, or a label map is not a whole brain.
        DatasetError: a folder of label maps or lesion masks is missing or empty.
        MissingExtra: torch, or nilearn for `icbm152`, is not installed.
    """
    from brainsegnet._atomic import writable
    from brainsegnet.io.case_files import LESION
    from brainsegnet.io.images import write_image

    options = options or SimulateOptions()
    make = open_simulator(options)
    writable(out / "case", ())
    folders = []
    for number in range(options.seed, options.seed + options.cases):
        case = make(number)
        volumes = {**case.images, **({LESION: case.lesion} if case.lesion else {})}
        for channel, (name, volume) in enumerate(volumes.items()):
            write_image(volume, out / case.name / sequence_path(case.name, options.stroke, name, 10 * number + channel))
        folders.append(out / case.name)
        if callback:
            callback.on_case(case.name, out / case.name)
    return folders


def open_simulator(options: SimulateOptions, device: str = "cpu") -> "Callable[[int], Case]":
    """A function that simulates a case in memory from a seed.

    Args:
        options: Which cases to simulate.
        device: Device of torch that computes realistic gliomas.

    Raises:
        TaskError: as `simulate`.
        ImageError: as `simulate`.
        DatasetError: as `simulate`.
        MissingExtra: as `simulate`.
    """
    if options.stroke:
        from brainsegnet.simulation.stroke_case import simulate_stroke

        task, library, detail = options.stroke, open_library(options.shapes, options.anatomy), options.detail
        return lambda seed: simulate_stroke(seed, task, library, detail)
    if not options.realistic:
        from brainsegnet.simulation.phantom import DEMO_SHAPE, simulate_phantom

        return lambda seed: simulate_phantom(seed, options.shape or DEMO_SHAPE)
    from brainsegnet.anatomy.label_maps import default_anatomy, open_anatomies

    try:
        from brainsegnet.simulation.realistic import simulate_glioma
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra('realistic cases need torch; run: pip install "brainsegnet[train]"') from error
    anatomies = open_anatomies(options.anatomy or default_anatomy(), options.shape)
    return lambda seed: simulate_glioma(seed, anatomies(seed), f"glioma{seed:04d}", device)


def sequence_path(case: str, stroke: StrokeTask | None, sequence: str, identifier: int) -> Path:
    """Path of a sequence, or of the `lesion`, within the folder of its case.

    It follows ISLES 2022 or ISLES 2017 for strokes, and BRATS 2015 otherwise.

    Examples:
        >>> sequence_path("sub-strokephantom0001", "isles2022", "dwi", 0).as_posix()
        'sub-strokephantom0001_ses-0001_dwi.nii.gz'
    """
    from brainsegnet.io.case_files import LESION
    from brainsegnet.io.layouts import smir_path, vsd_path

    if stroke is None:
        return vsd_path(sequence, identifier)
    if stroke == "isles2017":
        return smir_path(sequence, identifier, "VSD")
    return Path(f"{case}_ses-0001_{'msk' if sequence == LESION else sequence}.nii.gz")


def open_library(shapes: Path | None = None, anatomy: str | Path | None = None) -> "Library":
    """Open what strokes are simulated from: lesion shapes, arterial territories and anatomies.

    Args:
        shapes: Folder of lesion masks (.nii or .nii.gz) in MNI space; subfolders are searched. A file `ArterialAtlas*`
            in it holds arterial territories. None simulates the shapes.
        anatomy: As for `open_anatomies`; None means procedural anatomies.

    Raises:
        DatasetError: a folder does not exist or holds no label map.
        MissingExtra: nilearn is not installed.
    """
    from brainsegnet.anatomy.label_maps import open_anatomies
    from brainsegnet.io.images import read_labels
    from brainsegnet.simulation.stroke_case import Library

    files = sorted(path for ending in ("*.nii", "*.nii.gz") for path in shapes.rglob(ending)) if shapes else []
    atlases = [path for path in files if path.name.startswith("ArterialAtlas")]
    masks = [path for path in files if path not in atlases]
    if shapes and not masks:
        raise DatasetError(f"{shapes} holds no lesion masks (.nii or .nii.gz); name a folder of masks in MNI space")
    anatomies = open_anatomies(anatomy) if anatomy else None
    return Library(
        draw_anatomy=(lambda rng: anatomies(int(rng.integers(2**31)))) if anatomies else None,
        draw_shape=(lambda rng: read_labels(masks[int(rng.integers(len(masks)))])) if masks else None,
        atlas=read_labels(atlases[0]) if atlases else None,
    )
