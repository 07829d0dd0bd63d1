"""Bring the sequences of a case to one grid: resample them where their headers place them, or register them first.

`align` chooses the reference of a case and finds the motion of each other sequence. `Aligner` does the same for one
sequence after another and interpolates them, where the first sequence is the reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from brainsegnet._types import ItkObject
from brainsegnet.errors import GridMismatch, ImageError, MissingSequence
from brainsegnet.preprocessing.foreground import find_air
from brainsegnet.preprocessing.geometry import turn_like
from brainsegnet.preprocessing.grids import resample_array
from brainsegnet.preprocessing.registration import Pyramid, Registration, check, register
from brainsegnet.volume import REMEDY, LabelMap, V, Volume, describe_mismatch, load_itk

PLAUSIBLE_MM, PLAUSIBLE_DEGREES = 25.0, 15.0
"""Within one examination, patients move less than this; scanners of several examinations may place them otherwise."""
LARGEST_MM, LARGEST_DEGREES = 60.0, 30.0
"""A larger motion is not that of a patient."""
ANATOMICAL = frozenset({"flair", "t1", "t1c", "t2"})
LEAST_AGREEMENT = 0.6
"""Mutual information, in nats, of two anatomical sequences of one patient: some studies had 0.67 to 1.16,
and two patients 0.2 to 0.59. The studies chose the limit."""
EQUAL_SPACING = 1.02
"""Ratio up to which two slice spacings count as equal."""

How = Literal["register", "resample", "refuse"]
"""What to do with sequences: register them, trust their headers, or refuse those on other grids."""


@dataclass(frozen=True, eq=False)
class Motion:
    """How one sequence is brought to the reference.

    Attributes:
        how: `in place` on the grid of the reference, `registered`, or `resampled` where its header places it.
        registration: What registration found, also if it is not applied.
        transform: Transform of SimpleITK from points of the reference to points of the sequence; None leaves it.
        warning: Why this is doubtful, in words; empty if it is not.
    """

    how: Literal["in place", "registered", "resampled"]
    registration: Registration | None = None
    transform: ItkObject | None = None
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """The values for the report of a case."""
        if self.registration is None:
            return {"how": self.how}
        applied = self.transform is not None
        return {"how": self.how, **self.registration.to_json(), "applied": applied, "warning": self.warning}


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the sequences of a case are brought to one of them.

    Attributes:
        reference: The sequence that stays.
        motions: Each sequence to its motion, that of the reference too.
    """

    reference: str
    motions: Mapping[str, Motion]

    @property
    def warnings(self) -> dict[str, str]:
        """Sequence to the reason why its motion is doubtful, for those where it is."""
        return {name: motion.warning for name, motion in self.motions.items() if motion.warning}

    def to_json(self) -> dict[str, Any]:
        """The values for the report of a case, by sequence."""
        return {name: motion.to_json() for name, motion in self.motions.items()}


def choose_reference(images: Mapping[str, Volume], order: Sequence[str] = (), named: str | None = None) -> str:
    """The sequence to which the others are brought: the one of smallest slice spacing, unless another is named.

    Args:
        images: Each sequence on its own grid.
        order: Sequences of which the first wins where spacings are equal; then those of `images`.
        named: The sequence to take.

    Raises:
        MissingSequence: there is no such sequence.

    Examples:
        >>> thick, thin = (Volume(np.zeros((4, 4, 4)), np.diag([mm, 1.0, 1.0, 1.0])) for mm in (5, 1))
        >>> choose_reference({"flair": thick, "t1": thin, "t2": thin}, ("flair", "t2", "t1"))
        't2'
    """
    if named is not None:
        if named not in images:
            raise MissingSequence(
                f"{named} cannot be the reference, it is not there; choose one of {', '.join(images)}"
            )
        return named
    names = [*(name for name in order if name in images), *(name for name in images if name not in order)]
    slices_mm = {name: max(images[name].spacing_mm) for name in names}
    return next(name for name in names if slices_mm[name] <= EQUAL_SPACING * min(slices_mm.values()))


def align(
    case: str,
    images: Mapping[str, Volume],
    how: How = "register",
    reference: str | None = None,
    order: Sequence[str] = (),
) -> Alignment:
    """Find how each sequence of a case is brought to the reference. No image is interpolated.

    Args:
        case: Name of the case, for messages.
        images: Each sequence on its own grid.
        how: `register` finds the motion of sequences on other grids, and checks those on the reference's grid.
            `resample` trusts the headers. `refuse` allows one grid only.
        reference: Sequence that stays; None for the choice of `choose_reference`.
        order: Sequences in the order of preference as reference.

    Raises:
        GridMismatch: a sequence is on another grid and that is refused, or does not overlap the reference.
        ImageError: a sequence on another grid cannot be registered, or only by a motion that no patient makes.
        MissingSequence: the named reference is not there.
    """
    first = choose_reference(images, order, reference)
    fixed, base = images[first], Pyramid(images[first], first)
    motions = {}
    for name, image in images.items():
        if name == first:
            motions[name] = Motion("in place")
            continue
        if how == "refuse" and not image.on_grid_of(fixed):
            raise GridMismatch(f"case {case}: {describe_mismatch(name, image, first, fixed)} ({REMEDY})")
        motions[name] = find_motion(case, name, image, first, base, how == "register")
        found = motions[name].registration
        if found and found.exceeds(LARGEST_MM, LARGEST_DEGREES):
            raise ImageError(
                f"case {case}: {name} fits {first} only if it is moved by {found.motion} ({found.gain}); it may show "
                "another patient or another part of the body, or its header is wrong; leave it out or mend it"
            )
    return Alignment(first, motions)


def find_motion(case: str, name: str, image: Volume, first: str, base: Pyramid, registers: bool) -> Motion:
    """How a sequence is brought to a reference.

    Args:
        case: Name of the case, for messages.
        name: Name of the sequence, for messages.
        image: The sequence.
        first: Name of the reference, for messages.
        base: The reference.
        registers: Whether the sequence is registered, or checked if it is on the grid of the reference.

    Raises:
        ImageError: it cannot be registered.
        GridMismatch: by their headers, the two do not overlap, and registration does not help.
    """
    on_grid = image.on_grid_of(base.volume)
    try:
        found = (check if on_grid else register)(Pyramid(image, name), base) if registers else None
    except ImageError as error:
        if not on_grid:
            raise ImageError(f"case {case}: {name} cannot be registered: {error}; mend it, or leave it out") from error
        found = None
    if found and (found.clear or (found.better and not found.exceeds(PLAUSIBLE_MM, PLAUSIBLE_DEGREES))):
        return Motion("registered", found, found.transform, _doubt(found, name, first, on_grid))
    if on_grid:
        return Motion("in place")
    _check_overlap(case, name, image, first, base.volume)
    if found is None:
        return Motion("resampled")
    why = f"registration found no clearly better place ({found.gain}), so it stays where its headers place it"
    doubt = why if found.exceeds(PLAUSIBLE_MM, PLAUSIBLE_DEGREES) else _doubt_patient(found, name, first)
    return Motion("resampled", found, None, doubt)


def _doubt(found: Registration, name: str, first: str, on_grid: bool) -> str:
    """Why a registration is to be looked at: it agrees badly, is large, or the images were aligned by their headers."""
    if other := _doubt_patient(found, name, first):
        return other
    if found.exceeds(PLAUSIBLE_MM, PLAUSIBLE_DEGREES):
        how = f"moved it by {found.motion}, more than a patient is likely to move ({found.gain}); look at the result"
        return f"registration {how}"
    return (
        f"it shares the grid of {first}, but registration moved it by {found.motion} ({found.gain})" if on_grid else ""
    )


def _doubt_patient(found: Registration, name: str, first: str) -> str:
    """Why two anatomical sequences may show two patients; empty if they agree."""
    if not {name, first} <= ANATOMICAL or found.after >= LEAST_AGREEMENT:
        return ""
    return f"it hardly agrees with {first} after registration ({found.gain}); check that both are of one patient"


def _check_overlap(case: str, name: str, image: Volume, first: str, reference: Volume) -> None:
    if apart_mm := measure_distance(image, reference):
        raise GridMismatch(
            f"case {case}: {name} does not overlap {first}: the headers put them {apart_mm:.0f} mm apart; check the "
            "headers, or leave it out"
        )


@dataclass
class Aligner:
    """Brings volumes of one case to the grid of its first sequence; see `io.cases.Align`.

    A label map moves with the sequence whose grid it has: what was drawn on a moved FLAIR stays on its lesion.

    Attributes:
        case: Name of the case, for messages.
        registers: Whether images are registered. Otherwise they are only resampled where their headers place them.
        first: Name of the first sequence, for messages.
        moved: Each sequence that was moved or resampled, to how.
    """

    case: str
    registers: bool = False
    first: str = "the first sequence"
    moved: dict[str, Motion] = field(default_factory=dict)
    _grids: list[tuple[Volume, ItkObject]] = field(default_factory=list)

    def __call__(self, name: str, moving: Volume, reference: Volume) -> Volume:
        """The volume on the grid of `reference`; the same volume if it is there already and has not moved.

        Raises:
            ImageError: it cannot be registered.
            GridMismatch: by their headers, the two do not overlap.
        """
        if isinstance(moving, LabelMap):
            transforms = (transform for grid, transform in self._grids if moving.on_grid_of(grid))
            transform = next(transforms, None)
            if transform is None:
                _check_overlap(self.case, "the label map", moving, self.first, reference)
            return resample(moving, reference, transform)
        motion = find_motion(self.case, name, moving, self.first, Pyramid(reference, self.first), self.registers)
        if motion.how == "in place":
            return moving
        self.moved[name] = motion
        self._grids.append((moving.with_array(np.broadcast_to(np.uint8(0), moving.shape)), motion.transform))
        result = resample(moving, reference, motion.transform)
        if result.array.min() == result.array.max() and moving.array.min() < moving.array.max():
            raise GridMismatch(
                f"case {self.case}: {name} shows nothing where {self.first} lies; check the headers, or leave it out"
            )
        return result

    @property
    def warnings(self) -> dict[str, str]:
        """Sequence to the reason why its motion is doubtful, for those where it is."""
        return {name: motion.warning for name, motion in self.moved.items() if motion.warning}

    def to_json(self) -> dict[str, Any]:
        """How each sequence came to the grid, for the report of a case."""
        return {name: motion.to_json() for name, motion in self.moved.items()}


def measure_distance(one: Volume, other: Volume) -> float:
    """Distance in millimetres between two grids, along the axis that separates them most; 0 if they overlap.

    Two boxes are disjoint exactly if one of 15 axes separates them: the axes of each, and the normals of each pair.
    """
    frames = [volume.affine[:3, :3] / np.array(volume.spacing_mm) for volume in (one, other)]
    normals = np.cross(frames[0].T[:, None], frames[1].T[None]).reshape(-1, 3)
    lengths = np.linalg.norm(normals, axis=1)
    axes = np.vstack([frames[0].T, frames[1].T, normals[lengths > 1e-6] / lengths[lengths > 1e-6, None]])
    ends = []
    for volume in (one, other):
        outside = [(-0.5, n - 0.5) for n in volume.shape]
        corners = np.array(np.meshgrid(*outside, [1], indexing="ij")).reshape(4, -1)
        places = axes @ (volume.affine @ corners)[:3]
        ends.append((places.min(axis=1), places.max(axis=1)))
    (low, high), (other_low, other_high) = ends
    return float(max(np.maximum(low - other_high, other_low - high).max(), 0))


def resample(moving: V, reference: Volume, transform: ItkObject = None) -> V:
    """Resample a volume to the grid of another, where the headers place the two, or after a transform.

    If the grids hold the same voxels along other axes, axes are only exchanged and reversed. Otherwise images are
    interpolated linearly into float32. Beyond their edge they are background (or their lowest value if they have none).
    A voxel that is at least half background becomes background, so that a stripped brain keeps a sharp edge. Label maps
    take the nearest label, and 0 beyond their edge.

    Args:
        moving: An image, or a label map.
        reference: Volume that gives the grid.
        transform: Transform of SimpleITK from points of `reference` to points of `moving`; None leaves both in place.
    """
    if transform is None:
        stored = turn_like(moving, reference)
        if stored.on_grid_of(reference):
            return stored
    if isinstance(moving, LabelMap):
        nearest = resample_array(moving.array, moving, reference, transform, 0, load_itk().sitkNearestNeighbor)
        return type(moving)(nearest, reference.affine, reference.forms, moving.warnings)
    array = moving.array.astype(np.float32)
    air = find_air(array)
    beyond = float(array.min()) if air.kind == "none" else air.level
    moved = resample_array(array, moving, reference, transform, beyond)
    if air.kind == "exact":
        brain = air.find_foreground(array).astype(np.float32)
        moved[resample_array(brain, moving, reference, transform) < 0.5] = air.level
    return type(moving)(moved, reference.affine, reference.forms, moving.warnings)
