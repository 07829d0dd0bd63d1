"""Prepared scans in one small file, for a machine that has a GPU and nothing to read images with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from brainsegnet._atomic import replacing
from brainsegnet._types import Floats
from brainsegnet.anatomy.label_maps import find_label_maps, read_label_map
from brainsegnet.errors import DatasetError
from brainsegnet.training.sampler import Scan

LEVELS = 255
"""Levels of an intensity in the brain; 0 stays what is outside it."""


@dataclass(frozen=True)
class Pack:
    """Prepared scans by case name, all with the same sequences, and the name of their task."""

    task: str
    sequences: tuple[str, ...]
    scans: Mapping[str, Scan]


def write_pack(pack: Pack, path: Path) -> None:
    """Write to a compressed .npz, 8 bits a voxel: about 1 MB a sequence of a BRATS scan.

    An intensity is kept within half a 254th of the range that its sequence has in the scan.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    entries: dict[str, NDArray[np.generic]] = {}
    for name, scan in pack.scans.items():
        levels, low, step = _quantise(scan.image)
        entries |= {f"{name}/levels": levels, f"{name}/low": low, f"{name}/step": step, f"{name}/classes": scan.classes}
    places = {name: (scan.depth, scan.first, scan.spacing_mm) for name, scan in pack.scans.items()}
    notes = json.dumps({"task": pack.task, "sequences": pack.sequences, "scans": places})
    entries["notes"] = np.frombuffer(notes.encode(), np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **entries)


def pack_anatomies(folder: Path, path: Path) -> int:
    """Write the FreeSurfer label maps of a folder to one .npz, which `open_anatomies` reads; return their number.

    Raises:
        DatasetError, ImageError: the folder holds no label map, or one of something else.
        OutputError: the file cannot be written.
    """
    entries: dict[str, NDArray[np.generic]] = {}
    for number, file in enumerate(find_label_maps(folder)):
        anatomy = read_label_map(file)
        entries |= {f"tissue{number}": anatomy.array, f"affine{number}": anatomy.affine}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **entries)
    return len(entries) // 2


def read_pack(path: Path) -> Pack:
    """What `write_pack` wrote; packs that were written before spacings were kept get 1 mm.

    Raises:
        DatasetError: no such file, or another kind of file.
    """
    try:
        with np.load(path, allow_pickle=False) as entries:
            notes = json.loads(entries["notes"].tobytes())
            scans = {
                name: Scan(
                    *_unpack(entries, name),
                    depth,
                    first,
                    tuple(spacing_mm[0]) if spacing_mm else (1.0, 1.0, 1.0),
                    name=name,
                )
                for name, (depth, first, *spacing_mm) in notes["scans"].items()
            }
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; write it with benchmarks/pack.py") from error
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise DatasetError(
            f"{path} is no whole pack of prepared scans; write it again with benchmarks/pack.py"
        ) from error
    return Pack(notes["task"], tuple(notes["sequences"]), scans)


def _quantise(image: Floats) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """Levels (C, D, H, W), and the value of level 1 and the step between levels of each sequence."""
    low, high = image.min((1, 2, 3)), image.max((1, 2, 3))
    step = np.maximum(high - low, np.float32(1e-6)) / (LEVELS - 1)
    levels = 1 + np.rint((image - _each(low)) / _each(step))
    return np.where(image == 0, 0, levels).astype(np.uint8), low, step


def _unpack(entries: Mapping[str, NDArray[Any]], name: str) -> tuple[Floats, NDArray[np.uint8]]:
    """Intensities and classes of a scan."""
    levels, low, step, classes = (entries[f"{name}/{part}"] for part in ("levels", "low", "step", "classes"))
    values = (levels.astype(np.float32) - 1) * _each(step) + _each(low)
    return np.where(levels == 0, np.float32(0), values), classes


def _each(values: Floats) -> Floats:
    """One value per sequence, to be combined with (C, D, H, W)."""
    return values[:, None, None, None]
