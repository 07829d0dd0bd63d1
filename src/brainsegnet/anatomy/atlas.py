"""Where in the brain a lesion lies: side, and cerebrum, cerebellum or brain stem; in the cerebrum deep or cortical.

The atlas is an average of label maps of healthy heads, and of their mirror images, on a grid of 2 mm. It is brought to
a patient by the shape of the brain alone: the affine transform under which both brain masks agree best. So it needs no
particular sequence, and no lesion disturbs it but by its mass effect.

*Deep* is what is nearer to the lateral and third ventricles, the basal ganglia or the thalamus than to the cortex, and
these themselves. *Cortical* is the rest of the cerebrum: cortex, hippocampus, amygdala and the white matter below the
cortex.

`tools/build_atlas.py` makes the file from the training label maps of SynthSeg (Billot et al. 2023, Apache-2.0), and
measures how often the place is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from brainsegnet._types import Affine, Doubles, Floats, ItkObject, Labels, Mask, Shape
from brainsegnet.errors import ImageError
from brainsegnet.metrics.lesions import Site
from brainsegnet.metrics.scores import dice
from brainsegnet.preprocessing.registration import average, one_thread
from brainsegnet.volume import LabelMap, Volume, build_itk, load_itk

ATLAS = Path(__file__).with_name("atlas.npz")
PARTS = ("cerebrum, cortical", "cerebrum, deep", "cerebellum", "brain stem")
"""Part k has the value k + 1 in the atlas at the right side of the patient, and `LEFT` more at the left."""
LEFT = len(PARTS)
BOTH_FROM = 0.2
"""Share of a lesion at the other side from which it lies at both."""
FIT_MM = 4.0
"""Voxel size at which brain masks are compared."""
BLUR_MM = 4.0
"""Standard deviation of the Gaussian that blurs masks, so that they are compared beyond their surfaces too."""
LEAST_BRAIN_ML = 300.0
LEAST_AGREEMENT = 0.85
"""Dice of the brain masks after the fit, below which the atlas does not tell a place."""
STEPS = 150


@dataclass(frozen=True)
class Tested:
    """How often an atlas was right.

    Attributes:
        lesions: Number of balls that were tried.
        side: Share of them with the right side.
        part: Share of them with the right part.
        deep: Share of the balls that are deep in the cerebrum with the right part.
    """

    lesions: int
    side: float
    part: float
    deep: float


@dataclass(frozen=True, eq=False)
class BrainAtlas:
    """The atlas in its own space, whose x is 0 between the sides.

    Attributes:
        parts: Values of `PARTS` and sides (D, H, W); voxels outside the brain have the value of the nearest inside.
        brain: Share of the heads whose brain covers a voxel (D, H, W), 0 to 1, on the same grid.
        tested: How often it was right in heads left out of the average. None if it was not tested.
    """

    parts: LabelMap
    brain: Volume
    tested: Tested | None = None

    def fit(self, brain: LabelMap) -> "PlacedAtlas":
        """Bring the atlas to a patient.

        Args:
            brain: Brain mask (D, H, W) of the patient, on any grid, which may cut a part of the brain off.

        Raises:
            ImageError: the mask is no brain, or the atlas does not fit it.
        """
        if (ml := np.count_nonzero(brain.array) * brain.voxel_ml) < LEAST_BRAIN_ML:
            raise ImageError(f"a brain of {ml:.0f} ml is too small to tell places in it; give a mask of a whole brain")
        patient = average(Volume((brain.array != 0).astype(np.float32), brain.affine), FIT_MM)
        matrix = fit_mask(patient, self.brain)
        placed = PlacedAtlas(self.parts, matrix, _measure_agreement(patient, self.brain, matrix))
        if placed.agreement < LEAST_AGREEMENT:
            raise ImageError(
                f"the atlas agrees with the brain by a Dice of {placed.agreement:.2f} only, and tells no place from "
                f"less than {LEAST_AGREEMENT}; check the brain mask"
            )
        return placed


@dataclass(frozen=True, eq=False)
class PlacedAtlas:
    """The atlas in the space of a patient.

    Attributes:
        parts: As in `BrainAtlas`.
        matrix: (4, 4) from points of the patient to points of the atlas, in millimetres.
        agreement: Dice of both brain masks, within the field of view of the patient's.
    """

    parts: LabelMap
    matrix: Affine
    agreement: float

    def look_up(self, points_mm: Doubles) -> Labels:
        """The values (N,) of the atlas at points (N, 3) of the patient."""
        to_index = np.linalg.inv(self.parts.affine) @ self.matrix
        index = np.rint(points_mm @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
        d, h, w = np.clip(index, 0, np.array(self.parts.shape) - 1).T
        return np.asarray(self.parts.array[d, h, w])

    def locate(self, points_mm: Doubles) -> Site:
        """The side and the part of the brain that hold most of these points (N, 3) of the patient."""
        return describe_site(self.look_up(points_mm))


def describe_site(values: Labels) -> Site:
    """Side and part from the values of the atlas in a lesion.

    Examples:
        >>> describe_site(np.array([5, 5, 5, 6, 1], np.uint8))
        Site(side='both', place='cerebrum, cortical', share=0.8)
    """
    counts = np.bincount(values, minlength=2 * LEFT + 1)[1 : 2 * LEFT + 1].reshape(2, LEFT)
    total = max(1, int(counts.sum()))
    right, left = (counts.sum(axis=1) / total).tolist()
    side = "both" if min(right, left) >= BOTH_FROM else "left" if left > right else "right"
    parts = counts.sum(axis=0)
    most = int(parts.argmax())
    return Site(side, PARTS[most], float(parts[most] / total))


@cache
def load_atlas() -> BrainAtlas:
    """The atlas of the package."""
    with np.load(ATLAS, allow_pickle=False) as entries:
        parts, brain, affine = entries["parts"], entries["brain"], entries["affine"]
        lesions, *shares = entries["tested"].tolist()
    tested = Tested(int(lesions), *shares)
    return BrainAtlas(LabelMap(parts, affine), Volume(brain.astype(np.float32) / 255, affine), tested)


def fit_mask(patient: Volume, atlas: Volume) -> Affine:
    """The affine matrix (4, 4), from points of one brain mask to those of another, under which they agree best.

    Masks (D, H, W) have values from 0 to 1. Only the field of view of the first is compared. The fit starts from the
    moments of both masks, and, in case a part is cut off, from where their tops meet.
    """
    fixed, moving = (build_itk(_blur(mask), mask.affine) for mask in (patient, atlas))
    with one_thread():
        fits = [_climb(fixed, moving, start) for start in _list_starts(patient, atlas)]
    return min(fits, key=lambda fit: fit[0])[1]


def _blur(mask: Volume) -> Floats:
    sigma = [BLUR_MM / mm for mm in mask.spacing_mm]
    return np.asarray(ndimage.gaussian_filter(mask.array.astype(np.float32), sigma, mode="nearest"))


def _list_starts(patient: Volume, atlas: Volume) -> list[Affine]:
    """Matrices that only scale and shift along the axes of the patient."""
    (here, there), starts = (_list_points(mask) for mask in (patient, atlas)), []
    scales = there.std(axis=0) / here.std(axis=0)
    tops = [np.percentile(points[:, 2], 99) for points in (here, there)]
    starts.append((np.clip(scales, 0.7, 1.4), here.mean(axis=0), there.mean(axis=0)))
    wide = np.full(3, float(np.clip(scales[:2].mean(), 0.7, 1.4)))
    middles = [points.mean(axis=0) for points in (here, there)]
    starts.append((wide, np.array([*middles[0][:2], tops[0]]), np.array([*middles[1][:2], tops[1]])))
    return [_scale_about(*start) for start in starts]


def _list_points(mask: Volume) -> Doubles:
    return np.asarray(np.argwhere(mask.array > 0.5) @ mask.affine[:3, :3].T + mask.affine[:3, 3])


def _scale_about(scales: Doubles, here: Doubles, there: Doubles) -> Affine:
    matrix = np.diag([*scales, 1.0])
    matrix[:3, 3] = there - scales * here
    return matrix


def _climb(fixed: ItkObject, moving: ItkObject, start: Affine) -> tuple[float, Affine]:
    """The mean squared difference, and the matrix, after a descent from a matrix."""
    sitk = load_itk()
    centre = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    motion = sitk.AffineTransform(3)
    motion.SetCenter(centre)
    motion.SetMatrix(start[:3, :3].ravel().tolist())
    motion.SetTranslation((start[:3, :3] @ centre + start[:3, 3] - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(4.0, 0.05, STEPS, gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScales([60.0**2] * 9 + [1.0] * 3)
    method.SetInitialTransform(motion, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:
        return np.inf, start
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(motion.GetMatrix(), (3, 3))
    matrix[:3, 3] = motion.TransformPoint((0.0, 0.0, 0.0))
    return float(method.GetMetricValue()), matrix


def _measure_agreement(patient: Volume, atlas: Volume, matrix: Affine) -> float:
    """Dice of two masks within the grid of the first."""
    index = np.indices(patient.shape).reshape(3, -1)
    to_atlas = np.linalg.inv(atlas.affine) @ matrix @ patient.affine
    at = to_atlas[:3, :3] @ index + to_atlas[:3, 3:]
    there = ndimage.map_coordinates(atlas.array, at, order=1).reshape(patient.shape) > 0.5
    return dice(np.asarray(patient.array > 0.5), np.asarray(there))


def average_atlas(heads: Sequence[tuple[LabelMap, LabelMap]], spacing_mm: float = 2.0, rounds: int = 2) -> BrainAtlas:
    """An atlas from heads: the parts of each, 0 where there is none, and its brain mask, on one grid each.

    Brains are fitted to their average, and these are averaged, `rounds` times; with mirror images, so x is 0 between
    the sides.
    """
    half = [round(mm / spacing_mm) for mm in (84, 100, 80)]
    affine = np.eye(4)[[2, 1, 0, 3]] * [spacing_mm, spacing_mm, spacing_mm, 1]
    affine[:3, 3] = [-(n - 0.5) * spacing_mm for n in half[::-1]]
    shape = (2 * half[0], 2 * half[1], 2 * half[2])
    masks = [Volume(brain.array.astype(np.float32), brain.affine) for _, brain in heads]
    points = [_list_points(mask) for mask in masks]
    spread = np.mean([each.std(axis=0) for each in points], axis=0)
    matrices = [_scale_about(spread / each.std(axis=0), each.mean(axis=0), np.zeros(3)) for each in points]
    for turn in range(rounds):
        warped = np.mean(
            [_bring(mask, matrix, affine, shape, 1) for mask, matrix in zip(masks, matrices, strict=True)], 0
        )
        brain = Volume(((warped + warped[..., ::-1]) / 2).astype(np.float32), affine)
        if turn + 1 < rounds:
            matrices = [fit_mask(average(mask, FIT_MM), brain) for mask in masks]
    votes = np.zeros((2 * LEFT + 1, *shape), np.float32)
    for (parts, _), matrix in zip(heads, matrices, strict=True):
        found = _bring(parts, matrix, affine, shape, 0)
        for value in range(1, 2 * LEFT + 1):
            votes[value] += found == value
    mirrored = votes[[0, *range(LEFT + 1, 2 * LEFT + 1), *range(1, LEFT + 1)]][..., ::-1]
    total = votes + mirrored
    most = (1 + total[1:].argmax(axis=0)).astype(np.uint8)
    known: Mask = total[1:].sum(axis=0) > 0
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return BrainAtlas(LabelMap(most[tuple(nearest)], affine), brain)


def _bring(mask: Volume, matrix: Affine, affine: Affine, shape: Shape, order: Literal[0, 1]) -> Floats:
    """A volume in the space of the atlas, whose points are `matrix` times its own."""
    to_mask = np.linalg.inv(matrix @ mask.affine) @ affine
    return np.asarray(ndimage.affine_transform(mask.array, to_mask[:3, :3], to_mask[:3, 3], shape, order=order))
