"""What the models are not for, as far as DICOM headers tell it: children, and other parts of the body."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainsegnet.io.dicom_headers import SeriesHeader

ADULT_YEARS = 18
_HEAD = re.compile(r"HEAD|BRAIN|SKULL|NEURO|CEREB|CRAN|ENCEPH|KOPF|HIRN|TETE|CABE")
"""Words for the head in headers, where some scanners write other languages."""


def find_scope_warnings(headers: Mapping[str, "SeriesHeader"]) -> list[str]:
    """Sentences on a patient or a part of the body that the models were not made for.

    Args:
        headers: Sequence to how it was acquired.
    """
    ages = [header.age_years for header in headers.values() if header.age_years is not None]
    said = []
    if ages and min(ages) < ADULT_YEARS:
        said.append(
            f"the patient is {min(ages):.0f} years old, and the models were made for adults; look at the result"
        )
    for name, header in headers.items():
        if header.body_part and not _HEAD.search(header.body_part.upper()):
            said.append(f"{name}: the header says that it shows {header.body_part}, not the head; look at the result")
    return said
