"""A raw perfusion series in a few maps, from the signal alone: no arterial input, no deconvolution.

ISLES 2017 adds the raw series to the maps that a vendor's software made of it. Contrast that passes darkens a T2*
image, and -log(signal / baseline) is proportional to its concentration (Ostergaard 2005, "Principles of cerebral
perfusion imaging by bolus tracking"). Four maps keep what the series tells of a stroke:

- `baseline`: the mean before the bolus, a T2* image of the anatomy, which none of the vendor's maps shows;
- `drop`: the greatest -log(signal / baseline), how much contrast arrives;
- `peak`: frames from the arrival in the whole brain to that drop, how late it arrives;
- `area`: the sum of -log(signal / baseline) over the first passage, proportional to the blood volume.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainsegnet._types import Array
from brainsegnet.errors import ImageError
from brainsegnet.io.images import Series
from brainsegnet.volume import Volume

MAPS = ("baseline", "drop", "peak", "area")
MIN_FRAMES = 8
SETTLING = 2
"""The first frames are brighter: the magnetisation has not settled."""
ARRIVED = 0.1
"""The bolus has arrived where the mean signal has lost this share of its greatest loss."""
DARK = 0.1
"""Air is darker than this share of the brightest tissue (99th percentile)."""


@dataclass(frozen=True)
class Bolus:
    """When contrast passes, in frames: the baseline is `first` to `arrival`, the first passage `arrival` to `end`."""

    first: int
    arrival: int
    end: int


def summarise(series: Series, name: str = "the perfusion series") -> Mapping[str, Volume]:
    """Baseline, drop, peak and area of a series (T, D, H, W), each (D, H, W) float32 and 0 in the air.

    Args:
        series: The signal over time.
        name: What it is called in the message.

    Raises:
        ImageError: too few frames, or no passage of contrast.
    """
    if len(series) < MIN_FRAMES:
        raise ImageError(f"{name} has {len(series)} frames, a perfusion series has {MIN_FRAMES} or more; leave it out")
    tissue = _find_tissue(series.array[SETTLING:].mean(axis=0, dtype=np.float32))
    bolus = find_bolus(series.array[:, tissue].mean(axis=1, dtype=np.float64), name)
    baseline = series.array[bolus.first : bolus.arrival].mean(axis=0, dtype=np.float32)
    tissue &= baseline > 0
    contrast = _find_contrast(series.array[bolus.arrival : bolus.end, tissue], baseline[tissue])
    values = (baseline[tissue], contrast.max(axis=0), contrast.argmax(axis=0), contrast.sum(axis=0))
    return {name: _spread(part, tissue, series) for name, part in zip(MAPS, values, strict=True)}


def find_bolus(curve: NDArray[np.float64], name: str = "the perfusion series") -> Bolus:
    """When contrast passes, from the mean signal of the brain over time (T,).

    The first passage ends as many frames after the darkest one as lie between arrival and it, twice over.

    Raises:
        ImageError: the signal does not fall after a baseline.

    >>> find_bolus(np.array([120, 104, 100, 101, 100, 99, 80, 50, 70, 90, 95, 96, 96, 96.0]))
    Bolus(first=2, arrival=6, end=12)
    """
    lowest = SETTLING + int(np.argmin(curve[SETTLING:]))
    before = curve[SETTLING:lowest]
    level = float(np.median(before)) if before.size else curve[lowest]
    flat = np.flatnonzero(before >= level - ARRIVED * (level - curve[lowest]))
    if not (level > curve[lowest] and flat.size):
        raise ImageError(
            f"{name} shows no passage of contrast: its signal does not fall after a baseline; leave it out"
        )
    arrival = SETTLING + int(flat[-1]) + 1
    return Bolus(SETTLING, arrival, min(lowest + 2 * (lowest - arrival + 1) + 1, len(curve)))


def _find_tissue(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(image > DARK * np.percentile(image, 99))


def _find_contrast(signal: Array, baseline: Array) -> NDArray[np.float32]:
    """-log(signal / baseline) (T, N); a signal of nothing counts as a hundredth of the baseline."""
    share = np.maximum(signal.astype(np.float32) / baseline, np.float32(0.01))
    return np.asarray(-np.log(share), np.float32)


def _spread(values: Array, tissue: NDArray[np.bool_], series: Series) -> Volume:
    whole = np.zeros(tissue.shape, np.float32)
    whole[tissue] = values
    return Volume(whole, series.affine)
