"""How a model does on cases it has not seen, with every part of the sequences, and how wide intervals must be."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brainsegnet._types import Labels
from brainsegnet.errors import DatasetError
from brainsegnet.inference.postprocessing import (
    decide_presence,
    filter_components,
    filter_probabilities,
    find_certainty,
    labels_and_confidence,
    suppress_dropped,
)
from brainsegnet.inference.segmenter import open_engine
from brainsegnet.inference.tiling import TiledPredictor, tta_probabilities
from brainsegnet.inference.uncertainty import region_probability
from brainsegnet.metrics.scores import region_dice
from brainsegnet.model.card import TOLERATED, Card, IntervalNote, SubsetInterval
from brainsegnet.model.store import Model
from brainsegnet.training import TrainOptions
from brainsegnet.training.split import DataSplit, load_scans, patient_of, split_cases
from release.calibration import MARGINS, TOLERANCE, choose_alpha, choose_margin, largest_alpha

if TYPE_CHECKING:
    from brainsegnet.training.sampler import Scan

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Case to the sequences used, joined by a plus, to region to Dice."""
Alphas = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Case to the sequences used, joined by a plus and all of them first, to region to what `largest_alpha` gives."""
Trials = Mapping[str, Mapping[float | None, Mapping[str, float]]]
"""Case to the margin by which components are dropped, None for none, to region to Dice."""
FEWEST_CASES = 6
"""From which a margin is chosen, and tested on each without it."""
SLACK_ML = 1.0
"""Error of a volume that does not matter."""


def held_out_scans(model: Model, data: Sequence[Path]) -> Mapping[str, "Scan"]:
    """The cases that were held out of a model's training, prepared.

    Raises:
        DatasetError: one of them is not in the data, or none was held out.
    """
    card, split = model.card, _find_cases(model, data)
    known = {case.name: case for case in split.training}
    if lost := sorted(set(card.training.held_out) - set(known)):
        raise DatasetError(f"held-out case {lost[0]} of model {card.name} is not in the data; name its folder")
    if not card.training.held_out:
        raise DatasetError(f"model {card.name} held no case out; train it with --hold-out")
    return load_scans([known[name] for name in card.training.held_out], split)


def other_scans(model: Model, data: Sequence[Path]) -> Mapping[str, "Scan"]:
    """All cases of some folders or tables by name, prepared for the model.

    Raises:
        DatasetError: there is none, or one has no truth.
    """
    split = _find_cases(model, data)
    return load_scans(split.training, split)


def _find_cases(model: Model, data: Sequence[Path]) -> DataSplit:
    return split_cases(data, model.card.task, TrainOptions(validation=0, sequences=model.card.sequences))


def parts_of(sequences: Sequence[str]) -> list[tuple[str, ...]]:
    """Every part of the sequences but none, the whole first, each in the order of the channels.

    >>> parts_of(["dwi", "adc"])
    [('dwi', 'adc'), ('dwi',), ('adc',)]
    """
    return [part for size in range(len(sequences), 0, -1) for part in combinations(sequences, size)]


def parts_for(card: Card) -> list[tuple[str, ...]]:
    """Every part of the sequences that a model takes, the whole first."""
    if not card.input.any_subset:
        return [card.sequences]
    required = {card.sequences[k] for k in card.task.find_required(card.sequences)}
    return [part for part in parts_of(card.sequences) if required <= set(part)]


def score_parts(
    model: Model,
    scans: Mapping[str, "Scan"],
    say: Callable[[str], None] = lambda text: None,
    margins: Mapping[str, float | None] | None = None,
) -> tuple[Scores, Scores]:
    """Whole-scan Dice of each case with each part of the sequences, or with all where the model needs all.

    Once without the components that the margin of the case drops, none without `margins`, and once with all of them.
    """
    card, predictor = model.card, open_engine(model, "cpu")
    left, kept = {}, {}
    for name, scan in scans.items():
        margin = margins[name] if margins else None
        both = {
            "+".join(part): _score(predictor, keep(scan, card, part), card, margin, part) for part in parts_for(card)
        }
        left[name], kept[name] = ({part: scores[i] for part, scores in both.items()} for i in (0, 1))
        say(f"{name}: {left[name]['+'.join(card.sequences)]}")
    return left, kept


def decide(card: Card, classes: Labels, certainty: Labels, scan: "Scan", part: Sequence[str]) -> Labels:
    """Classes (D, H, W) after the decision whether a tissue is there, with some of the sequences."""
    shown = {name: np.asarray(scan.image[card.sequences.index(name)]) for name in part}
    brain = np.asarray((scan.image != 0).any(0))
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    decision = decide_presence(card, classes, certainty, shown, brain, voxel_ml)
    return decision.apply(classes) if decision else classes


def try_margins(model: Model, scans: Mapping[str, "Scan"], tta: bool = False) -> Trials:
    """Dice of each case with each of `MARGINS`, and with all components kept, all sequences given.

    With `tta`, of the mean over each scan and its mirror images.
    """
    card, predictor, trials = model.card, open_engine(model, "cpu"), {}
    for name, scan in scans.items():
        if tta:
            mean = tta_probabilities(predictor, scan.image)
            (classes, confidence), certainty = labels_and_confidence(mean), find_certainty(mean)
        else:
            classes, confidence, certainty = predictor.classify_with_certainty(scan.image)
        kept = {margin: filter_components(classes, confidence, margin).classes for margin in (None, *MARGINS)}
        kept = {margin: decide(card, left, certainty, scan, card.sequences) for margin, left in kept.items()}
        trials[name] = {margin: region_dice(left, scan.classes, card.task) for margin, left in kept.items()}
    return trials


def choose_margins(trials: Trials) -> tuple[float | None, dict[str, float | None]]:
    """The margin for the card, and for each case the one that other patients ask for, with which it is scored.

    None at all with fewer than `FEWEST_CASES`, and where those margins gain nothing in the mean or cost a region more
    than `TOLERATED`: what is not worth it on a case left out is not worth shipping.
    """
    nothing = None, dict.fromkeys(trials)
    if len(trials) < FEWEST_CASES:
        return nothing
    means = {name: {m: float(np.mean(list(dice.values()))) for m, dice in t.items()} for name, t in trials.items()}
    margins = {}
    for name in trials:
        others = [means[other] for other in other_patients(name, means)]
        margins[name] = choose_margin(others) if others else None
    gains = [
        [dice - trial[None][region] for region, dice in trial[margins[name]].items()] for name, trial in trials.items()
    ]
    by_region = np.mean(gains, axis=0)
    if by_region.mean() <= TOLERANCE or by_region.min() < -TOLERATED:
        return nothing
    return choose_margin(list(means.values())), margins


def find_alphas(model: Model, scans: Mapping[str, "Scan"], margins: Mapping[str, float | None] | None = None) -> Alphas:
    """What `calibrate` needs of each case; an interval that misses by less than `SLACK_ML` is right.

    Otherwise a handful of voxels, found or true, would ask for intervals from nothing to everything. `margins` as for
    `score_parts`.
    """
    card, predictor = model.card, open_engine(model, "cpu")
    alphas = {}
    for name, scan in scans.items():
        margin = margins[name] if margins else None
        parts = parts_for(card)
        alphas[name] = {"+".join(part): _alphas_of(predictor, keep(scan, card, part), card, margin) for part in parts}
    return alphas


def _alphas_of(predictor: TiledPredictor, scan: "Scan", card: Card, margin: float | None) -> dict[str, float]:
    """Region to what `largest_alpha` gives."""
    probabilities = predictor.probabilities(scan.image)
    probabilities = suppress_dropped(probabilities, filter_probabilities(probabilities, margin).classes)
    slack = SLACK_ML * 1000 / float(np.prod(scan.spacing_mm))
    return {
        region: largest_alpha(
            region_probability(probabilities, classes), int(np.isin(scan.classes, classes).sum()), slack
        )
        for region, classes in zip(card.task.regions, card.task.region_classes, strict=True)
    }


def calibrate(alphas: Alphas, coverage: float = 0.8) -> dict[str, IntervalNote]:
    """The alpha of each region that reaches the coverage, and how often the alpha of the other patients held a case.

    That is the share which the rank of `choose_alpha` leaves, or more: it tells that the choice is no better on the
    cases that made it, and not how far it holds elsewhere.

    >>> needed = {"a": {"lesion": 0.3}, "b": {"lesion": 0.1}, "c": {"lesion": 0.05}}
    >>> note = calibrate({name: {"dwi+adc": one, "dwi": {"lesion": 0.01}} for name, one in needed.items()})["lesion"]
    >>> note.alpha, note.cases, note.subsets["dwi"].alpha
    (0.05, 3, 0.01)
    """
    (whole, regions), *_ = next(iter(alphas.values())).items()
    notes = {}
    for region in regions:
        chosen, reached = choose_alphas([*alphas.values()], region, coverage), _count_held(alphas, region, coverage)
        subsets = {part: SubsetInterval(alpha=one, coverage=reached.get(part)) for part, one in chosen.items()}
        own = subsets.pop(whole)
        notes[region] = IntervalNote(alpha=own.alpha, coverage=own.coverage, cases=len(alphas), subsets=subsets)
    return notes


def choose_alphas(
    cases: Sequence[Mapping[str, Mapping[str, float]]], region: str, coverage: float = 0.8
) -> dict[str, float]:
    """The alpha of a region for each part of the sequences, as `choose_alpha` gives it, or that of a larger part.

    Alphas that a few cases ask for scatter. Fewer sequences cannot tell more, so their alpha is at most that of each
    larger part, and the interval from given probabilities is as wide or wider.

    Args:
        cases: Of each case, the values of `Alphas`.
        region: The region.
        coverage: As for `choose_alpha`.

    >>> choose_alphas([{"dwi+adc": {"lesion": 0.05}, "dwi": {"lesion": 0.2}, "adc": {"lesion": 0.01}}], "lesion")
    {'dwi+adc': 0.05, 'dwi': 0.05, 'adc': 0.01}
    """
    alone = {part: choose_alpha([case[part][region] for case in cases], coverage) for part in cases[0]}
    return {part: min(one for other, one in alone.items() if _holds(other, part)) for part in alone}


def _holds(sequences: str, part: str) -> bool:
    """Whether some sequences, joined by a plus, are among others."""
    return {*part.split("+")} <= {*sequences.split("+")}


def _count_held(alphas: Alphas, region: str, coverage: float) -> dict[str, float]:
    """Part of the sequences to the share of cases that the alpha of the other patients holds; empty without others."""
    hits: dict[str, list[bool]] = {}
    for name, needed in alphas.items():
        others = [alphas[other] for other in other_patients(name, alphas)]
        for part, alpha in choose_alphas(others, region, coverage).items() if others else ():
            hits.setdefault(part, []).append(needed[part][region] >= alpha)
    return {part: round(float(np.mean(held)), 3) for part, held in hits.items()}


def other_patients(name: str, cases: Iterable[str]) -> list[str]:
    """The cases that are of other patients than one of them."""
    return [case for case in cases if patient_of(case) != patient_of(name)]


def mean_scores(scores: Scores) -> dict[str, dict[str, float]]:
    """Mean over the cases, by part and region."""
    cases = list(scores.values())
    return {
        part: {region: round(float(np.mean([case[part][region] for case in cases])), 4) for region in regions}
        for part, regions in cases[0].items()
    }


def keep(scan: "Scan", card: Card, part: Sequence[str]) -> "Scan":
    """The scan with the other sequences set to 0.

    Box and brain mask stay those of all sequences, while a user who has some of them alone gets the box and mask of
    these: where a sequence shows less of the head than the others, that user's result may differ a little.
    """
    kept = np.array([name in part for name in card.sequences], np.float32)
    return replace(scan, image=scan.image * kept[:, None, None, None])


def _score(
    predictor: TiledPredictor, scan: "Scan", card: Card, margin: float | None, part: Sequence[str]
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Dice by region as `segment` has it, and of the arg-max."""
    classes, confidence, certainty = predictor.classify_with_certainty(scan.image)
    filtered = filter_components(classes, confidence, margin).classes
    found = decide(card, filtered, certainty, scan, part), classes
    left, kept = (
        {region: round(value, 4) for region, value in region_dice(one, scan.classes, card.task).items()}
        for one in found
    )
    return left, kept
