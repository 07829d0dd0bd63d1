"""Does a scan look like those that the model was trained on? Sentences for the user where it does not.

A network segments anything that has the right number of channels. Three mistakes are common, and silent: the skull is
still there, sequences are exchanged, the header says that the head lies upright and it does not.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product

import numpy as np

from brainsegnet._types import Doubles, Millimetres
from brainsegnet.inference.image_features import MIRROR, ImageFeatures, measure_features
from brainsegnet.model.card import Profile
from brainsegnet.preprocessing.geometry import Turn, turn_array
from brainsegnet.preprocessing.prepare import Prepared

MARGIN, EXCHANGE_MARGIN = 6.0, 4.0
"""Logarithm of how much likelier other names for the sequences must be than the given ones before anything is said.

Less suffices for the same names in another order, because then two images speak for it. Real scans that were named
rightly reach 4.9 and 0.8.
"""
TURN_MARGIN = 0.02
"""A turned head must correlate this much better with the training cases' shape; upright ones do worse by 0.02 to 0.08
when they are turned."""
RIM_CONTRAST = 1.5
"""Standard deviations by which the scalp outshines the skull beneath it."""
LARGER, SMALLER = 1.5, 0.5
"""Times the volume of the training cases' brains at which a mask is not a brain, or not a whole one."""
FULLEST = 0.8
"""Share of its box that a mask may fill; brains fill 0.38 to 0.51, an ellipsoid 0.52."""
SAME = 0.995
"""Correlation from which two sequences are one image."""
LIMIT = 9.0
"""Squared deviation in a feature of a pair beyond which it counts no more: an odd lesion must not decide."""


def find_warnings(prepared: Prepared, spacing_mm: Millimetres, profile: Profile) -> list[str]:
    """Sentences on what looks unlike the training cases, each with its remedy; none when all is well.

    Where the skull seems to be there, nothing else is judged, because all else is measured within the brain. It is
    doubted only where the scan goes further than every training case too: some models are trained on whole heads.

    Args:
        prepared: The scan as `prepare` made it.
        spacing_mm: That it is stored with: `case.reference.spacing_mm`.
        profile: Of the model's training cases.
    """
    features = measure_features(prepared, spacing_mm)
    if skull := _warn_of_stripping(features, profile):
        return [skull]
    return [*_warn_of_size(features, profile), *_warn_of_turn(features, profile), *_warn_of_names(features, profile)]


def _warn_of_stripping(features: ImageFeatures, profile: Profile) -> str | None:
    remedy = "remove the skull and set all outside the brain to 0"
    if features.filled > max(FULLEST, profile.filled or 0) and features.volume_ml > SMALLER * profile.volume_ml:
        return f"the scan has no empty background, {100 * features.filled:.0f} % of its box is not background; {remedy}"
    bright = [name for name, rim in features.rims.items() if rim > max(RIM_CONTRAST, profile.rim)]
    if bright:
        return f"a bright rim lies around a dark ring in {', '.join(bright)}, as scalp around skull does; {remedy}"
    if features.volume_ml > LARGER * profile.volume_ml:
        return (
            f"what is not background measures {features.volume_ml:.0f} ml, the brains of the training cases "
            f"{profile.volume_ml:.0f} ml; {remedy}"
        )
    return None


def _warn_of_size(features: ImageFeatures, profile: Profile) -> Iterator[str]:
    if features.volume_ml < SMALLER * profile.volume_ml:
        yield (
            f"what is not background measures {features.volume_ml:.0f} ml, the brains of the training cases "
            f"{profile.volume_ml:.0f} ml; give a scan of the whole brain, and check the voxel size in its header"
        )


def _warn_of_turn(features: ImageFeatures, profile: Profile) -> Iterator[str]:
    usual = np.array([[int(digit) for digit in layer] for layer in profile.shape]).reshape(features.shape.shape)
    fits = {how: _correlate(turn_array(features.shape, how), usual) for how in _turns()}
    best = max(fits, key=lambda how: fits[how])
    if fits[best] - fits[Turn()] > TURN_MARGIN:
        yield (
            f"the head seems to lie {_describe(best)}: its shape fits the training cases better when turned "
            f"({fits[best]:.2f} instead of {fits[Turn()]:.2f}); check the orientation in the header of the files, "
            f"or convert them anew"
        )


def _turns() -> Iterator[Turn]:
    """The 24 turns that differ in more than left and right, which look the same."""
    for axes, (flip_d, flip_h) in product(permutations(range(3)), product((False, True), repeat=2)):
        yield Turn((axes[0], axes[1], axes[2]), (flip_d, flip_h, False))


def _describe(how: Turn) -> str:
    if how.axes != (0, 1, 2):
        return "along other axes than its header says"
    return {(True, True): "upside down", (True, False): "upside down", (False, True): "back to front"}[how.flips[:2]]


def _warn_of_names(features: ImageFeatures, profile: Profile) -> Iterator[str]:
    given = tuple(name for name in features.single if name in profile.single)
    same = [pair for pair, alike in features.alike.items() if alike > SAME]
    for one, other in same:
        yield f"{one} and {other} are the same image; give each sequence its own file, or leave one out"
    if same or not given:
        return
    needed = {True: EXCHANGE_MARGIN, False: MARGIN}
    gains = {
        names: _judge(features, profile, given, names) - (names != given) * needed[set(names) == set(given)]
        for names in _namings(given, tuple(profile.single))
    }
    best = max(gains, key=lambda names: gains[names])
    wrong = {name: looks for name, looks in zip(given, best, strict=True) if name != looks}
    if wrong and wrong.keys() == set(wrong.values()):
        yield f"{' and '.join(wrong)} seem to be exchanged; check which file is which"
    else:
        for name, looks in wrong.items():
            yield f"{name} looks like {looks} of the training cases; check the file given as {name}"


def _namings(given: Sequence[str], known: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The given names, and every other choice of known names in which one or two differ and none is used twice."""
    yield tuple(given)
    for count in (1, 2):
        for places in combinations(range(len(given)), min(count, len(given))):
            for names in product(known, repeat=len(places)):
                naming = list(given)
                for place, name in zip(places, names, strict=True):
                    naming[place] = name
                if len(set(naming)) == len(naming):
                    yield tuple(naming)


def _judge(features: ImageFeatures, profile: Profile, given: Sequence[str], names: Sequence[str]) -> float:
    """Logarithm of the likelihood, up to a constant, that the images given under some names are others."""
    inverse = np.linalg.inv(np.array(profile.covariance))
    total = 0.0
    for had, name in zip(given, names, strict=True):
        away = features.single[had] - np.array(profile.single[name])
        total -= 0.5 * float(away @ inverse @ away)
    meant = dict(zip(given, names, strict=True))
    for (one, other), found in features.pairs.items():
        if one in meant and other in meant and (usual := _usual(profile, meant[one], meant[other])) is not None:
            total -= 0.25 * float(np.minimum(((found - usual) / np.array(profile.pair_spread)) ** 2, LIMIT).sum())
    return total


def _usual(profile: Profile, one: str, other: str) -> Doubles | None:
    means = profile.pairs.get(" ".join(sorted((one, other))))
    return None if means is None else np.array(means) * (1 if one < other else MIRROR)


def _correlate(one: Doubles, other: Doubles) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
