"""Images and label maps on their grids, cases of several images, and boxes of voxels.

Arrays are always (D, H, W): slice, row, column. The affine (4, 4) maps an index (d, h, w, 1) to millimetres. The axes
of the world are those of DICOM and ITK: x to the left, y to the back, z to the head of the patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np

from brainsegnet._types import Affine, Array, Doubles, ItkObject, Millimetres, Shape
from brainsegnet.errors import GridMismatch, LabelError

GRID_TOLERANCE_MM = 0.1
"""Largest distance between the corners of two grids that count as equal, because headers round. With small voxels the
limit is a quarter of a voxel."""
MAX_SKEW = 1e-4
"""Largest cosine between two axes that count as perpendicular; image formats cannot store other axes."""
REMEDY = "segment, train and compare: --resample"
"""Where to find the flag that brings a part of a case onto the grid of its first sequence."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image with its position in space.

    Attributes:
        array: Intensities (D, H, W): slice, row, column.
        affine: Matrix (4, 4) from an index (d, h, w, 1) to millimetres (x to the left, y to the back, z to the head).
            nibabel differs in both: its arrays are (I, J, K), and its x points to the right and its y to the front.

    Raises:
        ValueError: `array` is not 3-D, or `affine` is not (4, 4).

    Examples:
        >>> v = Volume(np.zeros((155, 240, 240)), np.diag([1.0, 1.0, 1.0, 1.0]))
        >>> v.shape, v.spacing_mm, v.voxel_ml
        ((155, 240, 240), (1.0, 1.0, 1.0), 0.001)
        >>> v
        Volume((155, 240, 240) float64, 1 x 1 x 1 mm)
    """

    array: Array
    affine: Affine

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"a volume is 3-D (D, H, W), this array has shape {self.array.shape}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"an affine is (4, 4), this one is {self.affine.shape}")

    def __repr__(self) -> str:
        """One line: voxels, type and spacing."""
        spacing = " x ".join(f"{step:.3g}" for step in self.spacing_mm)
        return f"{type(self).__name__}({self.shape} {self.array.dtype}, {spacing} mm)"

    @property
    def shape(self) -> Shape:
        """Number of voxels (D, H, W)."""
        d, h, w = self.array.shape
        return d, h, w

    @property
    def spacing_mm(self) -> Millimetres:
        """Distances between voxel centres along (D, H, W), in millimetres."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def with_array(self, array: Array) -> Self:
        """A volume with other values (D, H, W) on the same grid."""
        return replace(self, array=array)

    def on_grid_of(self, other: "Volume") -> bool:
        """Whether both volumes have the same shape and their corners agree within `GRID_TOLERANCE_MM`."""
        if self.shape != other.shape:
            return False
        tolerance_mm = min(GRID_TOLERANCE_MM, min(other.spacing_mm) / 4)
        return measure_gap(self, other) <= tolerance_mm


V = TypeVar("V", bound=Volume)


class LabelMap(Volume):
    """A volume whose voxels are integer labels; 0 is the background.

    Raises:
        LabelError: the array holds no integers.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not np.issubdtype(self.array.dtype, np.integer):
            raise LabelError(f"a label map holds integers, this one holds {self.array.dtype}")


@dataclass(frozen=True)
class Box:
    """A box of voxels within an image.

    Attributes:
        start: First voxel (D, H, W) of the box.
        stop: First voxel (D, H, W) after the box.

    Examples:
        >>> Box((0, 2, 2), (3, 5, 6)).shape
        (3, 3, 4)
    """

    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Number of voxels (D, H, W)."""
        d, h, w = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return d, h, w

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that cut the box out of an array (D, H, W)."""
        d, h, w = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return d, h, w

    @classmethod
    def around(cls, mask: Array) -> "Box":
        """The smallest box that holds every non-zero voxel of a mask.

        Args:
            mask: Array (D, H, W).

        Raises:
            ValueError: the mask is empty.

        Examples:
            >>> Box.around(np.pad(np.ones((1, 2, 3)), 4))
            Box(start=(4, 4, 4), stop=(5, 6, 7))
        """
        d, h, w = (np.flatnonzero(mask.any(axis=others)).tolist() for others in ((1, 2), (0, 2), (0, 1)))
        if not d:
            raise ValueError("no box around an empty mask")
        return cls((d[0], h[0], w[0]), (d[-1] + 1, h[-1] + 1, w[-1] + 1))


@dataclass(frozen=True, eq=False)
class Case:
    """The scan of one patient at one time: its images by sequence, all on one grid, and the true label map if known.

    Attributes:
        name: Name of the case.
        images: Sequence name to image; at least one.
        lesion: True label map in the label convention of the task, or None.

    Raises:
        GridMismatch: an image or the label map is on another grid than the first image.
        ValueError: there is no image.
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
        """The first image, whose grid is the grid of the case."""
        return next(iter(self.images.values()))


def measure_gap(part: Volume, reference: Volume) -> float:
    """The largest distance in millimetres, along x, y or z, between corresponding corners of two grids of one shape."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in part.shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.abs((part.affine - reference.affine) @ corners)[:3].max())


def describe_mismatch(name: str, part: Volume, first: str, reference: Volume) -> str:
    """How two grids differ and what to do: "t1c is ... but flair is ...; bring t1c onto flair's grid"."""
    return f"{describe_gap(name, part, first, reference)}; bring {name} onto {first}'s grid"


def describe_gap(name: str, part: Volume, first: str, reference: Volume) -> str:
    """How two grids differ: "t1c is (160, 240, 240) but flair is (155, 240, 240)"."""
    if part.shape != reference.shape:
        return f"{name} is {part.shape} but {first} is {reference.shape}"
    gap_mm = measure_gap(part, reference)
    return f"{name} and {first} have the same shape, but their affines differ by up to {gap_mm:.3g} mm"


def itk_grid(affine: Affine) -> tuple[tuple[float, ...], tuple[float, ...], Doubles]:
    """Origin, spacing and direction cosines (3, 3) of an affine, in the order of axes that ITK uses.

    ITK counts an index as (w, h, d), so spacing and the columns of the direction are reversed. Origin and spacing are
    in millimetres.
    """
    columns = affine[:3, 2::-1]
    spacing = np.linalg.norm(columns, axis=0)
    return tuple(affine[:3, 3].tolist()), tuple(spacing.tolist()), columns / spacing


def load_itk() -> ItkObject:
    """Import SimpleITK when it is first needed; a GPU machine that trains on packed scans may lack it."""
    import SimpleITK

    return SimpleITK


def build_itk(array: Array, affine: Affine) -> ItkObject:
    """Copy an array (D, H, W) and its affine to an image of SimpleITK, at the same place in the world."""
    image = load_itk().GetImageFromArray(array)
    origin, spacing, direction = itk_grid(affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    return image


def is_sheared(affine: Affine) -> bool:
    """Whether the axes of a grid are not perpendicular, or are fewer than three; see `MAX_SKEW`.

    Examples:
        >>> is_sheared(np.eye(4)), is_sheared(np.eye(4) + 0.3 * np.eye(4, k=1))
        (False, True)
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        _, _, direction = itk_grid(affine)
        return not np.abs(direction.T @ direction - np.eye(3)).max() <= MAX_SKEW
