"""`grow`: cases made by the software itself."""

from pathlib import Path
from typing import Literal

from brainsegnet.cli.app import app, say
from brainsegnet.cli.flags import Shape, Switch


@app.command
def simulate(
    out: Path,
    /,
    *,
    cases: int = 8,
    seed: int = 0,
    shape: Shape | None = None,
    realistic: Switch = False,
    anatomy: str | None = None,
    stroke: Literal["isles2022", "isles2017"] | None = None,
    shapes: Path | None = None,
) -> None:
    """Grow cases: heads with a tumour, in the folders of BRATS 2015, or with a stroke. A seed always gives the same.

    Example: brainsegnet simulate phantoms/ --cases 8 --seed 0

    Parameters
    ----------
    out
        Folder that gets a folder for each case.
    cases
        How many.
    seed
        Case i is simulated from seed + i.
    shape
        Voxels along slices, rows and columns; the head keeps its size.
    realistic
        Cases to train on: real anatomies, tumours that grow and infiltrate, the faults of scanners. Needs torch.
    anatomy
        With --realistic or --stroke: a folder of FreeSurfer label maps, icbm152 (from nilearn), or procedural. By
        default icbm152 where nilearn is installed; strokes are simulated in procedural heads.
    stroke
        Grow an ischaemic stroke instead: isles2022 (DWI, ADC) or isles2017 (the six maps), in the names of that data.
    shapes
        With --stroke: a folder of lesion masks in MNI space to take shapes from; all are simulated without.
    """
    from brainsegnet.anatomy.label_maps import default_anatomy
    from brainsegnet.errors import TaskError
    from brainsegnet.simulation.simulate import simulate as run

    if stroke and realistic:
        raise TaskError("--realistic grows tumours, and every stroke is realistic; leave out --realistic or --stroke")
    if stroke and shape:
        raise TaskError("a stroke is scanned on the grid of its data set; leave out --shape or --stroke")
    if stroke:
        return _simulate_strokes(out, stroke, (cases, seed), anatomy, shapes)
    if shapes:
        raise TaskError("--shapes are those of strokes; add --stroke isles2022 or isles2017")
    if anatomy and not realistic:
        raise TaskError(f"--anatomy {anatomy} is for realistic cases and strokes; add --realistic or --stroke")
    run(out, cases, seed, shape, say, (anatomy or default_anatomy()) if realistic else None)


def _simulate_strokes(
    out: Path,
    task: Literal["isles2022", "isles2017"],
    numbers: tuple[int, int],
    anatomy: str | None,
    shapes: Path | None,
) -> None:
    from brainsegnet.simulation.simulate import open_library
    from brainsegnet.simulation.simulate import simulate_strokes as run

    run(out, task, *numbers, open_library(shapes, anatomy), say)
