"""Folds by patient: all scans of a patient are in one of them.

Who takes part in a training: which cases learn, which are held out, and which sequences all of them have.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError, MissingSequence, ModelError
from brainsegnet.io.cases import CaseFiles, check_whole, common_sequences, find_cases, load_case
from brainsegnet.model.card import Card, Parent, Simulated
from brainsegnet.task import Task
from brainsegnet.training.options import TrainOptions
from brainsegnet.training.simulated import plan_simulation

if TYPE_CHECKING:
    from brainsegnet.training.sampler import Scan
    from brainsegnet.training.simulated import SimulationBuffer

_PATIENTS = (
    (re.compile(r"BraTS-[A-Za-z]+-(\d+)-\d+"), "BraTS {}"),
    (re.compile(r"BraTS(?:2021)?(?:_Training|_Validation)?_(\d+)"), "BraTS {}"),
    (re.compile(r"BraTS20_((?:Training|Validation)_\d+)"), "BraTS 2020 {}"),
    (re.compile(r"(?:[HL]GG_)?Brats1[789]_(\w+)_\d+", re.IGNORECASE), "{}"),
    (re.compile(r"((?:[HL]GG_)?brats_\w+_pat\d+)_\d+"), "{}"),
    (re.compile(r"(sub-[^_]+)(?:_.*)?"), "{}"),
)
"""How the public data sets name the scans of a patient: BraTS 2023, 2021, 2020, 2017 to 2019, 2015, and BIDS.

A grade stands before a name of BraTS 2015 where another patient of the other grade has the same name.
"""


def patient_of(case: str) -> str:
    """The patient whose scan a case is, as far as its name tells; else the case itself.

    BraTS 2023 holds scans of BraTS 2021 under the same numbers, so both count as one patient's; BraTS 2020 has numbers
    of its own, and one scan of each patient.

    >>> patient_of("BraTS-GLI-00006-001") == patient_of("BraTS-GLI-00006-000") == patient_of("BraTS2021_00006")
    True
    >>> patient_of("brats_tcia_pat105_0012"), patient_of("sub-strokecase0001_ses-0001"), patient_of("training_4")
    ('brats_tcia_pat105', 'sub-strokecase0001', 'training_4')
    >>> patient_of("HGG_brats_tcia_pat105_1"), patient_of("BraTS20_Training_001")
    ('HGG_brats_tcia_pat105', 'BraTS 2020 Training_001')
    >>> patient_of("Brats18_TCIA08_469_1") == patient_of("BraTS19_TCIA08_469_1")
    True
    """
    for pattern, form in _PATIENTS:
        if match := pattern.fullmatch(case):
            return form.format(match[1])
    return case


def deal_folds(cases: Sequence[str], folds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Cases dealt into folds of about the same size, no patient in two of them.

    Args:
        cases: Their names.
        folds: How many; each is tested on by what was trained on the others.
        seed: Decides who is with whom; the order of `cases` does not.

    Raises:
        DatasetError: fewer than two folds, or fewer patients than folds.

    >>> deal_folds(["b_0", "a_0", "c_0"], 3, seed=1)
    (('a_0',), ('b_0',), ('c_0',))
    """
    patients: defaultdict[str, list[str]] = defaultdict(list)
    for case in sorted(cases):
        patients[patient_of(case)].append(case)
    if folds < 2:
        raise DatasetError(f"a comparison needs at least 2 folds, one to test on and one to train on, not {folds}")
    if len(patients) < folds:
        raise DatasetError(
            f"{len(cases)} cases of {len(patients)} patients cannot be dealt into {folds} folds; add cases, or lower "
            "the number of folds"
        )
    dealt: list[list[str]] = [[] for _ in range(folds)]
    names = list(patients)
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    for name in sorted(shuffled, key=lambda patient: -len(patients[patient])):
        min(dealt, key=len).extend(patients[name])
    return tuple(map(tuple, dealt))


def check_unseen(name: str, image: NDArray[np.float32], trained: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse to score a scan that is trained on under another name.

    Args:
        name: Of the held-out case.
        image: Its intensities (C, D, H, W).
        trained: Case name to intensities (C, D, H, W).

    Raises:
        DatasetError: one of them is the same.
    """
    for other, known in trained.items():
        if np.array_equal(known, image):
            raise DatasetError(
                f"case {name} is held out and holds the same scan as case {other}, which is trained on, so its score "
                "would be of what the model has seen; exclude one of the two"
            )


def check_distinct(images: Mapping[str, NDArray[np.float32]]) -> None:
    """Refuse a scan that is there under two names: it would be tested on by what was trained on it.

    Args:
        images: Case name to intensities (C, D, H, W).

    Raises:
        DatasetError: two cases hold the same intensities.
    """
    known: dict[tuple[object, ...], str] = {}
    for name, image in images.items():
        key = (image.shape, hash(image.tobytes()))
        other = known.setdefault(key, name)
        if other != name and np.array_equal(images[other], image):
            raise DatasetError(
                f"cases {other} and {name} hold the same scan, so one would be tested on by a network that was trained "
                "on the other; exclude one of the two"
            )


@dataclass(frozen=True)
class DataSplit:
    """Which cases are trained on, which are held out, and the sequences in the order of the channels.

    `resample` and `register` say what becomes of label maps and sequences on other grids; see `TrainOptions`. `parent`
    is the model whose weights the training starts from, `margin` that of the components which it drops. `simulated`
    says what is simulated beside the cases, `pool` holds it.
    """

    task: Task
    sequences: tuple[str, ...]
    training: Sequence[CaseFiles]
    validation: Sequence[CaseFiles]
    resample: bool = False
    register: bool = False
    parent: Parent | None = None
    margin: float | None = None
    simulated: Simulated | None = None
    buffer: "SimulationBuffer | None" = None


def split_cases(data: Sequence[Path], task: Task, options: "TrainOptions") -> DataSplit:
    """Find the cases, and decide which are held out and which sequences are used; all scans of a patient go together.

    Raises:
        DatasetError: no case to train on and none simulated, a name that no case has, a case named to be held out whose
            patient has another scan in the training, or a file that is absent, empty or cut short.
        MissingSequence: a case lacks a sequence that was named, or all share none.
        TaskError: cases are to be simulated that do not fit the task.
    """
    if not data and options.simulated is None:
        raise DatasetError(
            "there is nothing to train on; name folders of cases, or grow cases in memory with --simulated"
        )
    found = find_cases(data)
    names = {case.name for case in found}
    if unknown := sorted({*options.hold_out, *options.exclude} - names):
        raise DatasetError(f"no case is called {', '.join(unknown)}; the cases are {', '.join(sorted(names))}")
    cases = [case for case in found if case.name not in options.exclude]
    if unlabelled := [case.name for case in cases if case.lesion is None]:
        more = f" (and {len(unlabelled) - 1} more)" if len(unlabelled) > 1 else ""
        raise DatasetError(f"case {unlabelled[0]} has no label map to learn from; add it, or exclude the case{more}")
    held = set(options.hold_out) or _drawn(cases, options)
    training = [case for case in cases if case.name not in held]
    if not training and options.simulated is None:
        raise DatasetError(
            f"no case is left to train on: {len(found)} found, {len(found) - len(cases)} excluded, {len(held)} held "
            "out; add cases, or hold out fewer"
        )
    sequences = _choose(options.sequences, cases, task) if options.sequences else common_sequences(cases, task)
    part_patients(training, held)
    check_whole(cases, sequences)
    validation = [case for case in cases if case.name in held]
    simulated = plan_simulation(options, task, sequences)
    return DataSplit(task, sequences, training, validation, options.resample, options.register, simulated=simulated)


def check_same(split: DataSplit, card: Card, where: Path) -> None:
    """Refuse to resume a training with other cases or sequences: what was held out must stay unseen.

    Raises:
        ModelError: the card of the training that is in `where` says otherwise.
    """
    before = {
        "task": {card.task.name},
        "sequences": set(card.sequences),
        "training cases": set(card.training.data.cases),
        "held-out cases": set(card.training.held_out),
    }
    now = {
        "task": {split.task.name},
        "sequences": set(split.sequences),
        "training cases": {case.name for case in split.training},
        "held-out cases": {case.name for case in split.validation},
    }
    for what, names in before.items():
        if changed := names ^ now[what]:
            raise ModelError(
                f"{where} holds a training with other {what} ({', '.join(sorted(changed))} differ); resume with the "
                "arguments it had"
            )


def load_scans(
    cases: Sequence[CaseFiles], split: DataSplit, say: Callable[[str], None] = lambda text: None
) -> list["Scan"]:
    """Read and prepare cases, a few at a time; `say` is told of each doubtful registration.

    Raises:
        BrainSegNetError: a case cannot be used; one sentence says which and why.
    """
    from brainsegnet.preprocessing.alignment import Aligner
    from brainsegnet.training.sampler import Scan

    def load(files: CaseFiles) -> Scan:
        aligner = Aligner(files.name, split.register)
        align = aligner if split.resample or split.register else None
        case = load_case(files, split.sequences, split.task, lesion=True, align=align)
        for sequence, warning in aligner.warnings.items():
            say(f"case {files.name}: {sequence}: {warning}")
        return Scan.of(case, split.task)

    with ThreadPoolExecutor(2) as buffer:
        return list(buffer.map(load, cases))


Read = Callable[[Sequence[CaseFiles], DataSplit, Callable[[str], None]], list["Scan"]]
"""Gives the scans of some cases of a roster, as `load_scans` does."""


def load_split(
    split: DataSplit, scored: bool, read: Read = load_scans, say: Callable[[str], None] = lambda text: None
) -> tuple[list["Scan"], list["Scan"]]:
    """What is trained on, and, if it is to be scored, what is held out; errors as `load_scans`.

    Raises:
        DatasetError: a scan is among both, under two names.
    """
    scans = read(split.training, split, say)
    held_out = read(split.validation, split, say) if scored else []
    named = {files.name: scan.image for files, scan in zip(split.training, scans, strict=True)}
    for files, scan in zip(split.validation, held_out, strict=False):
        check_unseen(files.name, scan.image, named)
    return scans, held_out


def _drawn(cases: Sequence[CaseFiles], options: "TrainOptions") -> set[str]:
    """Names of the cases held out by the seed: patients in drawn order, until as many scans as asked for.

    One in eight where no number is asked for; a patient whose scans would be more than that stays in the training,
    unless none is held out yet.
    """
    count = len(cases) // 8 if options.validation is None else options.validation
    scans: dict[str, list[str]] = {}
    for case in cases:
        scans.setdefault(patient_of(case.name), []).append(case.name)
    patients = list(scans)
    drawn = [scans[patients[i]] for i in np.random.default_rng(options.seed).permutation(len(patients))]
    held: set[str] = set()
    for names in drawn:
        if len(held) + len(names) <= count or (count and not held):
            held.update(names)
    return held


def part_patients(training: Sequence[CaseFiles], held: Collection[str]) -> None:
    """Refuse a held-out case whose patient has another scan in the training.

    Raises:
        DatasetError: there is one.
    """
    trained = {patient_of(case.name): case.name for case in training}
    for name in sorted(held):
        if other := trained.get(patient_of(name)):
            raise DatasetError(
                f"case {name} is held out, but {other} of the same patient is trained on; hold {other} out too, or "
                "exclude it"
            )


def _choose(named: Sequence[str], cases: Sequence[CaseFiles], task: Task) -> tuple[str, ...]:
    """The sequences that were named, in the task's order."""
    if unknown := [name for name in named if name not in task.sequences]:
        raise MissingSequence(f"task {task.name} has no sequence {unknown[0]}; choose from {', '.join(task.sequences)}")
    for case in cases:
        if lacking := [name for name in named if name not in case.images]:
            raise MissingSequence(
                f"case {case.name} has no {', '.join(lacking)}, only {', '.join(case.images)}; exclude the case, or "
                "name sequences that every case has"
            )
    return tuple(name for name in task.sequences if name in named)
