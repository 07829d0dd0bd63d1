"""Heads for realistic cases: from a folder of label maps, from the ICBM152 template in nilearn, or from a seed.

What reads images is imported where one is read: heads from a seed, or packed in one file, need no such library.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from brainsegnet.errors import DatasetError, MissingExtra, TaskError
from brainsegnet.output import replacing
from brainsegnet.preprocessing.orientation import find_turn, turn
from brainsegnet.synthesis.anatomy import FIELD_MM, spacing_for
from brainsegnet.synthesis.heads import Anatomy, from_freesurfer, from_probabilities, from_seed
from brainsegnet.volume import Volume

if TYPE_CHECKING:
    from types import ModuleType

Shape = tuple[int, int, int]
PROCEDURAL = "procedural"
TEMPLATE = "icbm152"
PACKED = ".npz"
ONE_MILLIMETRE: Shape = (int(FIELD_MM[0]), int(FIELD_MM[1]), int(FIELD_MM[2]))
"""Voxels (D, H, W) of a procedural head at 1 mm."""


def open_anatomies(which: str | Path, shape: Shape | None = None) -> Callable[[int], Anatomy]:
    """A function from a case's number to its anatomy.

    Args:
        which: `icbm152`, `procedural`, or a folder of label maps with FreeSurfer's values, taken in turn; or a file
            that `pack_anatomies` made of one.
        shape: Voxels (D, H, W) of a procedural head, by default of 1 mm; the others keep their own grid.

    Raises:
        TaskError: a shape for heads that keep their own.
        DatasetError: no folder of that name, or no image in it.
        MissingExtra: nilearn is not installed.
        ImageError: the shape is too coarse; later, for a file that is no whole-brain segmentation.
    """
    if shape is not None and which != PROCEDURAL:
        raise TaskError(f"heads of {which} keep their own grid; leave the shape out, or take the anatomy {PROCEDURAL}")
    if which == PROCEDURAL:
        shape = shape or ONE_MILLIMETRE
        spacing_for(shape)
        return lambda number: from_seed(np.random.default_rng([number, 152]), shape)
    if which == TEMPLATE:
        template = _read_template()
        return lambda _: template
    if Path(which).suffix == PACKED:
        heads = _unpack(Path(which))
        return lambda number: heads[number % len(heads)]
    files = _label_maps(Path(which))
    read = lru_cache(maxsize=64)(_read_labels)
    return lambda number: read(files[number % len(files)])


def pack_anatomies(folder: Path, path: Path) -> int:
    """Put the heads of a folder of label maps into one file (.npz), for a machine without a library for images.

    Returns:
        Their number.

    Raises:
        DatasetError, ImageError: as `open_anatomies`.
        OutputError: the file cannot be written.
    """
    heads = [_read_labels(file) for file in _label_maps(folder)]
    entries = {f"{kind}{i}": getattr(head, kind) for i, head in enumerate(heads) for kind in ("tissue", "affine")}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **entries)
    return len(heads)


def _unpack(path: Path) -> list[Anatomy]:
    """What `pack_anatomies` wrote."""
    try:
        with np.load(path, allow_pickle=False) as entries:
            count = max(1, len(entries.files) // 2)
            pairs = [(entries[f"tissue{i}"], entries[f"affine{i}"]) for i in range(count)]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise DatasetError(f"{path} holds no packed heads; write it with benchmarks/pack.py --heads") from error
    return [Anatomy(tissue, Volume(tissue, affine).spacing_mm, affine) for tissue, affine in pairs]


def default_anatomy() -> str:
    """`icbm152` where nilearn is installed, which carries it, else `procedural`."""
    return PROCEDURAL if find_spec("nilearn") is None else TEMPLATE


def load_realistic() -> "ModuleType":
    """The module that renders, which needs torch.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        from brainsegnet.synthesis import realistic
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra('realistic cases need torch; run: pip install "brainsegnet[train]"') from error
    return realistic


def _label_maps(folder: Path) -> list[Path]:
    """The images of a folder, by name."""
    from brainsegnet.scans.files import READERS

    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(tuple(READERS))) if folder.is_dir() else []
    if not files:
        raise DatasetError(
            f"{folder} holds no label maps; name a folder of FreeSurfer segmentations ({', '.join(READERS)}), "
            f"or choose {TEMPLATE} or {PROCEDURAL}"
        )
    return files


def _read_labels(path: Path) -> Anatomy:
    return from_freesurfer(_upright(path), str(path))


def _read_template() -> Anatomy:
    """The template's probabilities, without an import of nilearn."""
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra('the ICBM152 template comes with nilearn; run: pip install "brainsegnet[synthesis]"')
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    grey, white = (_upright(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("gm", "wm"))
    return from_probabilities(grey, white)


def _upright(path: Path) -> Volume:
    from brainsegnet.scans.files import read_image

    volume = read_image(path)
    return turn(volume, find_turn(volume.affine))
