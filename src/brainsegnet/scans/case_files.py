"""A case as files: which file, or which part of one, is which sequence; and reading them."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from brainsegnet.errors import ImageError
from brainsegnet.scans.files import read_image, read_series
from brainsegnet.scans.perfusion import MAPS, summarise
from brainsegnet.task import Task
from brainsegnet.volume import Volume

PERFUSION = "pwi"
"""A raw perfusion series; it is not a sequence itself, but gives `pwi_baseline`, `pwi_drop`, `pwi_peak`, `pwi_area`."""
Part = int | str
"""A frame of a 4-D file, counted from 0, or a map of a perfusion series by name."""


@dataclass(frozen=True)
class CaseFiles:
    """Where the parts of a case lie.

    Attributes:
        name: What the case is called.
        images: Sequence name to file, at least one.
        lesion: File of the label map, or None.
        convention: Task whose label values the label map uses; None if it is the task that is asked for.
        parts: Of the sequences that share a file with others: which part of it they are.
        layout: How the data set is laid out, in words.
    """

    name: str
    images: Mapping[str, Path]
    lesion: Path | None = None
    convention: Task | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    layout: str = field(default="", compare=False)


def spread_perfusion(images: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Part]]:
    """Files and parts of a case: a perfusion series, if it has one, stands for the maps that can be made of it.

    >>> files, parts = spread_perfusion({"adc": Path("a.nii"), "pwi": Path("p.nii")})
    >>> list(files), parts["pwi_drop"]
    (['adc', 'pwi_baseline', 'pwi_drop', 'pwi_peak', 'pwi_area'], 'drop')
    """
    files = {name: path for name, path in images.items() if name != PERFUSION}
    if PERFUSION not in images:
        return files, {}
    maps: dict[str, Part] = {f"{PERFUSION}_{part}": part for part in MAPS}
    return files | dict.fromkeys(maps, images[PERFUSION]), maps


def read_sequences(files: CaseFiles, sequences: Sequence[str]) -> list[Volume]:
    """Images of a case in the given order, one thread a file; a file that holds several of them is read once.

    Raises:
        ImageError: a file cannot be used, or has not the frame that is due.
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
    maps = summarise(series, str(path)) if any(isinstance(part, str) for part in parts.values()) else {}
    volumes = {}
    for name, part in parts.items():
        if isinstance(part, int) and part >= len(series):
            raise ImageError(
                f"{path} holds {len(series)} images, but {name} should be number {part + 1}; fetch it again"
            )
        volumes[name] = maps[part] if isinstance(part, str) else series.frame(part)
    return volumes
