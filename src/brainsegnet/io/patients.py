"""Which cases are scans of one patient, as far as their names show."""

import re
from functools import cache

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


@cache
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
