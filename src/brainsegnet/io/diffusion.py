"""Diffusion: one image of high b-value without direction, and the apparent diffusion coefficient (ADC).

A scanner gives, in one series or in several, images without weighting, images of one or more b-values in three
directions or more, their mean without direction (the trace), and often a map of the ADC.
"""

import math
import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from brainsegnet._types import Array, Doubles, Floats
from brainsegnet.io.images import Series
from brainsegnet.volume import Volume

STROKE_B = 1000.0
"""The b-value, in s/mm2, at which stroke is looked for."""
B_RANGE = (500.0, 1600.0)
"""b-values that may stand for it."""
BRAIN_ADC = 0.85e-3
"""The ADC of normal brain in mm2/s, which is nearly the same in grey and in white matter."""
ADC_UNIT = "1e-6 mm2/s"
"""The unit of every ADC map that is returned."""
_IN_MM2_S = 1e6
_UNITS: Sequence[tuple[str, float]] = (
    (r"(10|1e)\^?-?0?6mm(2|\^2)/s|um(2|\^2)/s|u?m2/s\*1e-?6|micromet", 1.0),
    (r"(10|1e)\^?-?0?3mm(2|\^2)/s|1e-3mm2", 1e3),
    (r"(10|1e)\^?-?0?5mm(2|\^2)/s", 10.0),
    (r"mm(2|\^2)/s", _IN_MM2_S),
)
"""How headers name a unit, and how many 1e-6 mm2/s it has."""
_PLAUSIBLE = (0.2, 4.0)
"""A median of the head this many times `BRAIN_ADC` still fits the unit."""


def find_adc_factor(values: Array, units: str = "") -> tuple[float, str]:
    """By what an ADC map is multiplied so that it is in `ADC_UNIT`, and how that is known.

    Args:
        values: The map (D, H, W).
        units: As a header names them; may be empty or wrong.

    Returns:
        The factor, and a sentence without a stop. The factor is 0 if the values are those of no ADC map.

    Examples:
        >>> find_adc_factor(np.full((2, 2, 2), 0.0008))
        (1000000.0, 'the values are in mm2/s, since their median is 0.0008')
        >>> find_adc_factor(np.full((2, 2, 2), 800), "um2/s")
        (1.0, 'the header gives um2/s, and the values agree')
    """
    median = find_middle(values)
    if not median:
        return 0.0, "no value is above 0"
    wanted = BRAIN_ADC * _IN_MM2_S
    named = next((factor for pattern, factor in _UNITS if re.search(pattern, re.sub(r"\s|²", _plain, units))), None)
    if named and _PLAUSIBLE[0] <= median * named / wanted <= _PLAUSIBLE[1]:
        return named, f"the header gives {units}, and the values agree"
    factor = 10.0 ** round(math.log10(wanted / median))
    if not 1e-3 <= factor <= _IN_MM2_S:
        return 0.0, f"a median of {median:.3g} is that of no ADC map"
    step = "mm2/s" if factor == _IN_MM2_S else f"{factor * 1e-6:.0e} mm2/s".replace("e-0", "e-")
    but = f", although the header gives {units}" if named else ""
    return factor, f"the values are in {step}, since their median is {median:.3g}{but}"


def find_middle(values: Array) -> float:
    """The median of the values above air and its noise; 0 if there is none.

    Examples:
        >>> find_middle(np.array([[[-1.0, 0.0, 0.001, 0.8, 0.8, 3.0]]]))
        0.8
    """
    finite = values[np.isfinite(values) & (values > 0)]
    if not finite.size:
        return 0.0
    return float(np.median(finite[finite > 0.05 * np.quantile(finite, 0.99)]))


def _plain(found: re.Match[str]) -> str:
    return "2" if found[0] == "²" else ""


def average_directions(images: Sequence[Array]) -> Floats:
    """The image without direction of one b-value: the geometric mean over directions, as the trace is defined.

    Args:
        images: Images (D, H, W), one for each direction; repetitions count as directions.

    Examples:
        >>> average_directions([np.full((1, 1, 1), 2), np.full((1, 1, 1), 8)]).ravel().tolist()
        [4.0]
    """
    if len(images) == 1:
        return np.asarray(images[0], np.float32)
    logs = sum(np.log(np.maximum(np.asarray(image, np.float32), 1e-6)) for image in images)
    mean = np.exp(np.asarray(logs, np.float32) / len(images))
    return np.where(mean > 1e-3, mean, 0).astype(np.float32)


class Volumes(Protocol):
    """A series or file of one or several volumes."""

    def read(self, number: int = 0) -> Volume:
        """One volume."""

    def read_all(self) -> Series:
        """All volumes (T, D, H, W)."""


def read_mean(source: Volumes, numbers: Sequence[int]) -> Volume:
    """One volume, or the image without direction of several.

    Args:
        source: Has the volumes.
        numbers: Which of them, counted from 0; one or more.

    Raises:
        ImageError: a file is gone or damaged.
        IndexError: there is no such volume.
    """
    if len(numbers) == 1:
        return source.read(numbers[0])
    series = source.read_all()
    return series.frame(numbers[0]).with_array(average_directions([series.array[number] for number in numbers]))


def compute_adc(low: Array, high: Array, b_low: float, b_high: float) -> Floats:
    """The ADC in `ADC_UNIT` from two images (D, H, W) of one grid: ln(S_low / S_high) / (b_high - b_low).

    It is 0 where an image has no signal or the result is negative, and at most 5000, above free water at 37 degrees.

    Args:
        low: Image of the lower b-value.
        high: Image without direction of the higher one.
        b_low: The lower b-value in s/mm2.
        b_high: The higher one.

    Raises:
        ValueError: the b-values do not differ.

    Examples:
        >>> compute_adc(np.full((1, 1, 1), 1000), np.full((1, 1, 1), 1000 * np.exp(-0.8)), 0, 1000).round().item()
        800.0
    """
    if b_high <= b_low:
        raise ValueError(f"an ADC needs two b-values, not {b_low:g} and {b_high:g}")
    first, second = np.asarray(low, np.float32), np.asarray(high, np.float32)
    usable = (first > 0) & (second > 0)
    ratio = np.divide(first, second, out=np.ones_like(first), where=usable)
    adc = np.log(ratio) * np.float32(_IN_MM2_S / (b_high - b_low))
    return np.asarray(np.clip(np.where(usable, adc, 0), 0, 5000), np.float32)


def read_b_values(text: str) -> Doubles:
    """The b-values of a 4-D image, from the text of the .bval file that BIDS puts beside it.

    Raises:
        ValueError: it holds something else than numbers.
    """
    return np.array([float(word) for word in text.split()], np.float64)
