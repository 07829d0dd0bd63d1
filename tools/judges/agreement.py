"""What other tools must agree with, score by score, and how often they do."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from brainsegnet.metrics import ScoreOptions
from brainsegnet.metrics.scores import RegionScore, ScoreRules, score_region
from judges.ask import Answers
from judges.masks import REGIONS, UNIT, Pair

CLOSE = 1e-4
"""Largest difference that counts as equal: some tools compute in single precision."""
USUAL = ScoreOptions()
Condition = Callable[[Pair, RegionScore], bool]


@dataclass(frozen=True)
class Claim:
    """A score of a tool that is one of ours by definition.

    Attributes:
        judge: Name of the tool.
        score: What the tool calls it, in the words of its scorer.
        options: Options of `evaluate` under which ours is the same.
        compute: Our value, from the score of a region.
        ours: What it is called in tables.
        limits: Where the tool computes something else, in words; empty if nowhere.
        applies: Whether the claim holds for a pair.
    """

    judge: str
    score: str
    ours: str
    compute: Callable[[RegionScore], float]
    options: ScoreOptions = USUAL
    limits: str = ""
    applies: Condition = lambda pair, score: True


def _plain(judge: str, *metrics: str, options: ScoreOptions = USUAL) -> Iterator[Claim]:
    """Claims on scores that are fields of `RegionScore`, which scorers call by the same name without its unit."""
    for metric in metrics:
        name = metric.removesuffix("_mm").removeprefix("lesions_").replace("_", " ")
        yield Claim(judge, name, metric, attrgetter(metric), options)


def _pair_dice(score: RegionScore) -> float:
    """Mean Dice of the matched lesions alone."""
    every = score.lesions_found + score.lesions_missed + score.lesions_invented
    return score.lesion_dice * every / score.lesions_found if score.lesions_found else 0.0


POOLED = ScoreOptions(hd95="pooled")
BRATS2023, BRATS2026 = ScoreOptions(lesions="brats2023"), ScoreOptions(lesions="brats2026", hd95="pooled")
COUNTS = ("lesions_found", "lesions_missed", "lesions_invented")
CLAIMS: Sequence[Claim] = (
    *_plain("monai", "dice", "hd95_mm", "assd_mm", "surface_dice"),
    *_plain("simpleitk", "dice", "precision", "sensitivity", "specificity"),
    *_plain("medpy", "dice", "precision", "sensitivity", "specificity", "assd_mm"),
    *_plain("medpy", "hd95_mm", options=POOLED),
    *_plain("surface_distance", "dice"),
    *_plain("isles2022", "dice", "lesion_f1"),
    Claim("isles2022", "volume difference", "volume_error_ml, unsigned", lambda score: abs(score.volume_error_ml)),
    *_plain("brats2023", "dice", "sensitivity", "specificity", "lesion_dice", *COUNTS, options=BRATS2023),
    *_plain("brats2026", "dice", "lesion_f1", *COUNTS, options=BRATS2026),
    Claim("brats2026", "dice of pairs", "lesion_dice, of found lesions", _pair_dice, BRATS2026),
    Claim(
        "brats2026",
        "hd95",
        "hd95_mm",
        lambda score: score.hd95_mm,
        POOLED,
        "only on voxels of 1 mm, and where at least one lesion is found",
        lambda pair, score: pair.spacing_mm == UNIT and score.dice > 0,
    ),
)


@dataclass(frozen=True)
class Agreement:
    """How often a tool agrees with a claim.

    Attributes:
        claim: The claim.
        equal: Number of masks on which both values are the same.
        compared: Number of masks for which the tool gives a number, and on which the claim holds.
        undefined: Number of masks with both truth and prediction for which the tool gives no number.
        different: The masks on which they differ: name, the tool's value, ours.
    """

    claim: Claim
    equal: int
    compared: int
    undefined: int
    different: Sequence[tuple[str, float, float]]


def score_pairs(pairs: Iterable[Pair], options: ScoreOptions = USUAL) -> dict[tuple[str, str], RegionScore]:
    """Our scores by pair and region."""
    rules = ScoreRules.of(options)
    return {
        (pair.name, region): score_region(*pair.masks(region), pair.spacing_mm, rules)
        for pair in pairs
        for region in REGIONS
    }


def compare(judge: str, answers: Answers, pairs: Sequence[Pair]) -> list[Agreement]:
    """The agreement with every claim on a tool, over the pairs that it answered."""
    known = {options: score_pairs(pairs, options) for options in {c.options for c in CLAIMS if c.judge == judge}}
    return [_count(claim, answers, pairs, known[claim.options]) for claim in CLAIMS if claim.judge == judge]


def _count(
    claim: Claim, answers: Answers, pairs: Sequence[Pair], known: Mapping[tuple[str, str], RegionScore]
) -> Agreement:
    compared, undefined, different = 0, 0, []
    for pair in pairs:
        for region in REGIONS:
            score, value = known[pair.name, region], answers[pair.name][region][claim.score]
            if not claim.applies(pair, score):
                continue
            if not math.isfinite(value):
                undefined += score.empty is None
                continue
            compared += 1
            if abs(value - claim.compute(score)) > CLOSE:
                different.append((f"{pair.name}, {region}", value, claim.compute(score)))
    return Agreement(claim, compared - len(different), compared, undefined, different)
