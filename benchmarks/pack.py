"""Pack prepared cases into one small file, to be trained on where only torch is installed (see train_packed.py).

    python benchmarks/pack.py FOLDER [FOLDER ...] --task brats2021 --out packed/brats2021.npz
    python benchmarks/pack.py FOLDER --anatomies --out packed/anatomies.npz

With --anatomies the folder holds FreeSurfer's label maps, in which train_packed.py --simulated simulates its cases. The
folder `packed/` is ignored by git: scans of patients do not belong into a repository.
"""

import argparse
from pathlib import Path

from brainsegnet.task import load_task
from brainsegnet.training import TrainOptions
from brainsegnet.training.split import load_scans, split_cases
from release.packed import Pack, pack_anatomies, write_pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--task")
    parser.add_argument("--anatomies", action="store_true")
    parser.add_argument("--sequences", nargs="*", default=())
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if bool(arguments.task) == arguments.anatomies:
        parser.error("name the task of the cases, or say --anatomies")
    if arguments.anatomies:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        count = pack_anatomies(arguments.data[0], arguments.out)
        print(f"{count} anatomies, {arguments.out.stat().st_size / 1e6:.1f} MB")
        return
    task = load_task(arguments.task)
    split = split_cases(arguments.data, task, TrainOptions(validation=0, sequences=tuple(arguments.sequences)))
    scans = load_scans(split.training, split)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_pack(Pack(task.name, split.sequences, scans), arguments.out)
    print(f"{len(scans)} cases, {', '.join(split.sequences)}, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
