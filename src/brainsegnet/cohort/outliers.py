"""Which results of a cohort are unlike the others: volumes, how far sequences were moved, how well they agree.

A value is an outlier if its robust z is beyond 3.5: its distance from the median, in units of 1.4826 times the median
absolute deviation (Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers"). Volumes and motions are compared on
the log scale.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from brainsegnet._types import Doubles
from brainsegnet.plotting.viewer import get

LIMIT = 3.5
"""Robust z beyond which a value is an outlier."""
LEAST_CASES = 20
"""Among fewer values, none is called an outlier."""
RARE = 0.1
"""Share of the cohort up to which a volume of zero is an outlier."""
MeasureKind = Literal["volume", "brain", "moved", "turned", "agreement"]
_NUMBER = re.compile(r"(?<!\w)\d+(?:[.,]\d+)*(?!\w)")
_NONE = "of 0 ml"


@dataclass(frozen=True)
class _Rule:
    """How the values of a kind are compared, and told.

    Attributes:
        told: A value in words.
        low: What a low outlier is, in one word; empty if low values are none.
        high: The same for high values.
        spread: The least spread that a cohort is taken to have, on the scale of the comparison.
        floor: Values below this one count as equal; None compares on the linear scale.
    """

    told: str
    low: str
    high: str
    spread: float
    floor: float | None


_RULES: Mapping[MeasureKind, _Rule] = {
    "volume": _Rule("of {} ml", "smaller", "larger", 0.05, 1e-6),
    "brain": _Rule("of {} ml", "smaller", "larger", 0.02, 1e-6),
    "moved": _Rule("was moved by {} mm", "", "further", 0.2, 0.5),
    "turned": _Rule("was turned by {} degrees", "", "further", 0.2, 0.5),
    "agreement": _Rule("agrees with the reference by {} nats", "less", "", 0.02, None),
}


@dataclass(frozen=True)
class Measure:
    """Something that each result has one number for.

    Attributes:
        kind: Volume of a region or of the brain in ml; millimetres or degrees by which a sequence was moved; or its
            agreement with the reference after that, as mutual information in nats.
        name: The region or sequence.
    """

    kind: MeasureKind
    name: str = ""


@dataclass(frozen=True)
class Reason:
    """Why a result is an outlier.

    Attributes:
        strength: How unusual it is: about the number of standard deviations from the median.
        sentence: The same in words.
    """

    strength: float
    sentence: str


def measure_note(note: Mapping[str, Any]) -> dict[Measure, float]:
    """What the JSON of a result tells that can be compared over a cohort.

    Examples:
        >>> moved = {"t2": {"how": "registered", "translation_mm": 3.0, "rotation_degrees": 1.5}}
        >>> {measure.kind: value for measure, value in measure_note({"geometry": {"moved": moved}}).items()}
        {'moved': 3.0, 'turned': 1.5}
    """
    brain, head = get(note, "brain"), get(note, "head")
    stripped = str(head.get("skull")).startswith("stripped")
    told: list[tuple[MeasureKind, str, object]] = [
        *(("volume", region, ml) for region, ml in get(note, "volumes_ml", "regions").items()),
        ("brain", "", brain.get("volume_ml", head.get("volume_ml") if stripped else None)),
    ]
    motions = {**get(note, "geometry", "in_place"), **get(note, "geometry", "moved")}
    for sequence, motion in motions.items():
        if isinstance(motion, dict):
            told += [("moved", sequence, motion.get("translation_mm"))]
            told += [("turned", sequence, motion.get("rotation_degrees"))]
            told += [("agreement", sequence, motion.get("mutual_information_after"))]
    numbers = ((kind, name, value) for kind, name, value in told if isinstance(value, int | float))
    return {_measure(kind, name): float(value) for kind, name, value in numbers if np.isfinite(value)}


def find_outliers(cases: Sequence[Mapping[Measure, float]], tumour: bool = False) -> list[list[Reason]]:
    """Why each of several results is an outlier, the strongest reason first; nothing for most.

    Args:
        cases: What is known of each result.
        tumour: Whether the regions are those of a tumour, for the words.
    """
    reasons: list[list[Reason]] = [[] for _ in cases]
    for measure in dict.fromkeys(measure for case in cases for measure in case):
        places = [place for place, case in enumerate(cases) if measure in case]
        values = np.array([cases[place][measure] for place in places])
        for index, reason in _judge(measure, values, name_measure(measure, tumour)):
            reasons[places[index]].append(reason)
    joined = map(_join_zeros, cases, reasons)
    return [sorted(found, key=lambda reason: -reason.strength) for found in joined]


def name_measure(measure: Measure, tumour: bool) -> str:
    """The region, brain or sequence in words.

    Examples:
        >>> name_measure(Measure("volume", "core"), True), name_measure(Measure("volume", "all"), False)
        ('tumour core', 'lesion')
    """
    if measure.kind == "brain":
        return "brain"
    if measure.kind == "volume":
        known = {"whole": "whole tumour", "core": "tumour core", "enhancing": "enhancing tumour"} if tumour else {}
        return {"all": "lesion", **known}.get(measure.name, measure.name)
    return measure.name


def tell_share(share: float) -> str:
    """A share as a percentage that is not rounded up.

    Examples:
        >>> tell_share(0.5), tell_share(0.9996), tell_share(0.0012)
        ('50 %', '99.9 %', '0.1 %')
    """
    digits = 1 if share > 0.99 or share < 0.01 else 0
    return f"{int(share * 10 ** (2 + digits) + 1e-9) / 10**digits:.{digits}f} %"


def describe_kind(sentence: str, case: str) -> str:
    """A sentence without its case and numbers, so that those of one kind are equal.

    Examples:
        >>> describe_kind("case p12: t2 was moved by 7.5 mm", "p12")
        't2 was moved by … mm'
    """
    said = sentence.removeprefix(f"case {case}: ")
    return _NUMBER.sub("…", re.sub(rf"(?<!\w){re.escape(case)}(?!\w)", "…", said))


def count_kinds(cases: Iterable[tuple[str, Sequence[str]]]) -> Counter[str]:
    """How many cases have each kind of sentence, of pairs of case and sentences."""
    return Counter(kind for case, said in cases for kind in {describe_kind(one, case) for one in said})


@cache
def _measure(kind: MeasureKind, name: str) -> Measure:
    return Measure(kind, name)


def _judge(measure: Measure, values: Doubles, name: str) -> Iterator[tuple[int, Reason]]:
    """Index and reason of each outlier among the values of a measure."""
    if len(values) < LEAST_CASES:
        return
    judged, rule = np.arange(len(values)), _RULES[measure.kind]
    if measure.kind == "volume":
        none, judged = np.flatnonzero(values <= 0), np.flatnonzero(values > 0)
        if 0 < (share := len(none) / len(values)) <= RARE:
            told = f"{name} {_NONE}, as in {tell_share(share)} of the cohort"
            reason = Reason(-NormalDist().inv_cdf(share / 2), told)
            yield from ((index, reason) for index in none.tolist())
    if len(judged) < LEAST_CASES:
        return
    others = values[judged]
    for index, z in zip(judged.tolist(), score(others, rule.spread, rule.floor).tolist(), strict=True):
        if (word := rule.low if z < 0 else rule.high) and abs(z) > LIMIT:
            value = float(values[index])
            share = np.count_nonzero(others > value if z < 0 else others < value) / (len(others) - 1)
            than = "all others" if share == 1 else f"{tell_share(share)} of the cohort"
            amount = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
            yield index, Reason(abs(z), f"{name} {rule.told.format(amount)}: {word} than {than}")


def score(values: Doubles, spread: float, floor: float | None) -> Doubles:
    """The robust z of each of several values.

    Args:
        values: At least one.
        spread: The least spread that they are taken to have, on the scale of the comparison.
        floor: Values below this one count as equal, on the log scale; None takes the linear scale.

    Examples:
        >>> score(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), 0.1, None).round(1).tolist()
        [-1.3, -0.7, 0.0, 0.7, 65.4]
    """
    scaled = values if floor is None else np.log(np.maximum(values, floor))
    away = scaled - np.median(scaled)
    return np.asarray(away / max(1.4826 * float(np.median(np.abs(away))), spread))


def _join_zeros(case: Mapping[Measure, float], reasons: list[Reason]) -> list[Reason]:
    """Of a result without any lesion, one reason instead of one for each region."""
    zeros = [reason for reason in reasons if _NONE in reason.sentence]
    if not zeros or any(ml > 0 for measure, ml in case.items() if measure.kind == "volume"):
        return reasons
    rarest = max(zeros, key=lambda reason: reason.strength)
    share = rarest.sentence.rpartition(", ")[2]
    return [Reason(rarest.strength, f"no lesion was found, {share}"), *(one for one in reasons if one not in zeros)]
