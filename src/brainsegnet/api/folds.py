"""Folds by patient: all scans of a patient are in one of them."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from brainsegnet.errors import DatasetError

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
