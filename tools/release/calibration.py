"""What the card of a model gets from unseen cases: confidence margin, alphas of volume intervals, image features."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from brainsegnet._types import Doubles, Floats, Millimetres
from brainsegnet.inference.ood import FEATURES, PAIR_FEATURES, measure_features
from brainsegnet.inference.uncertainty import volume_interval
from brainsegnet.model.card import Profile
from brainsegnet.preprocessing.prepare import Prepared

MARGINS: tuple[float, ...] = (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.2, 0.25, 0.3)
"""Margins that are tried; a smaller one drops more."""
TOLERANCE = 0.002
"""Mean Dice by which a margin may be worse than the best and count as good."""
ALPHAS: tuple[float, ...] = tuple(10.0 ** -(0.31 + 0.1 * k) for k in range(57))
"""Alphas that are tried, the narrowest interval first."""
GUESSED_CASES, GUESSED_SPREAD, LEAST_SPREAD, KEPT = 4, 0.3, 0.1, 0.8
"""What stands in for variety that few training cases cannot show: so many cases of this spread, this much more in any
feature, and the share of the covariances that is believed."""


def choose_margin(scores: Sequence[Mapping[float | None, float]]) -> float | None:
    """The middle one of the margins that are nearly as good as the best in the mean; None where keeping all is as good.

    The middle, because a little less or more is then as good on other cases too.

    Args:
        scores: Of each unseen case, Dice by margin, None for keeping all.

    >>> choose_margin([{None: 0.7, 0.1: 0.8, 0.2: 0.8, 0.3: 0.801, 0.4: 0.71}])
    0.2
    >>> choose_margin([{None: 0.7, 0.1: 0.6}, {None: 0.7, 0.1: 0.701}])
    """
    mean = {margin: float(np.mean([case[margin] for case in scores])) for margin in scores[0]}
    best = max(mean.values())
    if mean[None] >= best - TOLERANCE:
        return None
    good = sorted(margin for margin, score in mean.items() if margin is not None and score >= best - TOLERANCE)
    return good[len(good) // 2]


def largest_alpha(probability: Floats, true_voxels: int, slack: float = 0.0) -> float:
    """The greatest of `ALPHAS` whose interval holds the true volume, or misses it by `slack` voxels at most.

    0 where none does.

    >>> round(largest_alpha(np.array([0.05, 0.5, 0.95, 1], np.float32), 4), 3)
    0.049
    >>> largest_alpha(np.array([0.05, 0.5, 0.95, 1], np.float32), 4, slack=1) == ALPHAS[0]
    True
    >>> largest_alpha(np.array([0.05, 0.5, 0.95, 1], np.float32), 5)
    0.0
    """
    probability = probability[probability > ALPHAS[-1]]
    for alpha in ALPHAS:
        least, most = volume_interval(probability, 1.0, alpha)
        if least - slack <= true_voxels <= most + slack:
            return alpha
    return 0.0


def choose_alpha(needed: Sequence[float], coverage: float = 0.8) -> float:
    """The alpha whose interval holds the volume of a further case with this probability, from `largest_alpha` of n.

    That is the one that (n + 1) times the coverage of them ask for, rounded up, and not n times: the case to come may
    be worse than all (split conformal prediction, Vovk et al. 2005). With fewer cases than the coverage needs, four for
    0.8, that is more than there are, and the one that all ask for is as much as they can tell. Where no interval is
    wide enough, it is the smallest of `ALPHAS`, whose interval does not hold the cases that ask for less.

    >>> choose_alpha([0.3, 0.2, 0.1, 0.04, 0.001]), choose_alpha([0.3, 0.2, 0.1, 0.04, 0.001], 0.6)
    (0.001, 0.04)
    """
    rank = math.ceil(coverage * (len(needed) + 1) - 1e-9)
    return max(sorted(needed, reverse=True)[min(len(needed), rank) - 1], ALPHAS[-1])


def measure_profile(cases: Iterable[tuple[Prepared, Millimetres]]) -> Profile:
    """What training cases look like; one at a time is held in memory if they come from a generator.

    Args:
        cases: Prepared scans, each with the spacing that it is stored with, `case.reference.spacing_mm`.

    Raises:
        ValueError: there is no case.
    """
    seen = [measure_features(prepared, spacing_mm) for prepared, spacing_mm in cases]
    if not seen:
        raise ValueError("a profile needs at least one case")
    single = _by_name(features.single for features in seen)
    pairs = _by_name({" ".join(pair): value for pair, value in features.pairs.items()} for features in seen)
    covariance = _pool(single, len(FEATURES))
    covariance = KEPT * covariance + (1 - KEPT) * np.diag(np.diag(covariance)) + LEAST_SPREAD**2 * np.eye(len(FEATURES))
    pair_spread = np.sqrt(np.diag(_pool(pairs, len(PAIR_FEATURES))) + LEAST_SPREAD**2)
    shape = np.mean([features.shape for features in seen], axis=0)
    tenths = np.floor((shape + shape[:, :, ::-1]) / 2 * 9.999).astype(int)
    return Profile(
        cases=len(seen),
        single={name: _rounded(rows.mean(0)) for name, rows in single.items()},
        covariance=tuple(_rounded(row) for row in covariance),
        pairs={name: _rounded(rows.mean(0)) for name, rows in pairs.items()},
        pair_spread=_rounded(pair_spread),
        volume_ml=round(float(np.median([features.volume_ml for features in seen])), 1),
        shape=tuple("".join(map(str, layer.ravel())) for layer in tenths),
        filled=_rounded_up(max(features.filled for features in seen)),
        rim=_rounded_up(max((0.0, *(rim for features in seen for rim in features.rims.values())))),
    )


def _by_name(seen: Iterable[Mapping[str, Doubles]]) -> dict[str, Doubles]:
    """Name to the rows (N, features) of all cases that have it."""
    rows: dict[str, list[Doubles]] = {}
    for features in seen:
        for name, values in features.items():
            rows.setdefault(name, []).append(values)
    return {name: np.array(values) for name, values in rows.items()}


def _pool(rows: Mapping[str, Doubles], size: int) -> Doubles:
    """Covariance (size, size) about the mean of each name, with `GUESSED_CASES` of `GUESSED_SPREAD` added."""
    scatter, freedom = GUESSED_CASES * GUESSED_SPREAD**2 * np.eye(size), float(GUESSED_CASES)
    for values in rows.values():
        away = values - values.mean(0)
        scatter += away.T @ away
        freedom += len(values) - 1
    return np.asarray(scatter / freedom)


def _rounded_up(value: float) -> float:
    """To four digits, and not below the value."""
    return math.ceil(value * 1e4) / 1e4


def _rounded(values: Doubles) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
