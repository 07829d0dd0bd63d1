"""Train on a pack of prepared scans (see pack.py) to a time limit, without a library for images or OpenVINO.

    python benchmarks/train_packed.py packed/brats2021.npz --recipe modern --minutes 9 --out runs/gpu
    python benchmarks/train_packed.py packed/brats2021.npz --recipe modern --minutes 18 --out runs/gpu --resume
    python benchmarks/train_packed.py --task brats2021 --simulated 32 --anatomy packed/anatomies.npz --out runs/own
    python benchmarks/train_packed.py packed/brats2021.npz --from benchmarks/parents/tumour --minutes 4 --out runs/tuned

The output folder holds the model folders best/ and last/ and the state for resuming, with the cards that `brainsegnet
train` writes; `brainsegnet segment` and `release` take them. Cases named with --hold-out are scored ten times on the
way and never trained on. With --simulated, gliomas are simulated on the GPU, or strokes on the CPU, beside the cases of
the pack, if one is named, in anatomies that pack.py has packed or in procedural ones.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from brainsegnet.errors import DatasetError
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.progress import Callback, ProgressEvent
from brainsegnet.task import load_task
from brainsegnet.training import TrainOptions
from brainsegnet.training.recipes import FINETUNE, MODERN, RECIPES
from brainsegnet.training.sampler import Scan
from brainsegnet.training.simulated import plan_simulation
from brainsegnet.training.split import DataSplit, check_patients
from brainsegnet.training.train import train_split
from release.packed import Pack, read_pack


def split_cases(pack: Pack, options: TrainOptions) -> DataSplit:
    """The cases of a pack that are trained on, those that are held out, and what is simulated beside them.

    Raises:
        DatasetError: the pack has no case of a name, one patient's cases are on either side, or none is left to train
            on and none simulated.
    """
    if lost := sorted(set(options.hold_out) - set(pack.scans)):
        raise DatasetError(f"the pack has no case {lost[0]}; it has {', '.join(pack.scans)}")
    cases = [CaseFiles(name, {}) for name in pack.scans]
    training = [case for case in cases if case.name not in options.hold_out]
    if not training and options.simulated is None:
        raise DatasetError("no case is left to train on; hold out fewer")
    check_patients(training, options.hold_out)
    task, held = load_task(pack.task), [case for case in cases if case.name in options.hold_out]
    return DataSplit(task, pack.sequences, training, held, simulated=plan_simulation(options, task, pack.sequences))


class Printer(Callback):
    """Prints sentences, and an event every ten seconds as JSON."""

    def __init__(self) -> None:
        self.printed = time.monotonic()

    def on_message(self, text: str) -> None:
        """Print a sentence."""
        print(text, flush=True)

    def on_progress(self, event: ProgressEvent) -> None:
        """Print an event, if it is time, or if it has scores."""
        if event.dice or time.monotonic() - self.printed > 10:
            self.printed = time.monotonic()
            print(json.dumps({name: value for name, value in vars(event).items() if value is not None}), flush=True)


def train(pack: Pack, options: TrainOptions, out: Path) -> None:
    """As `brainsegnet.train`, on scans that are in memory already; events go to standard output too."""

    def read(cases: Sequence[CaseFiles], split: DataSplit, say: Callable[[str], None]) -> dict[str, Scan]:
        return {case.name: pack.scans[case.name] for case in cases}

    train_split(split_cases(pack, options), out, options, Printer(), read)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path, nargs="?")
    parser.add_argument("--task", help="where no pack is named")
    parser.add_argument(
        "--recipe", choices=RECIPES, help="by default modern, and finetune for a training that starts from a model"
    )
    parser.add_argument("--from", dest="start", type=Path, help="model that the training starts from")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="over all resumed parts")
    length.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--hold-out", nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--simulated", type=int, help="simulated cases in memory")
    parser.add_argument("--refresh-every", type=int, help="steps after which one of them is replaced; by default 40")
    parser.add_argument("--anatomy", help="anatomies packed by pack.py, or procedural (the default of gliomas)")
    parser.add_argument("--licence", default=TrainOptions.licence, help="of the weights, for the card")
    parser.add_argument("--sources", default=TrainOptions.sources, help="of the cases, and their terms")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if arguments.pack is None and not (arguments.task and arguments.simulated):
        parser.error("name a pack to train on, or a task and how many cases to simulate")
    task = arguments.task
    pack = read_pack(arguments.pack) if arguments.pack else Pack(task, load_task(task).sequences, {})
    options = TrainOptions(
        recipe=RECIPES[arguments.recipe] if arguments.recipe else FINETUNE if arguments.start else MODERN,
        steps=arguments.steps,
        minutes=arguments.minutes,
        hold_out=tuple(arguments.hold_out),
        seed=arguments.seed,
        resume=arguments.resume,
        licence=arguments.licence,
        sources=arguments.sources,
        start=arguments.start,
        simulated=arguments.simulated,
        refresh_every=arguments.refresh_every,
        anatomy=arguments.anatomy,
    )
    train(pack, options, arguments.out)


if __name__ == "__main__":
    main()
