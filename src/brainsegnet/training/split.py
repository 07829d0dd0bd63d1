"""Which cases a training uses, which are held out, and with which sequences; and folds by patient."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet.errors import DatasetError, MissingSequence, ModelError
from brainsegnet.io.cases import CaseFiles, check_whole, common_sequences, find_cases, load_case
from brainsegnet.model.card import Card, Simulated
from brainsegnet.task import Task
from brainsegnet.training import TrainOptions
from brainsegnet.training.simulated import plan_simulation

if TYPE_CHECKING:
    from brainsegnet.training.sampler import Scan

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
    """The patient whose scan a case is, as far as its name shows; else the case itself.

    BraTS 2023 holds scans of BraTS 2021 under the same numbers, so both count as one patient. BraTS 2020 has its own
    numbers, and one scan of each patient.

    Examples:
        >>> patient_of("BraTS-GLI-00006-001") == patient_of("BraTS-GLI-00006-000") == patient_of("BraTS2021_00006")
        True
        >>> patient_of("brats_tcia_pat105_0012"), patient_of("sub-strokecase0001_ses-0001"), patient_of("training_4")
        ('brats_tcia_pat105', 'sub-strokecase0001', 'training_4')
    """
    for pattern, form in _PATIENTS:
        if match := pattern.fullmatch(case):
            return form.format(match[1])
    return case


def deal_folds(cases: Sequence[str], folds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Divide cases, by name, into folds of about the same size, with all scans of a patient in one fold.

    The seed decides which cases share a fold. The order of `cases` does not matter.

    Raises:
        DatasetError: there are fewer than two folds, or fewer patients than folds.

    Examples:
        >>> deal_folds(["b_0", "a_0", "c_0"], 3, seed=1)
        (('a_0',), ('b_0',), ('c_0',))
    """
    patients = _by_patient(sorted(cases))
    if folds < 2:
        raise DatasetError(f"there must be at least 2 folds, one to test on and one to train on, not {folds}")
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


def _by_patient(cases: Iterable[str]) -> dict[str, list[str]]:
    patients: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        patients[patient_of(case)].append(case)
    return patients


def check_distinct(scored: Mapping[str, "Scan"], trained: Mapping[str, "Scan"]) -> None:
    """Check that no scored scan, given by name, is also a training scan under another name.

    Raises:
        DatasetError: two cases hold the same intensities.
    """
    shapes = {scan.image.shape for scan in scored.values()}
    known = {_digest(scan): name for name, scan in trained.items() if scan.image.shape in shapes}
    for name, scan in scored.items():
        if (other := known.get(_digest(scan), name)) != name:
            raise DatasetError(
                f"cases {name} and {other} hold the same scan, so one would be scored by a model that was trained on "
                "the other; exclude one of the two"
            )


def _digest(scan: "Scan") -> tuple[object, ...]:
    return scan.image.shape, hash(scan.image.tobytes())


@dataclass(frozen=True)
class DataSplit:
    """The cases of a training, those that are held out, and how they are read.

    Attributes:
        task: The task.
        sequences: Sequences in the order of the channels.
        training: Cases to train on.
        validation: Held-out cases.
        resample: Whether volumes on other grids are resampled.
        register: Whether sequences on other grids are registered.
        simulated: Cases that are simulated in addition, or None.
    """

    task: Task
    sequences: tuple[str, ...]
    training: Sequence[CaseFiles]
    validation: Sequence[CaseFiles] = ()
    resample: bool = False
    register: bool = False
    simulated: Simulated | None = None


def split_cases(data: Sequence[Path], task: Task, options: TrainOptions) -> DataSplit:
    """Find the cases in folders or tables, and decide which are held out and which sequences are used.

    All scans of a patient stay together.

    Raises:
        DatasetError: there is no case to train on, a name belongs to no case, or a file is absent or incomplete. Or the
            patient of a held-out case has another scan in the training.
        MissingSequence: a case lacks a sequence that was named, or all cases share none.
        TaskError: the cases to simulate do not fit the task.
    """
    if not data and options.simulated is None:
        raise DatasetError(
            "there is nothing to train on; name folders of cases, or simulate cases in memory with --simulated"
        )
    found = find_cases(data)
    names = {case.name for case in found}
    if unknown := sorted({*options.hold_out, *options.exclude} - names):
        raise DatasetError(f"no case is called {', '.join(unknown)}; the cases are {', '.join(sorted(names))}")
    cases = [case for case in found if case.name not in options.exclude]
    if unlabelled := [case.name for case in cases if case.lesion is None]:
        more = f" (and {len(unlabelled) - 1} more)" if len(unlabelled) > 1 else ""
        raise DatasetError(f"case {unlabelled[0]} has no label map to learn from; add it, or exclude the case{more}")
    held = set(options.hold_out) or _draw_held_out(cases, options)
    training = [case for case in cases if case.name not in held]
    if not training and options.simulated is None:
        raise DatasetError(
            f"no case is left to train on: {len(found)} found, {len(found) - len(cases)} excluded, {len(held)} held "
            "out; add cases, or hold out fewer"
        )
    sequences = _named_sequences(options.sequences, cases, task) if options.sequences else common_sequences(cases, task)
    check_patients(training, held)
    check_whole(cases, sequences)
    validation = [case for case in cases if case.name in held]
    simulated = plan_simulation(options, task, sequences)
    return DataSplit(task, sequences, training, validation, options.resample, options.register, simulated)


def check_same(split: DataSplit, card: Card, where: Path) -> None:
    """Check that a training is resumed with the same cases and sequences, because held-out cases must stay unseen.

    Raises:
        ModelError: the card of the training in the folder `where` names others.
    """
    note = card.training
    compared = {
        "task": ({card.task.name}, {split.task.name}),
        "sequences": (set(card.sequences), set(split.sequences)),
        "training cases": (set(note.data.cases), {case.name for case in split.training}),
        "held-out cases": (set(note.held_out), {case.name for case in split.validation}),
    }
    for what, (before, now) in compared.items():
        if changed := before ^ now:
            raise ModelError(
                f"{where} holds a training with other {what} ({', '.join(sorted(changed))} differ); resume with the "
                "arguments it had"
            )


def load_scans(
    cases: Sequence[CaseFiles], split: DataSplit, say: Callable[[str], None] = lambda text: None
) -> Mapping[str, "Scan"]:
    """Read and prepare cases of a split. `say` receives a sentence for each doubtful registration.

    Raises:
        BrainSegNetError: a case cannot be used; the text names the case and the reason.
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

    with ThreadPoolExecutor(2) as pool:
        return dict(zip((case.name for case in cases), pool.map(load, cases), strict=True))


Reader = Callable[[Sequence[CaseFiles], DataSplit, Callable[[str], None]], Mapping[str, "Scan"]]
"""Gives the scans of some cases of a split, as `load_scans` does."""


def _draw_held_out(cases: Sequence[CaseFiles], options: TrainOptions) -> set[str]:
    """Patients in random order, until there are as many scans as asked for, or one in eight.

    A patient whose scans would be too many stays in the training, unless none is held out yet.
    """
    count = len(cases) // 8 if options.validation is None else options.validation
    patients = list(_by_patient(case.name for case in cases).values())
    held: set[str] = set()
    for i in np.random.default_rng(options.seed).permutation(len(patients)):
        if len(held) + len(patients[i]) <= count or (count and not held):
            held.update(patients[i])
    return held


def check_patients(training: Sequence[CaseFiles], held: Collection[str]) -> None:
    """Check that no patient of a held-out case has another scan in the training.

    Raises:
        DatasetError: a patient has.
    """
    trained = {patient_of(case.name): case.name for case in training}
    for name in sorted(held):
        if other := trained.get(patient_of(name)):
            raise DatasetError(
                f"case {name} is held out, but {other} of the same patient is trained on; hold {other} out too, or "
                "exclude it"
            )


def _named_sequences(named: Sequence[str], cases: Sequence[CaseFiles], task: Task) -> tuple[str, ...]:
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
