"""An image or a label map on its grid, a case of several images, and boxes within them.

Arrays are always (D, H, W): slice, row, column. The affine maps an index (d, h, w, 1) to millimetres in the world of
DICOM and ITK: x to the left, y to the back, z to the head of the patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np

from brainsegnet._types import Affine, Array, Doubles, ItkObject, Millimetres, Shape
from brainsegnet.errors import GridMismatch, LabelError

GRID_TOLERANCE_MM = 0.1
"""Corners of two grids may differ by this much, and by a quarter of a voxel where voxels are small: headers round."""
MAX_SKEW = 1e-4
"""Axes are at right angles where the cosines between them are no larger: image formats cannot hold others."""
REMEDY = "segment, train and compare: --resample"
"""The flag that brings a part of a case onto the grid of its first sequence."""


@dataclass(frozen=True, eq=False)
class Volume:
    """An image (D, H, W) on its grid, whose affine (4, 4) leads from an index (d, h, w, 1) to millimetres.

    Raises:
        ValueError: `array` is not 3-D or `affine` is not (4, 4).

    >>> v = Volume(np.zeros((155, 240, 240)), np.diag([1.0, 1.0, 1.0, 1.0]))
    >>> v.shape, v.spacing_mm, v.voxel_ml
    ((155, 240, 240), (1.0, 1.0, 1.0), 0.001)
    """

    array: Array
    affine: Affine

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"a volume is 3-D (D, H, W), this array has shape {self.array.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is (4, 4), this one is {self.affine.shape}")

    @property
    def shape(self) -> Shape:
        """(D, H, W)."""
        d, h, w = self.array.shape
        return d, h, w

    @property
    def spacing_mm(self) -> Millimetres:
        """Distance between voxel centres along (D, H, W), in millimetres."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def with_array(self, array: Array) -> Self:
        """The same grid with other values (D, H, W)."""
        return replace(self, array=array)

    def on_grid_of(self, other: "Volume") -> bool:
        """Whether both grids have the same shape and their corners agree; see `GRID_TOLERANCE_MM`."""
        if self.shape != other.shape:
            return False
        tolerance_mm = min(GRID_TOLERANCE_MM, min(other.spacing_mm) / 4)
        return measure_gap(self, other) <= tolerance_mm


V = TypeVar("V", bound=Volume)


class LabelMap(Volume):
    """A volume of integer labels, another type is a `LabelError`; 0 is the background."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.issubdtype(self.array.dtype, np.integer):
            raise LabelError(f"a label map holds integers, this one holds {self.array.dtype}")


@dataclass(frozen=True)
class Box:
    """A box of voxels: `start` included, `stop` excluded, both (D, H, W).

    >>> Box((0, 2, 2), (3, 5, 6)).shape
    (3, 3, 4)
    """

    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """(D, H, W)."""
        d, h, w = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return d, h, w

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To index an array (D, H, W)."""
        d, h, w = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return d, h, w

    @classmethod
    def around(cls, mask: Array) -> "Box":
        """The smallest box that holds every non-zero voxel of `mask` (D, H, W).

        Raises:
            ValueError: the mask is empty.

        >>> Box.around(np.pad(np.ones((1, 2, 3)), 4))
        Box(start=(4, 4, 4), stop=(5, 6, 7))
        """
        d, h, w = (np.flatnonzero(mask.any(axis=others)).tolist() for others in ((1, 2), (0, 2), (0, 1)))
        if not d:
            raise ValueError("no box around an empty mask")
        return cls((d[0], h[0], w[0]), (d[-1] + 1, h[-1] + 1, w[-1] + 1))


@dataclass(frozen=True, eq=False)
class Case:
    """One patient's scan: images by sequence, all on one grid, and the lesion, labelled as the task says, if known.

    Raises:
        GridMismatch: an image or the lesion is on another grid than the first image.
    """

    name: str
    images: Mapping[str, Volume]
    lesion: LabelMap | None = None

    def __post_init__(self) -> None:
        if not self.images:
            raise ValueError(f"case {self.name} has no image")
        (first, reference), *others = self.images.items()
        for name, part in (*others, *([("the label map", self.lesion)] if self.lesion else [])):
            if not part.on_grid_of(reference):
                raise GridMismatch(f"case {self.name}: {describe_mismatch(name, part, first, reference)} ({REMEDY})")

    @property
    def reference(self) -> Volume:
        """The first image: its grid is the grid of the case."""
        return next(iter(self.images.values()))


def measure_gap(part: Volume, reference: Volume) -> float:
    """The largest distance along x, y or z between corresponding corners of two grids of one shape, in millimetres."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in part.shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.abs((part.affine - reference.affine) @ corners)[:3].max())


def describe_mismatch(name: str, part: Volume, first: str, reference: Volume) -> str:
    """How two grids differ and what to do, as in "t1c is ... but flair is ...; bring t1c onto flair's grid"."""
    return f"{describe_gap(name, part, first, reference)}; bring {name} onto {first}'s grid"


def describe_gap(name: str, part: Volume, first: str, reference: Volume) -> str:
    """How two grids differ, as in "t1c is (160, 240, 240) but flair is (155, 240, 240)"."""
    if part.shape != reference.shape:
        return f"{name} is {part.shape} but {first} is {reference.shape}"
    gap_mm = measure_gap(part, reference)
    return f"{name} and {first} have the same shape, but their affines differ by up to {gap_mm:.3g} mm"


def itk_grid(affine: Affine) -> tuple[tuple[float, ...], tuple[float, ...], Doubles]:
    """Origin and spacing in millimetres (x, y, z) and the direction cosines (3, 3) that ITK keeps for an affine.

    ITK counts its index (w, h, d), so spacing and the columns of the direction run the other way round.
    """
    columns = affine[:3, 2::-1]
    spacing = np.linalg.norm(columns, axis=0)
    return tuple(affine[:3, 3].tolist()), tuple(spacing.tolist()), columns / spacing


def load_itk() -> ItkObject:
    """SimpleITK, loaded where it is first needed: where a GPU trains on packed scans it may be absent."""
    import SimpleITK

    if not hasattr(SimpleITK, "ImageFileReader"):  # its import failed in another thread, for lack of memory
        raise MemoryError
    return SimpleITK


def build_itk(array: Array, affine: Affine) -> ItkObject:
    """An image (D, H, W) as one of SimpleITK, its voxels where they are in the world: a copy."""
    image = load_itk().GetImageFromArray(array)
    origin, spacing, direction = itk_grid(affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image


def is_sheared(affine: Affine) -> bool:
    """Whether the axes of a grid are not at right angles, or not three; see `MAX_SKEW`.

    >>> is_sheared(np.eye(4)), is_sheared(np.eye(4) + 0.3 * np.eye(4, k=1))
    (False, True)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        _, _, direction = itk_grid(affine)
        return not np.abs(direction.T @ direction - np.eye(3)).max() <= MAX_SKEW
