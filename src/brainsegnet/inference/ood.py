"""Out-of-distribution check: does a scan look like the training cases of the model? If not, sentences for the user.

A network segments any image with the right number of channels. Three common mistakes give no error: the skull was not
removed, sequences are exchanged, or the header gives a wrong orientation.

Features of each sequence, of each pair and of the shape are measured on a grid of about 4 mm, with medians and
quantiles. So they take milliseconds, and a large lesion changes them little.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainsegnet._types import Doubles, Floats, Mask, Millimetres
from brainsegnet.model.card import BLOCKS, Profile
from brainsegnet.preprocessing.geometry import Turn, turn_array
from brainsegnet.preprocessing.prepare import Prepared

STEP_MM = 4.0
"""Distance between the sampled voxels, where the scan is at least as fine."""
RIM_MM, RING_MM, DEEP_MM = 6.0, 14.0, 25.0
"""Depth below the surface of the mask: end of the outermost layer, end of the layer beneath it, start of the inside."""
DARK_RING = -0.5
"""Standard deviations below which the layer beneath the outermost one may be skull, and not brain beneath fluid."""
BLOCK_MM = 24.0
"""The shape is the share of each of 8 x 8 x 8 blocks of 24 mm, around the centre of the mask, that the mask fills."""
FEATURES = ("even", "even75", "uneven", "q02", "q10", "q25", "q75", "q90", "q98", "deep05", "deep95", "rim", "texture")
"""Of a sequence, in standard deviations from its median: median and upper quartile of the fifth with the least local
variance (mostly white matter), median of the fifth with the most (cortex and fluid), quantiles, quantiles deep inside,
median of the outermost layer; and the correlation of intensity with local variance."""
PAIR_FEATURES = ("detail", "tails", "shoulders")
"""Of two sequences: correlation of their detail, and the log ratio of the upper and lower tail of their difference, at
the 0.3 % and 3 % ends."""
MIRROR = np.array([1.0, -1.0, -1.0])
"""Factors of the features of a pair when the two sequences change places."""

MARGIN, EXCHANGE_MARGIN = 6.0, 4.0
"""Log-likelihood by which other names of the sequences must fit better than the given ones to cause a warning; less for
the same names in another order, because two images support it. Real scans with the right names reach 4.9 and 0.8."""
TURN_MARGIN = 0.02
"""By how much better a turned head must correlate with the training cases; upright ones lose 0.02 to 0.08."""
RIM_CONTRAST = 1.5
"""Standard deviations by which scalp is brighter than the skull beneath it."""
LARGER, SMALLER = 1.5, 0.5
"""Factors of the training cases' brain volume beyond which a mask is not a brain, or not a whole one."""
FULLEST = 0.8
"""Share of its box that a mask may fill; brains fill 0.38 to 0.51, an ellipsoid 0.52."""
SAME = 0.995
"""Correlation from which two sequences are the same image."""
MAX_DEVIATION = 9.0
"""Limit of the squared deviation in a feature of a pair, so that an unusual lesion is not decisive."""


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Features of a scan for the out-of-distribution check.

    Attributes:
        single: Sequence to its `FEATURES`.
        pairs: Two sequences, in alphabetical order, to their `PAIR_FEATURES`.
        correlations: Two sequences, in alphabetical order, to the correlation of the images.
        rings: Sequence to the medians of the outermost layer of the mask and of the layer beneath.
        volume_ml: Volume of the mask in ml.
        filled: Share of its box that the mask fills.
        shape: Share (8, 8, 8) of each block that the mask fills.
    """

    single: Mapping[str, Doubles]
    pairs: Mapping[tuple[str, str], Doubles]
    correlations: Mapping[tuple[str, str], float]
    rings: Mapping[str, tuple[float, float]]
    volume_ml: float
    filled: float
    shape: Doubles

    @property
    def rims(self) -> dict[str, float]:
        """The sequences with a dark layer beneath the outermost one, to the contrast of the two."""
        return {name: rim - ring for name, (rim, ring) in self.rings.items() if ring < DARK_RING}


def find_warnings(prepared: Prepared, spacing_mm: Millimetres, profile: Profile) -> list[str]:
    """Sentences about what looks unlike the training cases, each with its remedy.

    If the skull seems to be present, nothing else is checked, because everything else is measured within the brain.
    Some models are trained on whole heads, so the scan must also exceed every training case.

    Args:
        prepared: The scan.
        spacing_mm: Spacing of the scan as it is stored: `case.reference.spacing_mm`.
        profile: Features of the training cases.
    """
    features = measure_features(prepared, spacing_mm)
    volumes = f"{features.volume_ml:.0f} ml, the brains of the training cases {profile.volume_ml:.0f} ml"
    comparison = f"what is not background measures {volumes}"
    if skull := _describe_skull(features, profile, comparison):
        return [f"{skull}; remove the skull and set all outside the brain to 0"]
    small = features.volume_ml < SMALLER * profile.volume_ml
    size = [f"{comparison}; give a scan of the whole brain, and check the voxel size in its header"] if small else []
    return [*size, *_warn_of_turn(features, profile), *_warn_of_names(features, profile)]


def measure_features(prepared: Prepared, spacing_mm: Millimetres) -> ImageFeatures:
    """Image features of a prepared scan. Arguments are those of `find_warnings`."""
    sample = _take_sample(prepared, spacing_mm)
    mask, names = sample.mask, prepared.sequences
    weight = ndimage.uniform_filter(mask.astype(np.float32), 3)
    blurs = [_blur(channel, weight) for channel in sample.image]
    values = np.clip(sample.image[:, mask], -3, 3)
    detail = values - np.array([mean[mask] for mean, _ in blurs])
    single, rings, pairs, correlations = {}, {}, {}, {}
    layers = sample.depth_mm < RIM_MM, (sample.depth_mm >= RIM_MM) & (sample.depth_mm < RING_MM)
    for name, channel, blur in zip(names, sample.image, blurs, strict=True):
        rim, ring = (float(np.median(_select(channel, layer, mask))) for layer in layers)
        single[name] = _measure_single(channel, blur, mask & (weight > 0.99), sample, rim)
        rings[name] = rim, ring
    for one, other in combinations(sorted(names), 2):
        i, j = names.index(one), names.index(other)
        pairs[one, other] = np.array([_correlate(detail[i], detail[j]), *_compare_tails(values[i], values[j])])
        correlations[one, other] = _correlate(values[i], values[j])
    volume_ml = float(np.count_nonzero(prepared.mask) * np.prod(spacing_mm) / 1000)
    filled = float(np.count_nonzero(prepared.mask) / prepared.mask.size)
    return ImageFeatures(single, pairs, correlations, rings, volume_ml, filled, _measure_shape(sample))


@dataclass(frozen=True, eq=False)
class _Sample:
    """Voxels of a scan on a coarse grid: images (C, d, h, w), mask and depth in it (d, h, w)."""

    image: Floats
    mask: Mask
    depth_mm: Doubles
    spacing_mm: Millimetres


def _take_sample(prepared: Prepared, spacing_mm: Millimetres) -> _Sample:
    upright_mm = [spacing_mm[axis] for axis in prepared.turn.axes]
    for steps in ([max(1, round(STEP_MM / mm)) for mm in upright_mm], [1, 1, 1]):
        sparse = tuple(slice(None, None, step) for step in steps)
        mask = prepared.mask[sparse]
        if mask.any():
            break
    d, h, w = (step * mm for step, mm in zip(steps, upright_mm, strict=True))
    depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=(d, h, w))[1:-1, 1:-1, 1:-1]
    image = np.asarray(prepared.image[(slice(None), *sparse)])
    return _Sample(image, mask, np.asarray(depth_mm), (d, h, w))


def _blur(channel: Floats, weight: Floats) -> tuple[Doubles, Doubles]:
    """Mean and variance (d, h, w) of the brain's voxels among 3 x 3 x 3."""
    clipped, share = np.clip(channel, -3, 3), np.maximum(weight, 1e-3)
    mean = ndimage.uniform_filter(clipped, 3) / share
    return mean, ndimage.uniform_filter(clipped * clipped, 3) / share - mean * mean


def _measure_single(
    channel: Floats, blur: tuple[Doubles, Doubles], inner: Mask, sample: _Sample, rim: float
) -> Doubles:
    """The `FEATURES` of a sequence, from what `_blur` gives and the median of the outermost layer."""
    if not inner.any():
        inner = sample.mask
    values, mean, spread = channel[inner], *(part[inner] for part in blur)
    low, high = np.quantile(spread, [0.2, 0.8])
    even, uneven = values[spread <= low], values[spread >= high]
    whole = np.quantile(channel[sample.mask], [0.02, 0.10, 0.25, 0.75, 0.90, 0.98])
    whole[-1] = np.log(max(whole[-1], 0.1))
    deep = np.quantile(_select(channel, sample.depth_mm > DEEP_MM, sample.mask), [0.05, 0.95])
    ends = [np.median(even), np.quantile(even, 0.75), np.median(uneven)]
    return np.array([*ends, *whole, *deep, rim, _correlate(mean, spread)])


def _select(channel: Floats, part: Mask, mask: Mask) -> Floats:
    """Values in a part of the mask; in all of it if the part is empty."""
    chosen = part & mask
    return channel[chosen if chosen.any() else mask]


def _correlate(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    a, b = one - one.mean(), other - other.mean()
    return float((a @ b) / max(float(np.sqrt((a @ a) * (b @ b))), 1e-9))


def _compare_tails(one: Floats, other: Floats) -> tuple[float, float]:
    lowest, low, middle, high, highest = np.quantile(one - other, [0.003, 0.03, 0.5, 0.97, 0.997])
    tails = np.log(max(highest - middle, 1e-3) / max(middle - lowest, 1e-3))
    return float(tails), float(np.log(max(high - middle, 1e-3) / max(middle - low, 1e-3)))


def _measure_shape(sample: _Sample) -> Doubles:
    blocks = []
    for axis, mm in enumerate(sample.spacing_mm):
        counts = sample.mask.sum(axis=tuple({0, 1, 2} - {axis}))
        places = np.arange(counts.size) * mm
        centred = places - (counts @ places) / counts.sum()
        blocks.append(np.clip(np.floor(centred / BLOCK_MM + BLOCKS / 2), 0, BLOCKS - 1).astype(int))
    index = (blocks[0][:, None, None] * BLOCKS + blocks[1][:, None]) * BLOCKS + blocks[2]
    voxels = np.bincount(index[sample.mask], minlength=BLOCKS**3).reshape(BLOCKS, BLOCKS, BLOCKS)
    return np.minimum(voxels * np.prod(sample.spacing_mm) / BLOCK_MM**3, 1.0)


def _describe_skull(features: ImageFeatures, profile: Profile, comparison: str) -> str:
    """Why the skull seems to be there; empty if it does not."""
    if features.filled > max(FULLEST, profile.filled) and features.volume_ml > SMALLER * profile.volume_ml:
        return f"the scan has no empty background, {100 * features.filled:.0f} % of its box is not background"
    if bright := [name for name, rim in features.rims.items() if rim > max(RIM_CONTRAST, profile.rim)]:
        return f"a bright rim lies around a dark ring in {', '.join(bright)}, as scalp around skull does"
    return comparison if features.volume_ml > LARGER * profile.volume_ml else ""


def _warn_of_turn(features: ImageFeatures, profile: Profile) -> Iterator[str]:
    """Of the 24 turns, those that differ in left and right only look the same, and one of the two is tried."""
    usual = np.array([int(tenths) for layer in profile.shape for tenths in layer])
    flips = product((False, True), (False, True), (False,))
    turns = [Turn(axes, flip) for axes, flip in product(permutations(range(3), 3), flips)]
    fits = {how: _correlate(turn_array(features.shape, how).ravel(), usual) for how in turns}
    best = max(fits, key=lambda how: fits[how])
    if fits[best] - fits[Turn()] > TURN_MARGIN:
        place = "upside down" if best.flips[0] else "back to front"
        yield (
            f"the head seems to lie {place if best.axes == (0, 1, 2) else 'along other axes than its header says'}: "
            f"its shape fits the training cases better when turned "
            f"({fits[best]:.2f} instead of {fits[Turn()]:.2f}); check the orientation in the headers"
        )


def _warn_of_names(features: ImageFeatures, profile: Profile) -> Iterator[str]:
    given = tuple(name for name in features.single if name in profile.single)
    same = [pair for pair, correlation in features.correlations.items() if correlation > SAME]
    for one, other in same:
        yield f"{one} and {other} are the same image; give each sequence its own file, or leave one out"
    if same or not given:
        return
    needed = {True: EXCHANGE_MARGIN, False: MARGIN}
    gains = {
        names: _find_likelihood(features, profile, given, names) - (names != given) * needed[set(names) == set(given)]
        for names in _list_namings(given, tuple(profile.single))
    }
    best = max(gains, key=lambda names: gains[names])
    wrong = {name: looks for name, looks in zip(given, best, strict=True) if name != looks}
    if wrong and wrong.keys() == set(wrong.values()):
        yield f"{' and '.join(wrong)} seem to be exchanged; check which file is which"
    else:
        for name, looks in wrong.items():
            yield f"{name} looks like {looks} of the training cases; check the file given as {name}"


def _list_namings(given: Sequence[str], known: Sequence[str]) -> Iterator[tuple[str, ...]]:
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


def _find_likelihood(features: ImageFeatures, profile: Profile, given: Sequence[str], names: Sequence[str]) -> float:
    """Log-likelihood, up to a constant, that the images given under some names are images of other names."""
    inverse = np.linalg.inv(np.array(profile.covariance))
    total = 0.0
    for stated, name in zip(given, names, strict=True):
        away = features.single[stated] - np.array(profile.single[name])
        total -= 0.5 * float(away @ inverse @ away)
    meant = dict(zip(given, names, strict=True))
    for (one, other), values in features.pairs.items():
        if one not in meant or other not in meant:
            continue
        usual = profile.pairs.get(" ".join(sorted((meant[one], meant[other]))))
        if usual is not None:
            mirror = 1 if meant[one] < meant[other] else MIRROR
            squared = ((values - np.array(usual) * mirror) / np.array(profile.pair_spread)) ** 2
            total -= 0.25 * float(np.minimum(squared, MAX_DEVIATION).sum())
    return total
