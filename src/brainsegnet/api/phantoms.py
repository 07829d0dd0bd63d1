"""`grow`: phantoms on disk, in the folders and names of BRATS 2015."""

from collections.abc import Callable
from pathlib import Path

from brainsegnet.errors import TaskError
from brainsegnet.output import writable
from brainsegnet.scans.files import write_image
from brainsegnet.scans.schemes import vsd_path
from brainsegnet.scans.table import LESION
from brainsegnet.synthesis.phantom import DEMO_SHAPE, grow_phantom

Shape = tuple[int, int, int]


def grow(
    out: Path, cases: int = 8, seed: int = 0, shape: Shape = DEMO_SHAPE, watch: Callable[[str], None] | None = None
) -> list[Path]:
    """Grow phantoms: heads with a glioma, for trying things out and for tests. The same seed gives the same bytes.

    Args:
        out: Folder that gets a folder for each case.
        cases: How many; case i is grown from seed + i, and named after it.
        seed: Of the first case.
        shape: Voxels (D, H, W); the head keeps its size in millimetres.
        watch: Told the name of each case that is done.

    Returns:
        The folders of the cases.

    Raises:
        OutputError: the folder cannot be written.
        TaskError: no case is asked for, or the seed is negative.
        ImageError: the shape is too coarse for a head.
    """
    if cases < 1:
        raise TaskError(f"{cases} phantoms cannot be grown; ask for one or more")
    if seed < 0:
        raise TaskError(f"seed must be 0 or more, not {seed}")
    writable(out / "phantom", ())
    folders = []
    for number in range(seed, seed + cases):
        case = grow_phantom(number, shape)
        parts = {**case.images, **({LESION: case.lesion} if case.lesion else {})}
        for channel, (name, volume) in enumerate(parts.items()):
            path = out / case.name / vsd_path(name, 10 * number + channel)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(volume, path)
        folders.append(out / case.name)
        if watch:
            watch(case.name)
    return folders
