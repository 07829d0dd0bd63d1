"""A case as files: which file, or which part of a file, is which sequence; and reading its images.

A part is a frame of a 4-D file, or one of four maps of a raw perfusion series, which ISLES 2017 adds to its cases. The
maps come from the signal alone, without arterial input or deconvolution. Contrast that passes darkens a T2* image, and
-log(signal / baseline) is proportional to its concentration (Ostergaard 2005, "Principles of cerebral perfusion imaging
by bolus tracking").
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainsegnet._types import Array, Floats, Mask
from brainsegnet.errors import ImageError
from brainsegnet.io.images import Series, read_image, read_series
from brainsegnet.task import Task
from brainsegnet.volume import Volume

LESION = "lesion"
"""Name of the label map of a case, beside the names of its sequences."""
PERFUSION = "pwi"
"""A raw perfusion series; it is no sequence itself, but gives `pwi_baseline`, `pwi_drop`, `pwi_peak`, `pwi_area`."""
MAPS = ("baseline", "drop", "peak", "area")
"""Mean signal before the bolus; greatest -log(signal / baseline), how much contrast arrives; frames from its arrival in
the brain to that drop, how late it arrives; sum over the first passage, proportional to the blood volume."""
MIN_FRAMES = 8
SETTLING = 2
"""The first frames are brighter: the magnetisation has not settled."""
ARRIVED = 0.1
"""The bolus has arrived where the mean signal has lost this share of its greatest loss."""
DARK = 0.1
"""Air is darker than this share of the brightest tissue (99th percentile)."""
Part = int | str
"""A frame of a 4-D file, counted from 0, or a map of a perfusion series by name."""


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case.

    Attributes:
        name: What the case is called.
        images: Sequence name to file, at least one.
        lesion: File of the label map, or None.
        convention: Task whose label values the label map uses; None if it is the task that is asked for.
        parts: Of the sequences that share a file with others: which part of it they are.
        layout: Name of the layout of its data set.
    """

    name: str
    images: Mapping[str, Path]
    lesion: Path | None = None
    convention: Task | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    layout: str = field(default="", compare=False)

    @classmethod
    def of(cls, name: str, files: Mapping[str, Path], convention: Task | None, layout: str) -> "CaseFiles | None":
        """A case whose files have the names of sequences, or `lesion`; None if there is no image.

        A perfusion series stands for the maps that can be made of it.

        >>> case = CaseFiles.of("pat1", {"adc": Path("a.nii"), "pwi": Path("p.nii")}, None, "")
        >>> list(case.images), case.parts["pwi_drop"]
        (['adc', 'pwi_baseline', 'pwi_drop', 'pwi_peak', 'pwi_area'], 'drop')
        """
        images = {sequence: path for sequence, path in files.items() if sequence not in (PERFUSION, LESION)}
        parts: dict[str, Part] = {f"{PERFUSION}_{part}": part for part in MAPS} if PERFUSION in files else {}
        images |= {name: files[PERFUSION] for name in parts}
        return cls(name, images, files.get(LESION), convention, parts, layout) if images else None


def read_sequences(files: CaseFiles, sequences: Sequence[str]) -> list[Volume]:
    """Images of a case in the given order, one thread a file; a file that holds several of them is read once.

    Raises:
        ImageError: a file cannot be used, or lacks a frame.
    """
    alone = [(files.images[name], [name]) for name in sequences if name not in files.parts]
    shared: dict[Path, list[str]] = {}
    for name in sequences:
        if name in files.parts:
            shared.setdefault(files.images[name], []).append(name)
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda file: _read_file(files, *file), [*alone, *shared.items()])
        volumes = {name: volume for found in read for name, volume in found.items()}
    return [volumes[name] for name in sequences]


def _read_file(files: CaseFiles, path: Path, names: Sequence[str]) -> dict[str, Volume]:
    parts = {name: files.parts[name] for name in names if name in files.parts}
    if not parts:
        return {name: read_image(path) for name in names}
    series = read_series(path)
    maps = map_perfusion(series, str(path)) if any(isinstance(part, str) for part in parts.values()) else {}
    volumes = {}
    for name, part in parts.items():
        if isinstance(part, int) and part >= len(series):
            count, due = len(series), part + 1
            raise ImageError(f"{path} holds {count} images, but {name} should be number {due}; fetch it again")
        volumes[name] = maps[part] if isinstance(part, str) else series.frame(part)
    return volumes


def map_perfusion(series: Series, name: str = "the perfusion series") -> Mapping[str, Volume]:
    """The four `MAPS` of a perfusion series (T, D, H, W), each (D, H, W) float32 and 0 in the air.

    Args:
        series: The signal over time.
        name: What it is called in the message.

    Raises:
        ImageError: too few frames, or no passage of contrast.
    """
    if len(series) < MIN_FRAMES:
        raise ImageError(f"{name} has {len(series)} frames, a perfusion series has {MIN_FRAMES} or more; leave it out")
    mean = series.array[SETTLING:].mean(axis=0, dtype=np.float32)
    tissue: Mask = mean > DARK * np.percentile(mean, 99)
    first, arrival, end = find_bolus(series.array[:, tissue].mean(axis=1, dtype=np.float64), name)
    baseline = series.array[first:arrival].mean(axis=0, dtype=np.float32)
    tissue &= baseline > 0
    contrast = _measure_contrast(series.array[arrival:end, tissue], baseline[tissue])
    values = (baseline[tissue], contrast.max(axis=0), contrast.argmax(axis=0), contrast.sum(axis=0))
    return {name: _spread(part, tissue, series) for name, part in zip(MAPS, values, strict=True)}


def find_bolus(curve: NDArray[np.float64], name: str = "the perfusion series") -> tuple[int, int, int]:
    """When contrast passes, from the mean signal of the brain over time (T,).

    From the darkest frame to the end of the first passage it takes twice as long as from the arrival to the darkest
    frame.

    Returns:
        Frames: where the baseline begins, where contrast arrives, and the first one after its first passage.

    Raises:
        ImageError: the signal does not fall after a baseline.

    >>> find_bolus(np.array([120, 104, 100, 101, 100, 99, 80, 50, 70, 90, 95, 96, 96, 96.0]))
    (2, 6, 12)
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
    return SETTLING, arrival, min(lowest + 2 * (lowest - arrival + 1) + 1, len(curve))


def _measure_contrast(signal: Array, baseline: Array) -> Floats:
    """-log(signal / baseline) (T, N); a signal of nothing counts as a hundredth of the baseline."""
    share = np.maximum(signal.astype(np.float32) / baseline, np.float32(0.01))
    return np.asarray(-np.log(share), np.float32)


def _spread(values: Array, tissue: Mask, series: Series) -> Volume:
    whole = np.zeros(tissue.shape, np.float32)
    whole[tissue] = values
    return Volume(whole, series.affine)
