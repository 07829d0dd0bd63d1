"""The names that data sets use for sequences, tissues and regions, and the names that this package uses.

Channels are matched by name, never by position.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from brainsegnet.errors import DatasetError, describe_invalid
from brainsegnet.task import Task

UNITED = "necrosis + non-enhancing"
"""A tissue of two, which share a label."""
_SEQUENCES = {
    "flair": "flair t2flair flairw t2f fl",
    "t1": "t1 t1w t1n t1wi t1native",
    "t1c": "t1c t1ce t1gd t1wgd t1wce t1post t1wpost t1cw t1wc t1km t1contrast gdt1w cet1w cet1",
    "t2": "t2 t2w t2wi",
    "dwi": "dwi trace b1000",
    "adc": "adc adcmap",
    "mtt": "mtt",
    "ttp": "ttp",
    "tmax": "tmax",
    "rcbf": "rcbf cbf",
    "rcbv": "rcbv cbv",
    "pwi": "pwi 4dpwi",
}
ORDER = tuple(_SEQUENCES)
"""The order in which sequences are listed."""
_TISSUES = {
    "oedema": "edema peritumoraledema peritumoraledematousinvadedtissue ed snfh",
    "necrosis": "necrosis necrotic necroticcore necrotictumor necrotictumorcore ncr",
    "non-enhancing": "nonenhancing nonenhancingtumor net",
    UNITED: "necrosisnonenhancing ncrnet netc nonenhancingtumorcore necroticandnonenhancingtumor "
    "necroticandnonenhancingtumorcore necroticnonenhancingtumorcore",
    "enhancing": "enhancing enhancingtumor et gdenhancingtumor contrastenhancingtumor",
    "infarct": "infarct infarction stroke strokelesion ischemicstroke ischemiclesion ischemicstrokelesion",
    "white-matter lesion": "whitematterlesion wmlesion mslesion multiplesclerosislesion",
}
_REGIONS = {"whole": "wholetumor whole wt", "core": "tumorcore core tc", "enhancing": "enhancingtumor enhancing et"}


_SEQUENCE_OF, _TISSUE_OF, _REGION_OF = (
    {word: name for name, others in words.items() for word in others.split()}
    for words in (_SEQUENCES, _TISSUES, _REGIONS)
)


def find_sequence(name: str) -> str:
    """The name that this package uses for a sequence; an unknown one keeps its own, in lower case.

    Examples:
        >>> [find_sequence(name) for name in ("FLAIR", "T1w", "t1gd", "T2w", "rCBF", "DCE-Ktrans")]
        ['flair', 't1', 't1c', 't2', 'rcbf', 'dce_ktrans']
    """
    plain = re.sub("[^a-z0-9]", "", name.lower())
    return _SEQUENCE_OF.get(plain, re.sub("[^a-z0-9]+", "_", name.lower()).strip("_"))


def find_tissue(name: str) -> str:
    """The name that this package uses for a tissue; an unknown one keeps its own, in lower case.

    Examples:
        >>> [find_tissue(name) for name in ("edema", "GD-enhancing tumour", "Hippocampus head")]
        ['oedema', 'enhancing', 'hippocampus head']
    """
    return _TISSUE_OF.get(_plain(name), name.strip().lower())


def build_convention(name: str, channels: Sequence[str], labels: Mapping[str, Any], where: str) -> Task | None:
    """The label convention of a `dataset.json`: value to tissue, or tissue to value, or region to values.

    Tissues get the names of this package. If non-enhancing tumour is labelled and necrosis is not, the two share a
    label. This is so in the gliomas of the Medical Segmentation Decathlon, which come from BraTS 2016 and 2017. The
    result is None if the labels are unknown regions; values then mean what the task says.

    Raises:
        DatasetError: the labels in the file `where` contradict themselves.

    Examples:
        >>> decathlon = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
        >>> dict(build_convention("BRATS", ("flair",), decathlon, "dataset.json").labels)
        {1: 'oedema', 2: 'necrosis + non-enhancing', 3: 'enhancing'}
    """
    try:
        if (tissues := _read_labels(labels)) is None:
            return None
        if "necrosis" not in tissues.values():
            tissues = {value: UNITED if tissue == "non-enhancing" else tissue for value, tissue in tissues.items()}
        regions = {tissue: (value,) for value, tissue in tissues.items()}
        return Task(name=name, sequences=tuple(channels), labels=tissues, regions=regions)
    except ValidationError as error:
        raise DatasetError(f"{where}: {describe_invalid(error.errors()[0])}; mend it") from error
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: labels {labels} are no names and values; mend them") from error


def _plain(name: str) -> str:
    """A tissue's or region's name in letters alone, spelt the American way."""
    letters = re.sub("[^a-z]", "", name.lower())
    return letters.replace("tumour", "tumor").replace("oedema", "edema").replace("ischaemic", "ischemic")


def _read_labels(labels: Mapping[str, Any]) -> dict[int, str] | None:
    if any(isinstance(value, list) for value in labels.values()):
        return _split_regions(labels)
    pairs = labels.items() if all(key.isdigit() for key in labels) else zip(labels.values(), labels, strict=True)
    named = {int(value): str(tissue) for value, tissue in pairs}
    return {value: find_tissue(tissue) for value, tissue in sorted(named.items()) if value and tissue != "ignore"}


def _split_regions(regions: Mapping[str, Any]) -> dict[int, str] | None:
    """Nested regions of a glioma as tissues; None if they are others, or if a tissue has two values."""
    listed = {key: value if isinstance(value, list) else [value] for key, value in regions.items()}
    found = {_REGION_OF.get(_plain(key)): set(values) for key, values in listed.items()}
    if not found.keys() >= _REGIONS.keys():
        return None
    whole, core, enhancing = (found[name] for name in _REGIONS)
    parts = {"oedema": whole - core, UNITED: core - enhancing, "enhancing": enhancing}
    if any(len(values) != 1 for values in parts.values()):
        return None
    return dict(sorted((values.pop(), tissue) for tissue, values in parts.items()))
