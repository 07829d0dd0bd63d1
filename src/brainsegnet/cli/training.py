"""The verbs that make models: one flag per argument. Heavy libraries load when a verb runs."""

import os
from pathlib import Path
from typing import Literal

from brainsegnet.cli.app import Paths, app, say
from brainsegnet.cli.flags import (
    BudgetFlags,
    CaseFlags,
    HoldOutFlags,
    MachineFlags,
    OriginFlags,
    SimulationFlags,
    Switch,
)
from brainsegnet.cli.progress import training_progress

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Where launchers say which of several processes this one is; it is the first if all that are set are 0."""


@app.command
def train(
    data: Paths | None = None,
    /,
    *,
    task: str,
    out: Path,
    recipe: Literal["paper", "quick", "thorough", "small-lesions", "modern", "finetune"] | None = None,
    budget: BudgetFlags | None = None,
    cases: CaseFlags | None = None,
    held: HoldOutFlags | None = None,
    simulation: SimulationFlags | None = None,
    seed: int = 0,
    machine: MachineFlags | None = None,
    resume: Switch = False,
    origin: OriginFlags | None = None,
) -> None:
    """Train a model on cases with known lesions, on cases that are simulated meanwhile, or on both.

    Example: brainsegnet train BRATS/ --task brats2015 --out runs/first --minutes 15

    Example: brainsegnet train MINE/ --task brats2021 --from tumour --out runs/mine --minutes 10

    Example: brainsegnet train BRATS/ --task brats2021 --simulated 16 --out runs/both --hold-out pat0007

    Parameters
    ----------
    data
        Folders of cases as distributed (BRATS 2015 to 2023, ISLES 2017 and 2022, BIDS, Decathlon, nnU-Net; inspect
        tells), or tables case,sequence,path (.csv, .yaml). None are needed with --simulated.
    task
        brats2015, brats2021, brats2023, isles2017, isles2022, or a YAML file.
    out
        Folder for the models best/ and last/, the log and the state.
    recipe
        paper: as published. quick (the default): a CPU in minutes. thorough: a CPU in hours. foci: the same where
        lesions are many and small. modern: what we find best, for a GPU. tune (the default with --from): gently on from
        a trained model, the mean of its weights and the new.
    seed
        Governs all that is random.
    resume
        Continue the training in --out.
    """
    from brainsegnet.training.options import TrainOptions, Watch
    from brainsegnet.training.recipes import Budget
    from brainsegnet.training.train import train as run

    budget, cases, machine = budget or BudgetFlags(), cases or CaseFlags(), machine or MachineFlags()
    limits = Budget(**vars(budget)) if any(limit is not None for limit in vars(budget).values()) else None
    chosen = vars(cases) | vars(held or HoldOutFlags()) | vars(simulation or SimulationFlags()) | vars(machine)
    options = TrainOptions(recipe, limits, seed=seed, resume=resume, **chosen, **vars(origin or OriginFlags()))
    with training_progress() as step:
        run(data or [], task, out, options, Watch(say, step))
    if all(os.environ.get(rank, "0") == "0" for rank in RANKS):
        say(f"done; try: brainsegnet segment CASE --model {out} --out lesion.nii.gz")
        say(f"and for speed on a CPU, once: brainsegnet export {' '.join(map(str, (out, *(data or ()))))}")


@app.command
def export(model: Path, data: Paths | None = None, /) -> None:
    """Put a model into formats that run fast on a CPU, without torch: OpenVINO (floats and 8-bit integers), and ONNX.

    Example: brainsegnet export runs/first BRATS/

    Parameters
    ----------
    model
        Model folder, or the output folder of train; gets a folder export/.
    data
        Cases that the model was trained on: the ranges of 8-bit integers come from them. Without data, floats only.
    """
    from brainsegnet.training.export import export as run

    run(model, data or [], say)
