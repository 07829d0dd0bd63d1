"""Which series stands for a sequence: one of several, or refused with the names of two that are alike."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.io.diffusion import ADC_UNIT, B_RANGE, STROKE_B, compute_adc, find_adc_factor
from brainsegnet.pipeline.headers import LOW_B
from brainsegnet.pipeline.identify import Finding
from brainsegnet.volume import Volume, measure_gap

LEAST = 0.45
"""With less confidence, nothing is chosen; what an image alone says has less."""
LIKE = 0.3
"""Candidates whose confidence is less below the best stay in the choice."""
ALIKE = 1.25
"""Spacings, and heights that are covered, with a smaller ratio count as the same."""
SAME_GRID_MM = 0.5
NAMED = "named by the user"
"""The reason of a choice that was given."""
_DERIVED = ("DERIVED", "REFORMATTED", "MPR", "SECONDARY")


@dataclass(frozen=True, eq=False)
class Choice:
    """What stands for a sequence.

    Attributes:
        sequence: Of the package.
        findings: One; or for an ADC that is computed, the images of the lower and of the higher b-value.
        reason: Why this one, as a sentence without a stop; empty if there was no other.
    """

    sequence: str
    findings: tuple[Finding, ...]
    reason: str = ""

    @property
    def name(self) -> str:
        """Names of its series."""
        return " and ".join(finding.name for finding in self.findings)

    def read(self) -> Volume:
        """Its voxels; those of an ADC in 1e-6 mm2/s.

        Raises:
            ImageError: a file is gone or damaged, or the values are those of no ADC map.
        """
        if self.sequence != "adc":
            return self.findings[0].read()
        volume, *others = (finding.read() for finding in self.findings)
        if others:
            low, high = (finding.header.b_value or 0.0 for finding in self.findings)
            return volume.with_array(compute_adc(volume.array, others[0].array, low, high))
        factor, why = find_adc_factor(volume.array, self.findings[0].header.units)
        if not factor:
            raise ImageError(f"{self.name} was taken for an ADC map, but {why}; name another one, as in --adc FILE")
        return volume if factor == 1 else volume.with_array(volume.array.astype(np.float32) * np.float32(factor))


def choose(
    findings: Sequence[Finding], wanted: Iterable[str], given: Mapping[str, str] | None = None
) -> dict[str, Choice]:
    """The image of each sequence that is wanted, as far as the study has it.

    Of several candidates, those are dropped that are less sure, derived from others, of an unsuitable b-value, or cover
    less of the head. Then the thinner slices count, then the plane of the other sequences, then the finer pixels.

    Args:
        findings: Of `identify_study`.
        wanted: Names of sequences.
        given: Sequence to the name, file or number of the series that stands for it, whatever it seems to be.

    Raises:
        DatasetError: two candidates are alike; or what is given is not there, or is there twice.
    """
    chosen, unclear = choose_each(findings, wanted, given)
    if unclear:
        raise DatasetError(next(iter(unclear.values())))
    return chosen


def choose_each(
    findings: Sequence[Finding], wanted: Iterable[str], given: Mapping[str, str] | None = None
) -> tuple[dict[str, Choice], dict[str, str]]:
    """The choices of `choose`, and for each sequence with two candidates that are alike a sentence that names them.

    Raises:
        DatasetError: what is given is not there, or is there twice.
    """
    wanted, given = list(wanted), dict(given or {})
    chosen = {sequence: _find_given(findings, sequence, word) for sequence, word in given.items()}
    unclear: dict[str, str] = {}
    planes = Counter(finding.plane for finding in findings if finding.sequence in wanted)
    for sequence in wanted:
        if sequence not in chosen:
            try:
                choice = _choose_one(findings, sequence, planes)
                if sequence == "adc" and not choice:
                    high = chosen.get("dwi") or _choose_one(findings, "dwi", planes)
                    choice = _plan_adc(findings, high.findings[0]) if high else None
            except DatasetError as error:
                unclear[sequence] = str(error)
                continue
            if choice:
                chosen[sequence] = choice
    return {sequence: chosen[sequence] for sequence in wanted if sequence in chosen}, unclear


def _find_given(findings: Sequence[Finding], sequence: str, word: str) -> Choice:
    fitting = [item for item in findings if item.is_called(word)]
    if len(fitting) == 1:
        return Choice(sequence, tuple(fitting), NAMED)
    if best := _choose_one(fitting, sequence, Counter(item.plane for item in fitting)):
        return Choice(sequence, best.findings, NAMED)
    known = ", ".join(finding.name for finding in findings)
    what = "fits several series of" if fitting else "is none of"
    raise DatasetError(f"{sequence}: {word!r} {what} the study, which has {known}; name one of them")


Rank = Callable[[Finding], float]
"""How good a candidate is: the least is best."""


def _choose_one(findings: Sequence[Finding], sequence: str, planes: Counter[str]) -> Choice | None:
    """The best candidate for a sequence; None if there is none. Raises `DatasetError` if two are alike."""
    left = [finding for finding in findings if finding.sequence == sequence and finding.confidence >= LEAST]
    reason = ""
    for keep, words in _rounds(sequence, planes):
        if len(left) > 1 and len(better := keep(left)) < len(left):
            dropped = next(finding for finding in left if finding not in better)
            left, reason = better, f"{words} than {dropped.name}"
    if len(left) > 1:
        both = f"{left[0].name} and {left[1].name}"
        raise DatasetError(f"two series may be {sequence}, {both}; name one of them with --{sequence}")
    return Choice(sequence, tuple(left), reason) if left else None


def _rounds(sequence: str, planes: Counter[str]) -> list[tuple[Callable[[list[Finding]], list[Finding]], str]]:
    """What is compared, in order, and the words for it."""
    usual = max(planes, key=lambda plane: (planes[plane], plane == "axial"), default="axial")
    least = _keep_least
    rounds = [
        (partial(least, rank=lambda item: -item.confidence, margin=LIKE), "surer"),
        (partial(least, rank=_distance_of_b), "of a more suitable b-value") if sequence == "dwi" else None,
        (partial(least, rank=_is_directional), "less directional") if sequence == "dwi" else None,
        (partial(least, rank=_is_derived), "less derived"),
        (partial(least, rank=lambda item: -_measure_extent(item), ratio=ALIKE), "of a larger extent"),
        (partial(least, rank=lambda item: max(item.spacing_mm), ratio=ALIKE), "of thinner slices"),
        (partial(least, rank=lambda item: item.plane not in (usual, "3-D")), "in a more usual plane"),
        (partial(least, rank=lambda item: float(np.prod(sorted(item.spacing_mm)[:2])), ratio=ALIKE), "of finer pixels"),
    ]
    return [item for item in rounds if item]


def _keep_least(findings: list[Finding], rank: Rank, margin: float = 0.0, ratio: float = 1.0) -> list[Finding]:
    """Those whose rank is the least, or near it."""
    ranks = [rank(finding) for finding in findings]
    limit = min(ranks) * (ratio if min(ranks) > 0 else 1 / ratio) + margin
    return [finding for finding, value in zip(findings, ranks, strict=True) if value <= limit]


def _distance_of_b(finding: Finding) -> float:
    """0 for the b-value at which stroke is looked for, more for others; unknown ones count as suitable."""
    b_value = finding.header.b_value
    if not b_value:
        return 0.0
    return abs(b_value - STROKE_B) + (0 if B_RANGE[0] <= b_value <= B_RANGE[1] else 1e4)


def _is_directional(finding: Finding) -> float:
    return 0.0 if finding.header.directionality == "isotropic" else 1.0


def _is_derived(finding: Finding) -> float:
    """Reformatted images; maps are derived by nature, and a trace is too."""
    if finding.sequence in ("adc", "dwi"):
        return 0.0
    return float(any(word.upper() in _DERIVED for word in finding.header.image_type))


def _measure_extent(finding: Finding) -> float:
    """How many millimetres the shortest side of the field of view has, up to the height of a head."""
    return float(min(150.0, *np.multiply(finding.shape, finding.spacing_mm)))


def _plan_adc(findings: Sequence[Finding], high: Finding) -> Choice | None:
    """The two images from which an ADC can be computed; None where one of them is absent."""
    b_high = high.header.b_value
    if not b_high:
        return None
    lows = [
        item
        for item in findings
        if item.sequence == "b0" and (item.header.b_value or 0) < LOW_B and _on_one_grid(item, high)
    ]
    if not lows:
        return None
    low = min(lows, key=lambda item: (item.header.series_uid != high.header.series_uid, item.header.b_value or 0))
    reason = f"computed from b {low.header.b_value or 0:g} and b {b_high:g} s/mm2, in {ADC_UNIT}"
    return Choice("adc", (low, high), reason)


def _on_one_grid(one: Finding, other: Finding) -> bool:
    if one.shape != other.shape:
        return False
    empty = np.broadcast_to(np.uint8(0), one.shape)
    return measure_gap(Volume(empty, one.affine), Volume(empty, other.affine)) <= SAME_GRID_MM
