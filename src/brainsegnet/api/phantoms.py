"""`grow`: phantoms and realistic cases on disk, in the folders and names of BRATS 2015."""

from collections.abc import Callable
from pathlib import Path

from brainsegnet.api.anatomies import load_realistic, open_anatomies
from brainsegnet.errors import TaskError
from brainsegnet.output import writable
from brainsegnet.scans.files import write_image
from brainsegnet.scans.schemes import vsd_path
from brainsegnet.scans.table import LESION
from brainsegnet.synthesis.phantom import DEMO_SHAPE, grow_phantom
from brainsegnet.volume import Case

Shape = tuple[int, int, int]


def grow(
    out: Path,
    cases: int = 8,
    seed: int = 0,
    shape: Shape | None = None,
    watch: Callable[[str], None] | None = None,
    anatomy: str | Path | None = None,
) -> list[Path]:
    """Grow cases: heads with a glioma. The same seed gives the same bytes on one kind of processor.

    Without an anatomy they are phantoms, quick to grow, for trying things out and for tests. With one they are cases to
    train on: a tumour grown by reaction and diffusion in a deformed head, and the faults of scanners.

    Args:
        out: Folder that gets a folder for each case.
        cases: How many; case i is grown from seed + i, and named after it.
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
        raise TaskError(f"{cases} phantoms cannot be grown; ask for one or more")
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
        return lambda number: grow_phantom(number, shape or DEMO_SHAPE)
    grow_realistic, heads = load_realistic().grow_realistic, open_anatomies(anatomy, shape)
    return lambda number: grow_realistic(number, heads(number), f"glioma{number:04d}")


def _write(case: Case, folder: Path, number: int) -> None:
    parts = {**case.images, **({LESION: case.lesion} if case.lesion else {})}
    for channel, (name, volume) in enumerate(parts.items()):
        write_image(volume, folder / vsd_path(name, 10 * number + channel))
