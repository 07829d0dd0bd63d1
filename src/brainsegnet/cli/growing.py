"""`simulate`: cases made by the software itself."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainsegnet.cli.app import app, say
from brainsegnet.simulation.simulate import SimulateOptions


@app.command
def simulate(out: Path, /, *, options: Annotated[SimulateOptions | None, Parameter(name="*")] = None) -> None:
    """Simulate cases: heads with a glioma, in the folders of BRATS 2015, or with a stroke.

    Example: brainsegnet simulate phantoms/ --cases 8 --seed 0

    Parameters
    ----------
    out
        Folder that gets a folder for each case.
    """
    from brainsegnet.simulation.simulate import simulate as run

    run(out, options, say)
