"""Ischaemic stroke in a tissue map: the core, the deficit of blood flow around it, and what is lost in the end.

The core has a shape taken from a library of real lesions in MNI space, or is simulated in the territory of an artery: a
lacune, a wedge of cortex with the white matter beneath, or a shower of emboli. The deficit is the core and what of the
same artery lies near it (the penumbra); the outcome lies between the two.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Mask
from brainsegnet.anatomy.procedural import Tissue, shape_of, smooth_noise
from brainsegnet.anatomy.territories import MIDDLE, Ground, Territory, brain_tissue, same_artery, sample_template
from brainsegnet.volume import LabelMap

Kind = Literal["shape", "lacune", "wedge", "emboli"]

FEWEST_VOXELS = 12
"""A core has at least as many."""
SATELLITES = 0.1
"""Of the volume of a wedge, what lies in satellites, where there are any."""
LARGEST_DEFICIT_ML = 320.0
PLACES: dict[Kind, tuple[tuple[Territory, float], ...]] = {
    "wedge": (
        (Territory.ANTERIOR_CEREBRAL, 1),
        (Territory.MIDDLE_FRONTAL, 3),
        (Territory.MIDDLE_PARIETAL, 3),
        (Territory.MIDDLE_TEMPORAL, 2),
        (Territory.LENTICULOSTRIATE, 1.5),
        (Territory.POSTERIOR_CEREBRAL, 2),
        (Territory.SUPERIOR_CEREBELLAR, 0.7),
        (Territory.INFERIOR_CEREBELLAR, 1.3),
    ),
    "lacune": (
        (Territory.LENTICULOSTRIATE, 4),
        (Territory.THALAMIC, 3),
        (Territory.BASILAR, 2),
        (Territory.MIDDLE_FRONTAL, 1),
        (Territory.ANTERIOR_CEREBRAL, 0.5),
        (Territory.INFERIOR_CEREBELLAR, 0.5),
    ),
    "emboli": (
        (Territory.ANTERIOR_CEREBRAL, 1),
        (Territory.MIDDLE_FRONTAL, 3),
        (Territory.MIDDLE_PARIETAL, 3),
        (Territory.MIDDLE_TEMPORAL, 1.5),
        (Territory.POSTERIOR_CEREBRAL, 1.5),
        (Territory.INFERIOR_CEREBELLAR, 1),
    ),
}
"""Arteries in which each kind is found, and how often."""


@dataclass(frozen=True)
class Stroke:
    """The random part of a stroke, its noise excepted.

    Attributes:
        kind: How its core comes about.
        side: 1 left, -1 right.
        territory: Artery of the first focus.
        volume_ml: Volume of a simulated core in all.
        foci: Pieces of a simulated core, and emboli beside a real shape.
        roughness: Amplitude of the noise on the surface of a focus, as a share of its radius.
        sparing: Share of a simulated core that stays healthy, in components.
        deficit: Volume of the deficit as a multiple of the core's.
        loss: Share of the penumbra that is lost in the end.
    """

    kind: Kind
    side: Literal[-1, 1]
    territory: Territory
    volume_ml: float
    foci: int
    roughness: float
    sparing: float
    deficit: float
    loss: float


@dataclass(frozen=True, eq=False)
class Infarct:
    """What a stroke does to a tissue map, each (D, H, W).

    Attributes:
        core: Already infarcted.
        outcome: Infarcted in the end.
        deficit: Short of blood.
        severity: How short, from 0 outside the deficit to 1 in the core.
    """

    core: Mask
    outcome: Mask
    deficit: Mask
    severity: Floats


def draw_stroke(rng: np.random.Generator, with_shape: bool = False) -> Stroke:
    """A stroke; with a library of shapes at hand two in three take one."""
    kinds: tuple[Kind, ...] = ("wedge", "lacune", "emboli")
    kind: Kind = kinds[int(rng.choice(3, p=(0.5, 0.17, 0.33)))]
    places, weights = zip(*PLACES[kind], strict=True)
    territory = places[int(rng.choice(len(places), p=np.array(weights) / sum(weights)))]
    low, high = {"wedge": (1.0, 90.0), "lacune": (0.15, 2.0), "emboli": (0.3, 12.0), "shape": (1, 1)}[kind]
    shaped = with_shape and bool(rng.random() < 0.66)
    several = int(np.exp(rng.uniform(np.log(3), np.log(40))))
    extra = several if rng.random() < 0.65 else int(rng.random() < 0.3)
    small = rng.random() < 0.3
    return Stroke(
        kind="shape" if shaped else kind,
        side=1 if rng.random() < 0.5 else -1,
        territory=territory,
        volume_ml=float(np.exp(rng.uniform(np.log(low), np.log(high)))),
        foci={"wedge": 1 + extra, "lacune": 1 + int(rng.random() < 0.15), "emboli": several}[kind],
        roughness=float(rng.uniform(0.2, 0.6)),
        sparing=float(rng.uniform(0, 0.2)),
        deficit=float(np.exp(rng.uniform(np.log(1.3), np.log(8)))),
        loss=float(rng.beta(1, 6) if small else rng.beta(1.6, 1.8)),
    )


def simulate_infarct(
    rng: np.random.Generator, ground: Ground, stroke: Stroke, shape: LabelMap | None = None
) -> Infarct:
    """Core, outcome and deficit of a stroke, all within grey and white matter.

    Args:
        rng: For the noise.
        ground: Where it grows.
        stroke: Drawn by `draw_stroke`.
        shape: A lesion in MNI space, for a stroke of the kind `shape`.
    """
    core = grow_core(rng, ground, stroke, shape)
    deficit = _grow_deficit(rng, ground, stroke, core)
    fading = ndimage.gaussian_filter(deficit.astype(np.float32), [4 / s for s in ground.spacing_mm], truncate=2)
    noise = smooth_noise(rng, shape_of(core), ground.spacing_mm, 7.0)
    severity = np.where(deficit, np.clip(1.4 * fading - 0.5 + 0.15 * noise, 0.05, 0.9), 0).astype(np.float32)
    near = ndimage.gaussian_filter(core.astype(np.float32), [7 / s for s in ground.spacing_mm], truncate=3)
    penumbra = deficit & ~core
    lost = foremost(severity + 2.5 * near, penumbra, round(stroke.loss * np.count_nonzero(penumbra)))
    severity[core] = np.maximum(severity[core], 0.85) + 0.1
    return Infarct(core, core | lost, deficit, severity)


def grow_core(rng: np.random.Generator, ground: Ground, stroke: Stroke, shape: LabelMap | None = None) -> Mask:
    """The core (D, H, W) of a stroke, at least `FEWEST_VOXELS` of grey and white matter."""
    core = np.zeros(ground.tissue.shape, np.bool_)
    if stroke.kind == "shape" and shape is not None:
        core = _place_shape(rng, ground, shape)
        for _ in range(stroke.foci - 1):
            ml = float(np.exp(rng.uniform(np.log(0.015), np.log(0.4))))
            core |= _grow_focus(rng, ground, stroke, _draw_seed(rng, ground, stroke), ml)
    while np.count_nonzero(core) < FEWEST_VOXELS:
        core |= _grow_foci(rng, ground, stroke)
    return core


def foremost(favour: Floats, allowed: Array, count: int) -> Mask:
    """The `count` voxels that a field (D, H, W) favours most among those allowed, or all of them.

    >>> foremost(np.array([[[3.0, 1.0, 2.0, 9.0]]]), np.array([[[True, True, True, False]]]), 2).tolist()
    [[[True, False, True, False]]]
    """
    chosen = np.zeros(allowed.shape, np.bool_)
    candidates = np.flatnonzero(allowed)
    count = min(count, candidates.size)
    if count > 0:
        best = np.argpartition(favour.ravel()[candidates], candidates.size - count)[candidates.size - count :]
        chosen.flat[candidates[best]] = True
    return chosen


def _place_shape(rng: np.random.Generator, ground: Ground, shape: LabelMap) -> Mask:
    """A real lesion in this head: flipped or not, moved, scaled, turned and warped a little."""
    brain = brain_tissue(ground.tissue)
    here = ground.points[:, brain].copy()
    if rng.random() < 0.5:
        here[2] *= -1
    turn = np.eye(3) * np.exp(rng.normal(0, 0.06, 3)) + rng.normal(0, 0.04, (3, 3))
    middle = here.mean(axis=1, keepdims=True)
    warp = [smooth_noise(rng, shape_of(brain), ground.spacing_mm, 14.0)[brain] for _ in range(3)]
    moved = turn.astype(np.float32) @ (here - middle) + middle + rng.normal(0, 3, (3, 1)) + 2.5 * np.stack(warp)
    core = np.zeros(brain.shape, np.bool_)
    core[brain] = sample_template(shape, moved, order=1) > 0.5
    return core


def _grow_foci(rng: np.random.Generator, ground: Ground, stroke: Stroke) -> Mask:
    """Emboli share the volume; of a wedge with satellites these get a tenth."""
    core = np.zeros(ground.tissue.shape, np.bool_)
    emboli = stroke.kind == "emboli"
    shares = rng.dirichlet(np.full(stroke.foci if emboli else max(stroke.foci - 1, 1), 1.2))
    if not emboli:
        shares = np.array([1.0]) if stroke.foci == 1 else np.append(1 - SATELLITES, SATELLITES * shares)
    for share in shares:
        core |= _grow_focus(rng, ground, stroke, _draw_seed(rng, ground, stroke), float(share * stroke.volume_ml))
    return core


def _draw_seed(rng: np.random.Generator, ground: Ground, stroke: Stroke) -> tuple[int, int, int]:
    """A voxel (D, H, W) of the artery; an embolus lands in the cortex, and one in four in another artery."""
    brain = brain_tissue(ground.tissue)
    allowed = brain & (ground.points[2] * stroke.side > 0) & (ground.territory == stroke.territory)
    if stroke.kind in ("emboli", "shape"):
        astray = rng.random() < 0.25
        cortex = np.isin(ground.tissue, (Tissue.GREY, Tissue.CEREBELLAR_GREY)) | (rng.random() < 0.35)
        allowed = brain & cortex if astray else allowed & cortex
    candidates = np.flatnonzero(allowed if allowed.any() else brain)
    d, h, w = np.unravel_index(candidates[int(rng.integers(candidates.size))], brain.shape)
    return int(d), int(h), int(w)


def _grow_focus(
    rng: np.random.Generator, ground: Ground, stroke: Stroke, seed: tuple[int, int, int], volume_ml: float
) -> Mask:
    """A rough ball around a seed, within the artery of the seed, with components that are spared."""
    count = max(FEWEST_VOXELS // 2, round(volume_ml / ground.voxel_ml))
    radius_mm = float(np.cbrt(volume_ml * 1000 * 3 / (4 * np.pi)))
    reach = [int(np.ceil((2.2 * radius_mm + 4) / step)) for step in ground.spacing_mm]
    near = tuple(slice(max(0, at - far), at + far + 1) for at, far in zip(seed, reach, strict=True))
    spacing, box = ground.spacing_mm, ground.tissue[near].shape
    offsets = np.ix_(
        *((np.arange(s.start, s.start + n) - a) * m for s, n, a, m in zip(near, box, seed, spacing, strict=True))
    )
    stretch = np.exp(rng.normal(0, 0.25, 3))
    distance = np.sqrt(sum((o * k) ** 2 for o, k in zip(offsets, stretch, strict=True)))
    bumps = sum(smooth_noise(rng, shape_of(distance), spacing, max(1.5, f * radius_mm)) for f in (0.6, 0.25))
    allowed = brain_tissue(ground.tissue[near]) & same_artery(ground, seed)[near]
    focus = foremost(-distance + stroke.roughness * radius_mm * bumps, allowed, count)
    holes = smooth_noise(rng, shape_of(distance), spacing, 3.0)
    if count > 20 * FEWEST_VOXELS:
        focus &= holes > np.quantile(holes, stroke.sparing)
    core = np.zeros(ground.tissue.shape, np.bool_)
    core[near] = focus
    return core


def _grow_deficit(rng: np.random.Generator, ground: Ground, stroke: Stroke, core: Mask) -> Mask:
    """The core and what lies nearest to it in the same arteries on the same side, by rank."""
    fed = np.bincount(ground.territory[core], minlength=len(Territory))
    arteries = set(np.flatnonzero(fed > 0.05 * fed.sum()).tolist())
    if arteries & set(MIDDLE) and fed[list(MIDDLE)].sum() * ground.voxel_ml > 3:
        arteries |= set(MIDDLE)
    left = ground.points[2] > 0
    sides = (left if left[core].mean() > 0.15 else False) | (~left if left[core].mean() < 0.85 else False)
    allowed = brain_tissue(ground.tissue) & np.isin(ground.territory, list(arteries)) & sides & ~core
    distance = ndimage.distance_transform_edt(~core, sampling=ground.spacing_mm).astype(np.float32)
    favour = -distance + 6 * smooth_noise(rng, shape_of(core), ground.spacing_mm, 10.0)
    voxels = np.count_nonzero(core)
    ceiling = LARGEST_DEFICIT_ML / ground.voxel_ml
    more = min((stroke.deficit - 1) * voxels + 5 / ground.voxel_ml * (stroke.deficit > 2), max(0.0, ceiling - voxels))
    return core | foremost(favour, allowed, round(more))
