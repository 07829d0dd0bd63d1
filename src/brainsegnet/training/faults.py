"""The faults of raw studies in training samples: thick slices, misalignment, imperfect brain masks, missing slabs.

A raw study comes in thick slices, which differ from sequence to sequence. It is aligned, interpolated to the grid of
the model, and the brain is extracted. Each step may be a little wrong. As in `augment`, a small record is drawn for
each sample, and pure functions apply it. The truth stays where it was. Only voxels that a brain mask cuts away become
background.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from brainsegnet._types import Doubles, Millimetres
from brainsegnet.anatomy.procedural import rotation
from brainsegnet.training.recipes import Faults

THICK = 0.85
"""Probability that a sequence of a study in thick slices has them."""
PLANES = (0.6, 0.2, 0.2)
"""Probability that slices lie along each of (D, H, W)."""
BEYOND_MM = 8.0
"""How far a sample is cut beyond its first and last slice, because thick slices reach there."""
LEAST_SHARE = 0.05
"""Share of brain below which what a slice shows is not used."""
FIELD_MM, GRAIN_MM = 16.0, 8.0
"""Distances over which the error of a brain mask varies, and the brightness of what a wide mask leaves around."""
ERROR = 0.35
"""Standard deviation of the error of a brain mask, as a share of twice its largest error."""
MOST_OUTLIERS = 30
"""Largest number of outliers of a sequence in a sample."""


@dataclass(frozen=True)
class Slices:
    """Thick slices of a sequence along one axis, a step apart; `phase` tells where the first is, in steps."""

    axis: int
    step_mm: float
    thick_mm: float
    phase: float


@dataclass(frozen=True)
class Motion:
    """Rotations in the planes (H, W), (D, W) and (D, H), and a displacement along (D, H, W)."""

    angles_deg: tuple[float, float, float]
    shift_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Cut:
    """What lies furthest along a direction (D, H, W), up to a depth, is missing."""

    direction: tuple[float, float, float]
    depth_mm: float


@dataclass(frozen=True)
class FaultParams:
    """The faults of one sample. The defaults change nothing.

    Attributes:
        slices: Thick slices of each sequence or None, or none at all.
        motions: Misalignment of each sequence or None, or none at all. At least one sequence stays in place.
        missing: The slab that each sequence lacks or None, or none at all.
        outliers: Number of outliers in each sequence, or none.
        margin_mm: Largest error of the brain mask, in either direction.
        pole: Part of the brain that the brain mask lacks.
        seed: Seed of fields and places.
    """

    slices: tuple[Slices | None, ...] = ()
    motions: tuple[Motion | None, ...] = ()
    missing: tuple[Cut | None, ...] = ()
    outliers: tuple[int, ...] = ()
    margin_mm: float = 0.0
    pole: Cut | None = None
    seed: int = 0

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return self.changes_mask or any(
            any(faults) for faults in (self.slices, self.motions, self.missing, self.outliers)
        )

    @property
    def changes_mask(self) -> bool:
        """Whether the brain mask is wrong."""
        return self.margin_mm > 0 or self.pole is not None


def draw_faults(rng: np.random.Generator, how: Faults, sequences: int) -> FaultParams:
    """Draw the faults of a sample with a number of sequences. Without faults, no random number is drawn."""
    if not how.any:
        return FaultParams()
    thick = rng.random() < how.thick
    slices = tuple(_draw_slices(rng, how) if thick and rng.random() < THICK else None for _ in range(sequences))
    fixed = int(rng.integers(sequences))
    motions = tuple(_draw_motion(rng, how) if rng.random() < how.moved else None for _ in range(sequences))
    missing = tuple(_draw_cut(rng, how.missing_mm) if rng.random() < how.missing else None for _ in range(sequences))
    outliers = tuple(
        int(rng.integers(1, MOST_OUTLIERS)) if rng.random() < how.outliers else 0 for _ in range(sequences)
    )
    return FaultParams(
        slices=slices,
        motions=tuple(None if c == fixed else motion for c, motion in enumerate(motions)),
        missing=missing,
        outliers=outliers,
        margin_mm=float(rng.uniform(1, how.margin_mm)) if rng.random() < how.mask else 0.0,
        pole=_draw_cut(rng, how.pole_mm) if rng.random() < how.pole else None,
        seed=int(rng.integers(2**31)),
    )


def _draw_slices(rng: np.random.Generator, how: Faults) -> Slices:
    step_mm = float(rng.uniform(*how.step_mm))
    gap = float(rng.uniform(*how.gap))
    return Slices(int(rng.choice(3, p=PLANES)), step_mm, step_mm * (1 - gap), float(rng.random()))


def _draw_motion(rng: np.random.Generator, how: Faults) -> Motion:
    d, h, w = rng.uniform(-how.angle_deg, how.angle_deg, 3)
    direction = rng.normal(size=3)
    z, y, x = direction / np.linalg.norm(direction) * rng.uniform(0, how.shift_mm)
    return Motion((float(d), float(h), float(w)), (float(z), float(y), float(x)))


def _draw_cut(rng: np.random.Generator, depth_mm: tuple[float, float]) -> Cut:
    """Most slabs are at the top or bottom."""
    direction = rng.normal(0, 0.15, 3)
    direction[rng.choice(3, p=PLANES)] = rng.choice([-1, 1])
    d, h, w = direction / np.linalg.norm(direction)
    return Cut((float(d), float(h), float(w)), float(rng.uniform(*depth_mm)))


def apply_faults(image: Tensor, params: FaultParams, spacing_mm: Millimetres) -> Tensor:
    """A sample (C, D, H, W) with its faults, 0 outside the brain as before."""
    image, brain = image.clone(), (image != 0).any(0)
    generator = torch.Generator(image.device).manual_seed(params.seed)
    for c, slices in enumerate(params.slices):
        if slices is not None:
            image[c] = scan_in_slices(image[c], slices, spacing_mm)
    for c, motion in enumerate(params.motions):
        if motion is not None:
            image[c] = move(image[c], motion, spacing_mm) * brain
    for c, cut in enumerate(params.missing):
        if cut is not None:
            image[c] *= remain(image[c] != 0, cut, spacing_mm)
    for c, number in enumerate(params.outliers):
        if number:
            _add_outliers(image[c], number, generator)
    if params.margin_mm:
        image = _err(image, brain, params.margin_mm, spacing_mm, generator)
    if params.pole is not None:
        image = image * remain((image != 0).any(0), params.pole, spacing_mm)
    return image


def _within(channel: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """An image (D, H, W) after a linear change that the air does not enter, and the share of brain in each voxel."""
    both = change(torch.stack([channel, (channel != 0).to(channel)]))
    return both[0] / both[1].clamp(min=LEAST_SHARE), both[1]


def scan_in_slices(channel: Tensor, slices: Slices, spacing_mm: Millimetres) -> Tensor:
    """An image (D, H, W) scanned in thick slices and interpolated back linearly.

    Its brain, mean and standard deviation stay the same, because the interpolated image is normalised.
    """
    mm, n = spacing_mm[slices.axis], channel.shape[slices.axis]
    matrix = torch.from_numpy(slice_matrix(n, slices.step_mm / mm, slices.thick_mm / mm, slices.phase))
    matrix = matrix.to(channel)
    found, share = _within(
        channel, lambda x: torch.movedim(torch.movedim(x, slices.axis + 1, -1) @ matrix.T, -1, slices.axis + 1)
    )
    brain = channel != 0
    found = torch.where(share >= LEAST_SHARE, found, channel)
    (mean, deviation), (before, spread) = _measure(found, brain), _measure(channel, brain)
    return ((found - mean) * (spread / deviation.clamp(min=1e-3)) + before) * brain


def _measure(channel: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an image (D, H, W) in the brain."""
    number = brain.sum().clamp(min=1)
    mean = (channel * brain).sum() / number
    return mean, (((channel - mean) * brain).square().sum() / number).sqrt()


def slice_matrix(n: int, step: float, thick: float, phase: float) -> Doubles:
    """Matrix (n, n) that averages a line over thick slices, and interpolates between their centres.

    Args:
        n: Number of voxels.
        step: Distance between slices in voxels.
        thick: Thickness of a slice in voxels.
        phase: Centre of the first slice, in steps, from 0 to 1.

    Examples:
        >>> slice_matrix(5, 2.0, 1.0, 0.0).tolist()[1]
        [0.5, 0.0, 0.5, 0.0, 0.0]
    """
    voxels, centres = np.arange(n), np.arange(phase * step, n, step)
    ends = (
        np.minimum(centres[:, None] + thick / 2, voxels + 0.5),
        np.maximum(centres[:, None] - thick / 2, voxels - 0.5),
    )
    shares = np.clip(ends[0] - ends[1], 0, None)
    if not len(centres) or not shares.sum(1).all():
        return np.eye(n)
    weights = np.stack([np.interp(voxels, centres, one) for one in np.eye(len(centres))], 1)
    return np.asarray(weights @ (shares / shares.sum(1, keepdims=True)))


def move(channel: Tensor, motion: Motion, spacing_mm: Millimetres) -> Tensor:
    """An image (D, H, W) moved about the middle of the sample, by linear interpolation."""
    halves = np.array([max(n - 1, 1) / 2 * mm for n, mm in zip(channel.shape, spacing_mm, strict=True)])
    turn = rotation(tuple(np.deg2rad(motion.angles_deg)), ((1, 2), (0, 2), (0, 1)))
    theta = np.concatenate([turn * halves / halves[:, None], (np.array(motion.shift_mm) / halves)[:, None]], 1)
    theta[:, :3] = theta[:, 2::-1]
    places = F.affine_grid(
        torch.tensor(theta[::-1].copy()).to(channel)[None], [1, 1, *channel.shape], align_corners=True
    )

    def change(x: Tensor) -> Tensor:
        return F.grid_sample(x[None], places, padding_mode="border", align_corners=True)[0]

    found, share = _within(channel, change)
    return found * (share >= 0.5)


def remain(brain: Tensor, cut: Cut, spacing_mm: Millimetres) -> Tensor:
    """What a cut leaves of a grid (D, H, W), as a mask; its depth counts from the outermost voxel of the brain."""
    lines = [
        torch.arange(n, device=brain.device, dtype=torch.float32) * (mm * along)
        for n, mm, along in zip(brain.shape, spacing_mm, cut.direction, strict=True)
    ]
    along = lines[0][:, None, None] + lines[1][:, None] + lines[2]
    furthest = torch.where(brain, along, -torch.inf).amax()
    return along <= furthest - cut.depth_mm


def _add_outliers(channel: Tensor, number: int, generator: torch.Generator) -> None:
    """Single voxels of a brain (D, H, W) take 4 to 10 standard deviations."""
    places = torch.randint(channel.numel(), (number,), generator=generator, device=channel.device)
    values = 4 + 6 * torch.rand(number, generator=generator, device=channel.device)
    flat = channel.view(-1)
    flat[places] = torch.where(flat[places] != 0, values.to(channel), 0)


def _err(image: Tensor, brain: Tensor, margin_mm: float, spacing_mm: Millimetres, generator: torch.Generator) -> Tensor:
    """A sample (C, D, H, W) whose brain mask is too tight in some places and too wide in others.

    The share of brain in the surroundings of a voxel tells how far from the surface it lies. Around the brain are
    membranes, bone, fat and muscle, of any brightness.
    """
    share = brain.to(image)[None]
    for axis, mm in enumerate(spacing_mm):
        reach = [max(1, round(margin_mm / mm)) if other == axis else 0 for other in range(3)]
        share = F.avg_pool3d(share, [2 * r + 1 for r in reach], 1, reach, count_include_pad=False)
    share = share[0]
    limit = 0.5 + (ERROR * _smooth_noise(1, brain.shape, FIELD_MM, spacing_mm, generator)[0]).clamp(-0.45, 0.45)
    found = share > limit
    level = torch.randn((len(image), 1, 1, 1), generator=generator, device=image.device)
    around = level + _smooth_noise(len(image), brain.shape, GRAIN_MM, spacing_mm, generator)
    return torch.where(brain, image, around) * found


def _smooth_noise(
    count: int, shape: Sequence[int], grain_mm: float, spacing_mm: Millimetres, generator: torch.Generator
) -> Tensor:
    """Fields (count, D, H, W) of about unit variance, linear between nodes `grain_mm` apart."""
    nodes = [max(2, round(n * mm / grain_mm) + 1) for n, mm in zip(shape, spacing_mm, strict=True)]
    coarse = 1.5 * torch.randn((1, count, *nodes), generator=generator, device=generator.device)
    return F.interpolate(coarse, size=list(shape), mode="trilinear", align_corners=True)[0]
