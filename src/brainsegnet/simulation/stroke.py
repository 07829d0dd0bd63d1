"""Lesions of a head with an ischaemic stroke: core, perfusion deficit, final infarct, and older lesions (mimics).

The core takes its shape from a library of real lesions in MNI space, or is simulated in the territory of an artery.
Simulated cores are a lacune, a wedge of cortex with the white matter beneath, or scattered emboli. The deficit is the
core with the penumbra: the nearest tissue of the same arteries. The final infarct lies between the two.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Labels, Mask
from brainsegnet.anatomy.procedural import Tissue, ball_radius_mm, log_uniform, smooth_noise
from brainsegnet.anatomy.territories import MIDDLE, Ground, Territory, brain_tissue, same_artery, sample_template
from brainsegnet.volume import LabelMap

Kind = Literal["shape", "lacune", "wedge", "emboli"]

FEWEST_VOXELS = 12
"""Least number of voxels of a core."""
SATELLITES = 0.1
"""Share of the volume of a wedge in its satellites, if it has any."""
LARGEST_DEFICIT_ML = 320.0
VOLUMES_ML: dict[Kind, tuple[float, float]] = {"wedge": (1, 90), "lacune": (0.15, 2), "emboli": (0.3, 12)}
"""Range of the volume of a simulated core."""
T = Territory
PLACES: dict[Kind, dict[Territory, float]] = {
    "wedge": {
        T.ANTERIOR_CEREBRAL: 1, T.MIDDLE_FRONTAL: 3, T.MIDDLE_PARIETAL: 3, T.MIDDLE_TEMPORAL: 2,
        T.LENTICULOSTRIATE: 1.5, T.POSTERIOR_CEREBRAL: 2, T.SUPERIOR_CEREBELLAR: 0.7, T.INFERIOR_CEREBELLAR: 1.3,
    },
    "lacune": {
        T.LENTICULOSTRIATE: 4, T.THALAMIC: 3, T.BASILAR: 2, T.MIDDLE_FRONTAL: 1, T.ANTERIOR_CEREBRAL: 0.5,
        T.INFERIOR_CEREBELLAR: 0.5,
    },
    "emboli": {
        T.ANTERIOR_CEREBRAL: 1, T.MIDDLE_FRONTAL: 3, T.MIDDLE_PARIETAL: 3, T.MIDDLE_TEMPORAL: 1.5,
        T.POSTERIOR_CEREBRAL: 1.5, T.INFERIOR_CEREBELLAR: 1,
    },
}  # fmt: skip
"""Arteries of each kind, and their relative frequency."""


class Mimic(IntEnum):
    """Values of a map of older lesions: all have a high ADC, and some are bright in DWI because of a long T2."""

    NONE = 0
    HYPERINTENSITY = 1
    GLIOSIS = 2
    CAVITY = 3
    SHINE_THROUGH = 4


@dataclass(frozen=True)
class Stroke:
    """Parameters of a stroke."""

    kind: Kind  # origin of its core; `shape` is a real lesion
    side: Literal[-1, 1]  # 1 left, -1 right
    territory: Territory  # artery of the first focus
    volume_ml: float  # volume of a simulated core
    foci: int  # number of pieces of the core; a real shape is one of them
    roughness: float  # amplitude of the noise on the surface of a focus, as a share of its radius
    sparing: float  # share of a large focus that stays healthy, in patches
    deficit: float  # volume of the deficit over that of the core
    loss: float  # share of the penumbra in the final infarct


@dataclass(frozen=True, eq=False)
class Infarct:
    """A stroke in an anatomy, each (D, H, W)."""

    core: Mask  # infarcted in the acute scan
    outcome: Mask  # infarcted in the end
    deficit: Mask  # hypoperfused
    severity: Floats  # degree of hypoperfusion, from 0 outside the deficit to 1 in the core


def draw_stroke(rng: np.random.Generator, with_shape: bool = False) -> Stroke:
    """Draw a stroke; where there is a library of shapes, two in three take theirs from it."""
    kind = tuple(PLACES)[int(rng.choice(3, p=(0.5, 0.17, 0.33)))]
    places, weights = tuple(PLACES[kind]), np.array(tuple(PLACES[kind].values()))
    territory = places[int(rng.choice(len(places), p=weights / sum(weights)))]
    shaped = with_shape and rng.random() < 0.66
    several = int(log_uniform(rng, 3, 40))
    extra = several if rng.random() < 0.65 else int(rng.random() < 0.3)
    small = rng.random() < 0.3
    return Stroke(
        kind="shape" if shaped else kind,
        side=1 if rng.random() < 0.5 else -1,
        territory=territory,
        volume_ml=log_uniform(rng, *VOLUMES_ML[kind]),
        foci={"wedge": 1 + extra, "lacune": 1 + int(rng.random() < 0.15), "emboli": several}[kind],
        roughness=rng.uniform(0.2, 0.6),
        sparing=rng.uniform(0, 0.2),
        deficit=log_uniform(rng, 1.3, 8),
        loss=rng.beta(1, 6) if small else rng.beta(1.6, 1.8),
    )


def simulate_infarct(
    rng: np.random.Generator, ground: Ground, stroke: Stroke, shape: LabelMap | None = None
) -> Infarct:
    """Simulate core, final infarct and deficit of a stroke, within grey and white matter; `shape` is in MNI space."""
    core = simulate_core(rng, ground, stroke, shape)
    deficit = _find_deficit(rng, ground, stroke, core)
    fading = ndimage.gaussian_filter(deficit.astype(np.float32), [4 / s for s in ground.spacing_mm], truncate=2)
    noise = smooth_noise(rng, core.shape, ground.spacing_mm, 7.0)
    severity = np.where(deficit, np.clip(1.4 * fading - 0.5 + 0.15 * noise, 0.05, 0.9), 0).astype(np.float32)
    near = ndimage.gaussian_filter(core.astype(np.float32), [7 / s for s in ground.spacing_mm], truncate=3)
    penumbra = deficit & ~core
    lost = select_highest(severity + 2.5 * near, penumbra, round(stroke.loss * np.count_nonzero(penumbra)))
    severity[core] = np.maximum(severity[core], 0.85) + 0.1
    return Infarct(core, core | lost, deficit, severity)


def simulate_core(rng: np.random.Generator, ground: Ground, stroke: Stroke, shape: LabelMap | None = None) -> Mask:
    """Simulate the core (D, H, W) of a stroke: at least `FEWEST_VOXELS` of grey and white matter."""
    core = np.zeros(ground.tissue.shape, np.bool_)
    if stroke.kind == "shape" and shape is not None:
        core = _place_shape(rng, ground, shape)
        for _ in range(stroke.foci - 1):
            core |= _make_focus(rng, ground, stroke, log_uniform(rng, 0.015, 0.4))
    while np.count_nonzero(core) < FEWEST_VOXELS:
        core |= _make_foci(rng, ground, stroke)
    return core


def select_highest(rank: Floats, allowed: Array, count: int) -> Mask:
    """The `count` voxels of `allowed` (D, H, W) with the highest `rank`, or all if there are fewer."""
    chosen = np.zeros(allowed.shape, np.bool_)
    candidates = np.flatnonzero(allowed)
    count = min(count, candidates.size)
    if count > 0:
        best = np.argpartition(rank.ravel()[candidates], candidates.size - count)[candidates.size - count :]
        chosen.flat[candidates[best]] = True
    return chosen


def _place_shape(rng: np.random.Generator, ground: Ground, shape: LabelMap) -> Mask:
    """A real lesion in this anatomy: mirrored by chance, and moved, scaled, rotated and warped a little."""
    brain = brain_tissue(ground.tissue)
    here = ground.points[:, brain].copy()
    if rng.random() < 0.5:
        here[2] *= -1
    matrix = np.eye(3) * np.exp(rng.normal(0, 0.06, 3)) + rng.normal(0, 0.04, (3, 3))
    middle = here.mean(axis=1, keepdims=True)
    warp = [smooth_noise(rng, brain.shape, ground.spacing_mm, 14.0)[brain] for _ in range(3)]
    moved = matrix.astype(np.float32) @ (here - middle) + middle + rng.normal(0, 3, (3, 1)) + 2.5 * np.stack(warp)
    core = np.zeros(brain.shape, np.bool_)
    core[brain] = sample_template(shape, moved, order=1) > 0.5
    return core


def _make_foci(rng: np.random.Generator, ground: Ground, stroke: Stroke) -> Mask:
    """Emboli divide the volume among them; the satellites of a wedge have a tenth of it."""
    core = np.zeros(ground.tissue.shape, np.bool_)
    emboli = stroke.kind == "emboli"
    shares = rng.dirichlet(np.full(stroke.foci if emboli else max(stroke.foci - 1, 1), 1.2))
    if not emboli:
        shares = np.array([1.0]) if stroke.foci == 1 else np.append(1 - SATELLITES, SATELLITES * shares)
    for share in shares:
        core |= _make_focus(rng, ground, stroke, float(share * stroke.volume_ml))
    return core


def _draw_seed(rng: np.random.Generator, ground: Ground, stroke: Stroke) -> tuple[int, int, int]:
    """A voxel (D, H, W) of the artery; of an embolus mostly in cortex, and of one in four in any artery."""
    brain = brain_tissue(ground.tissue)
    allowed = brain & (ground.points[2] * stroke.side > 0) & (ground.territory == stroke.territory)
    if stroke.kind in ("emboli", "shape"):
        anywhere = rng.random() < 0.25
        cortex = np.isin(ground.tissue, (Tissue.GREY, Tissue.CEREBELLAR_GREY)) | (rng.random() < 0.35)
        allowed = brain & cortex if anywhere else allowed & cortex
    return _draw_voxel(rng, allowed if allowed.any() else brain)


def _draw_voxel(rng: np.random.Generator, allowed: Array) -> tuple[int, int, int]:
    candidates = np.flatnonzero(allowed)
    d, h, w = np.unravel_index(candidates[int(rng.integers(candidates.size))], allowed.shape)
    return int(d), int(h), int(w)


def _make_focus(rng: np.random.Generator, ground: Ground, stroke: Stroke, volume_ml: float) -> Mask:
    """A rough ellipsoid around a seed, within the artery of the seed, with healthy patches if it is large."""
    seed, spacing, core = _draw_seed(rng, ground, stroke), ground.spacing_mm, np.zeros(ground.tissue.shape, np.bool_)
    count = max(FEWEST_VOXELS // 2, round(volume_ml / ground.voxel_ml))
    radius_mm = ball_radius_mm(volume_ml * 1000)
    reach = [int(np.ceil((2.2 * radius_mm + 4) / step)) for step in spacing]
    around = zip(seed, reach, ground.tissue.shape, strict=True)
    near = tuple(slice(max(0, a - r), min(n, a + r + 1)) for a, r, n in around)
    offsets = [(index - a) * step for index, a, step in zip(np.ogrid[near], seed, spacing, strict=True)]
    stretch = np.exp(rng.normal(0, 0.25, 3))
    distance = np.sqrt(sum((o * k) ** 2 for o, k in zip(offsets, stretch, strict=True)))
    bumps = sum(smooth_noise(rng, distance.shape, spacing, max(1.5, f * radius_mm)) for f in (0.6, 0.25))
    allowed = brain_tissue(ground.tissue[near]) & same_artery(ground, seed)[near]
    focus = select_highest(-distance + stroke.roughness * radius_mm * bumps, allowed, count)
    holes = smooth_noise(rng, distance.shape, spacing, 3.0)
    if count > 20 * FEWEST_VOXELS:
        focus &= holes > np.quantile(holes, stroke.sparing)
    core[near] = focus
    return core


def _find_deficit(rng: np.random.Generator, ground: Ground, stroke: Stroke, core: Mask) -> Mask:
    """The core and the nearest tissue of its arteries on its side."""
    fed = np.bincount(ground.territory[core], minlength=len(Territory))
    arteries = set(np.flatnonzero(fed > 0.05 * fed.sum()).tolist())
    if arteries & set(MIDDLE) and fed[list(MIDDLE)].sum() * ground.voxel_ml > 3:
        arteries |= set(MIDDLE)
    left = ground.points[2] > 0
    sides = (left if left[core].mean() > 0.15 else False) | (~left if left[core].mean() < 0.85 else False)
    allowed = brain_tissue(ground.tissue) & np.isin(ground.territory, list(arteries)) & sides & ~core
    distance = ndimage.distance_transform_edt(~core, sampling=ground.spacing_mm).astype(np.float32)
    rank = -distance + 6 * smooth_noise(rng, core.shape, ground.spacing_mm, 10.0)
    voxels = np.count_nonzero(core)
    ceiling = LARGEST_DEFICIT_ML / ground.voxel_ml
    more = min((stroke.deficit - 1) * voxels + 5 / ground.voxel_ml * (stroke.deficit > 2), max(0.0, ceiling - voxels))
    return core | select_highest(rank, allowed, round(more))


def add_mimics(rng: np.random.Generator, ground: Ground, core: Mask) -> Labels:
    """Add older lesions to an anatomy: a map (D, H, W) of `Mimic`, outside the core.

    White matter disease is caps on the ventricles and spots; an old infarct is a cavity in a rim of gliosis.
    """
    mimics, spacing = np.zeros(core.shape, np.uint8), ground.spacing_mm
    ventricle = (ground.tissue == Tissue.VENTRICLE).astype(np.float32)
    near = ndimage.gaussian_filter(ventricle, [7 / s for s in spacing], truncate=2.5)
    spots = smooth_noise(rng, core.shape, spacing, rng.uniform(1.8, 4.0))
    rank = 2.5 * near + 0.22 * spots + 0.1 * smooth_noise(rng, core.shape, spacing, 9.0)
    count = round(min(float(np.exp(rng.normal(np.log(5), 1.2))), 60) / ground.voxel_ml)
    mimics[select_highest(rank, ground.tissue == Tissue.WHITE, count)] = Mimic.HYPERINTENSITY
    for _ in range(int(rng.choice(3, p=(0.6, 0.28, 0.12)))):
        volume_ml = log_uniform(rng, 0.1, 35)
        scar = _make_blob(rng, ground, volume_ml, max(3.0, 2 * float(np.cbrt(volume_ml))))
        mimics[scar] = Mimic.GLIOSIS
        inner = ndimage.gaussian_filter(scar.astype(np.float32), [max(1.5 / s, 0.5) for s in spacing], truncate=2)
        mimics[scar & (inner > rng.uniform(0.5, 0.95))] = Mimic.CAVITY
    for _ in range(int(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1)))):
        mimics[_make_blob(rng, ground, log_uniform(rng, 0.08, 4), 5.0)] = Mimic.SHINE_THROUGH
    mimics[core | ~brain_tissue(ground.tissue)] = Mimic.NONE
    return mimics


def _make_blob(rng: np.random.Generator, ground: Ground, volume_ml: float, blur_mm: float) -> Mask:
    """A volume of brain around a random voxel, of one artery, with a rough surface."""
    brain = brain_tissue(ground.tissue)
    centre = _draw_voxel(rng, brain)
    apart = ground.points - ground.points[(slice(None), *centre)].reshape(3, 1, 1, 1)
    distance = np.sqrt(np.square(apart).sum(axis=0))
    allowed = brain & same_artery(ground, centre) & (distance < 60)
    rough = 0.35 * ball_radius_mm(volume_ml * 1000) * smooth_noise(rng, brain.shape, ground.spacing_mm, blur_mm)
    return select_highest(rough - distance, allowed, round(volume_ml / ground.voxel_ml))
