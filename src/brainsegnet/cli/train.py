"""The commands that make models and cases: train, export, simulate. Heavy libraries load when a command runs."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainsegnet._atomic import OutputOptions
from brainsegnet.cli.app import Paths, app, verb
from brainsegnet.cli.bars import CasesBar, Speaker, TrainingBar
from brainsegnet.cli.messages import complain, say, show
from brainsegnet.simulation.simulate import SimulateOptions
from brainsegnet.training import DryRunOptions, TrainOptions

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Where launchers say which of several processes this one is; it is the first if all that are set are 0."""


@verb(app)
def train(
    data: Paths | None = None,
    /,
    *,
    task: str,
    out: Path,
    options: Annotated[TrainOptions | None, Parameter(name="*")] = None,
    how: Annotated[DryRunOptions | None, Parameter(name="*")] = None,
) -> None:
    """Train a model on cases with known lesions, on cases that are simulated during the training, or on both.

    Example: brainsegnet train BRATS/ --task brats2015 --out runs/first --minutes 15

    Example: brainsegnet train MINE/ --task brats2021 --from tumour --out runs/mine --minutes 10

    Example: brainsegnet train BRATS/ --task brats2021 --simulated 16 --out runs/both --hold-out pat0007

    Example: brainsegnet train BRATS/ --task brats2021 --recipe modern --out runs/big --nodes 4 --dry-run

    Parameters
    ----------
    data
        Folders of cases as distributed (BRATS 2015 to 2023, ISLES 2017 and 2022, BIDS, Decathlon, nnU-Net), or tables
        case,sequence,path (.csv, .yaml). The command inspect shows what is recognised. None are needed with
        --simulated.
    task
        brats2015, brats2021, brats2023, isles2017, isles2022, white-matter-lesions, or a YAML file.
    out
        Folder for the models best/ and last/, the log and the state.
    """
    from brainsegnet.model.store import open_model
    from brainsegnet.training.train import train as run

    if how is not None and how.dry_run:
        _show_estimate(data or [], task, options, how)
        return
    with TrainingBar() as bar:
        folder = run(data or [], task, out, options, bar)
    if all(os.environ.get(rank, "0") == "0" for rank in RANKS):
        if warning := open_model(folder).card.warning:
            complain(f"warning: {warning}")
        say(f"done; try: brainsegnet segment CASE --model {out} --out lesion.nii.gz")
        say(f"and for speed on a CPU, once: brainsegnet export {' '.join(map(str, (out, *(data or ()))))}")


def _show_estimate(data: list[Path], task: str, options: TrainOptions | None, how: DryRunOptions) -> None:
    from brainsegnet.training.estimate import dry_run

    for line in dry_run(data, task, options, how, Speaker()).describe():
        show(line)


@verb(app)
def export(model: Path, data: Paths | None = None, /) -> None:
    """Write a model in formats that run fast on a CPU without torch: OpenVINO (floats and 8-bit integers) and ONNX.

    Example: brainsegnet export runs/first BRATS/

    Parameters
    ----------
    model
        Model folder, or output folder of train. It gets a folder export/.
    data
        Cases that the model was trained on. The ranges of the 8-bit integers come from them. Without data, floats only.
    """
    from brainsegnet.training.export import export as run

    run(model, data or [], Speaker())


@verb(app)
def simulate(
    out: Path,
    /,
    *,
    options: Annotated[SimulateOptions | None, Parameter(name="*")] = None,
    output: Annotated[OutputOptions | None, Parameter(name="*")] = None,
) -> None:
    """Simulate cases: heads with a glioma, in the folders of BRATS 2015, with a stroke, or with white matter lesions.

    Example: brainsegnet simulate phantoms/ --cases 8 --seed 0

    Parameters
    ----------
    out
        Folder that gets a folder for each case.
    """
    from brainsegnet.simulation.simulate import simulate as run

    with CasesBar() as bar:
        run(out, options, bar, output)
