"""Raw scans of whole heads, simulated from label maps for brain extraction; numpy and scipy alone.

A label map of `anatomy.heads` is placed in the field of view: rotated, scaled, deformed, mirrored. `paint` gives every
tissue a brightness, as one of the usual sequences would or at random, and adds lesions. `head_scanner` makes a scan of
it. All numbers of a head come from one generator, so a seed gives the same head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from brainsegnet._types import Doubles, Floats, Labels, Mask, Millimetres, Shape
from brainsegnet.anatomy.heads import BRAIN, DEEP_LEVELS, KINDS, SHELLS_MM, HeadTissue, brain_centre
from brainsegnet.anatomy.procedural import log_uniform, rotation, smooth_noise
from brainsegnet.simulation.head_scanner import HeadScan, acquire, draw_head_scan
from brainsegnet.volume import Box, LabelMap

HEAD_SHAPE: Shape = (96, 112, 96)
"""Field of view of a simulated scan (D, H, W)."""
HEAD_SPACING_MM = 2.0
WAVES_MM = ((32.0, 1.0, 5.0), (13.0, 0.2, 1.4))
"""Blur of a noise of displacement, and range of its standard deviation."""
SEQUENCES = ("t1", "t1c", "t2", "flair", "pd", "t2star")
BRIGHTNESS: Mapping[str, tuple[float, ...]] = {
    #                        t1, t1c, t2, flair, pd, t2star
    "air": (0.02, 0.02, 0.02, 0.02, 0.02, 0.02),
    "white": (1.0, 1.0, 0.55, 1.0, 0.85, 0.75),
    "grey": (0.76, 0.8, 0.78, 1.2, 1.0, 0.85),
    "ventricle": (0.32, 0.32, 2.1, 0.28, 1.05, 1.3),
    "deep_grey": (0.86, 0.88, 0.64, 1.1, 0.95, 0.7),
    "cerebellar_grey": (0.77, 0.81, 0.77, 1.1, 1.0, 0.85),
    "hindbrain_white": (0.97, 0.96, 0.57, 1.0, 0.86, 0.75),
    "sulcus": (0.34, 0.36, 1.9, 0.35, 1.0, 1.2),
    "sulcal_vessel": (0.6, 2.0, 0.4, 0.6, 0.7, 0.3),
    "fluid": (0.34, 0.36, 1.9, 0.35, 1.0, 1.2),
    "dura": (0.5, 1.3, 0.3, 0.55, 0.6, 0.4),
    "vein": (0.6, 2.1, 0.35, 0.5, 0.6, 0.3),
    "artery": (0.5, 1.6, 0.15, 0.3, 0.4, 0.5),
    "eye": (0.34, 0.34, 2.0, 0.35, 1.0, 1.3),
    "orbit": (0.7, 1.0, 0.6, 0.8, 0.8, 0.7),
    "mucosa": (0.7, 1.7, 1.4, 1.3, 1.1, 0.8),
    "skin": (1.0, 1.15, 0.7, 0.95, 0.9, 0.7),
    "cord": (0.9, 0.9, 0.6, 0.95, 0.85, 0.8),
    "bone": (0.1, 0.1, 0.08, 0.1, 0.15, 0.05),
    "marrow": (1.1, 1.15, 0.7, 0.85, 0.9, 0.4),
    "fat": (1.8, 1.9, 1.3, 1.3, 1.2, 0.9),
    "muscle": (0.65, 0.75, 0.33, 0.6, 0.7, 0.7),
}
"""Mean brightness in arbitrary units of each `HeadTissue` up to marrow, then of fat and muscle, by sequence."""
BORDER = 2
"""Voxels of air around a label map; below it, its lowest slice is repeated."""
NECK: Labels = np.arange(KINDS, dtype=np.uint8)
"""What the lowest slice becomes below the map: brain is cord there, and its fluid that around the cord."""
NECK[list(BRAIN)] = HeadTissue.CORD
NECK[[HeadTissue.SULCUS, HeadTissue.SULCAL_VESSEL]] = HeadTissue.FLUID
MOTTLE = {HeadTissue.MUCOSA: 0.25, HeadTissue.MARROW: 0.25, HeadTissue.BONE: 0.2, HeadTissue.SKIN: 0.12}
"""Amplitude of texture where it is not that of the brain."""


@dataclass(frozen=True)
class HeadPose:
    """How a head lies in the field of view."""

    matrix: Doubles  # (3, 3), millimetres in the field of view to millimetres in the label map
    shift_mm: Millimetres  # of the middle of the brain from the middle of the field of view
    waves_mm: tuple[float, float]  # standard deviation of slow and of fine displacement


@dataclass(frozen=True)
class Growth:
    """A tumour, an infarct or a resection cavity; brightness is that of the painted image."""

    radius_mm: float
    stretch: Millimetres  # factors on the radius along (D, H, W)
    at_surface: bool
    rim: float  # share of the radius at which the rim begins
    halo: float  # radius of the oedema over that of the core
    roughness: float  # amplitude of the noise on the surface, as a share of the radius
    shades: tuple[float, float, float]  # interior, rim, oedema
    opacity: float  # of the oedema
    opens_skull: bool  # a bone flap: bone beside it takes the brightness of its rim


@dataclass(frozen=True)
class HeadContrast:
    """Brightness by `HeadTissue` value, and texture."""

    values: Floats  # (KINDS,)
    mottle: Floats  # (KINDS,), amplitude of the texture as a share of the brightness
    grain_mm: float  # its size
    growths: tuple[Growth, ...]


@dataclass(frozen=True)
class HeadParams:
    """All parameters of a simulated raw scan; its fields of noise come from the same generator afterwards."""

    pose: HeadPose
    contrast: HeadContrast
    scan: HeadScan


@dataclass(frozen=True, eq=False)
class HeadSample:
    """A simulated raw scan, all (D, H, W) with voxels of `HEAD_SPACING_MM`."""

    image: Floats  # arbitrary units, 0 outside the field of view
    brain: Floats  # share of each voxel that is brain, 0 to 1
    lesion: Mask  # cores of tumours and cavities
    seen: Mask  # the field of view


def simulate_head(rng: np.random.Generator, head: LabelMap, shape: Shape = HEAD_SHAPE) -> HeadSample:
    """Simulate a raw scan of a label map of a whole head; the same seed, map and shape give the same bytes."""
    params = draw_head_params(rng)
    placed = place(rng, head, params.pose, shape)
    image, brain, lesion = paint(rng, placed, params.contrast)
    return HeadSample(*acquire(rng, image, (brain, lesion), params.scan))


def draw_head_params(rng: np.random.Generator) -> HeadParams:
    """Draw all parameters of a scan."""
    return HeadParams(draw_pose(rng), draw_contrast(rng), draw_head_scan(rng))


def draw_pose(rng: np.random.Generator) -> HeadPose:
    """Draw how a head lies: up to 25 degrees tilted, 0.8 to 1.2 times as large, left and right exchanged in half."""
    angles = np.clip(rng.normal(0, np.deg2rad((6, 9, 6))), -0.44, 0.44)
    size = rng.uniform(0.82, 1.18) * rng.uniform(0.94, 1.06, 3) * (1, 1, rng.choice([-1, 1]))
    shear = np.eye(3) + np.triu(rng.normal(0, 0.03, (3, 3)), 1)
    return HeadPose(
        matrix=rotation(angles, ((1, 2), (0, 1), (0, 2))) @ shear @ np.diag(1 / size),
        shift_mm=(rng.uniform(-12, 45), rng.normal(-8, 9), rng.normal(0, 5)),
        waves_mm=tuple(rng.uniform(low, high) for _, low, high in WAVES_MM),  # type: ignore[arg-type]
    )


@dataclass(frozen=True, eq=False)
class PlacedHead:
    """The eight voxels of a label map around each voxel of the field of view."""

    corners: Labels  # (8, D, H, W), `HeadTissue` values

    @property
    def tissue(self) -> Labels:
        """One of the eight values (D, H, W)."""
        return np.asarray(self.corners[0])

    def average(self, table: Floats) -> Floats:
        """The mean (D, H, W) over the eight of a table by value."""
        total = table[self.corners[0]]
        for corner in self.corners[1:]:
            total += table[corner]
        return np.asarray(total / len(self.corners), np.float32)


def place(rng: np.random.Generator, head: LabelMap, pose: HeadPose, shape: Shape = HEAD_SHAPE) -> PlacedHead:
    """Place a label map in a field of view (D, H, W); beyond its lowest slice the neck is continued."""
    source = np.pad(head.array, ((BORDER, BORDER), (BORDER, BORDER), (BORDER, BORDER)))
    source[:BORDER] = NECK[source[BORDER]]
    steps = np.array(source.strides) // source.itemsize
    axes = [(np.arange(n) - (n - 1) / 2) * HEAD_SPACING_MM - s for n, s in zip(shape, pose.shift_mm, strict=True)]
    z, y, x = (a.astype(np.float32) for a in np.ix_(*axes))
    spacing_mm = (HEAD_SPACING_MM,) * 3
    first = np.zeros(shape, np.int32)
    for axis, (row, middle) in enumerate(zip(pose.matrix.astype(np.float32), brain_centre(head), strict=True)):
        wave = sum(
            np.float32(s) * smooth_noise(rng, shape, spacing_mm, blur)
            for s, (blur, _, _) in zip(pose.waves_mm, WAVES_MM, strict=True)
        )
        at = (row[0] * z + row[1] * y + row[2] * x + wave) / np.float32(head.spacing_mm[axis])
        at += middle + BORDER
        np.clip(at, 0, source.shape[axis] - 2, out=at)
        first += at.astype(np.int32) * np.int32(steps[axis])
    offsets = [int(np.dot(corner, steps)) for corner in np.ndindex(2, 2, 2)]
    flat = source.ravel()
    return PlacedHead(np.stack([flat[offset:].take(first) for offset in offsets]))


def draw_contrast(rng: np.random.Generator) -> HeadContrast:
    """Draw the brightness of every tissue: of a common sequence in 60 %, at random in the others."""
    name = str(rng.choice(SEQUENCES)) if rng.random() < 0.6 else None
    values = _of_sequence(rng, name) if name else _at_random(rng)
    if rng.random() < 0.12:  # as diffusion-weighted scans and some with saturation of fat show them
        values[HeadTissue.FLUID :] *= rng.uniform(0.05, 0.5)
    if rng.random() < 0.05:
        values = values.max() - values
    mottle = rng.uniform(0.02, 0.09) * np.ones(KINDS)
    for tissue, amplitude in MOTTLE.items():
        mottle[tissue] = amplitude * rng.uniform(0.5, 1.5)
    mottle[HeadTissue.SOFT :] = rng.uniform(0.05, 0.3)
    count = int(rng.choice([0, 1, 2, 4], p=[0.42, 0.42, 0.1, 0.06]))
    return HeadContrast(
        values=np.asarray(values, np.float32),
        mottle=np.asarray(mottle, np.float32),
        grain_mm=log_uniform(rng, 3, 9),
        growths=tuple(draw_growth(rng, values, name, count) for _ in range(count)),
    )


def _of_sequence(rng: np.random.Generator, sequence: str) -> Doubles:
    """Brightness (KINDS,) close to that of a sequence; fat is suppressed in a quarter."""
    means = np.array([row[SEQUENCES.index(sequence)] for row in BRIGHTNESS.values()])
    *tissues, fat, muscle = means * np.exp(rng.normal(0, 0.15, len(means)))
    if rng.random() < 0.25:
        fat *= rng.uniform(0.1, 0.5)
        tissues[HeadTissue.MARROW] *= rng.uniform(0.1, 0.6)
    values = np.array([*tissues, *_soft(rng, fat, muscle)])
    values[HeadTissue.FLUID] = values[HeadTissue.SULCUS] * np.exp(rng.normal(0, 0.1))
    values[HeadTissue.VENTRICLE] = values[HeadTissue.SULCUS] * np.exp(rng.normal(0, 0.1))
    return values


def _at_random(rng: np.random.Generator) -> Doubles:
    """Random brightness (KINDS,), 0 to 1; air is dark in most, and fluids are alike in most."""
    values = rng.uniform(0.02, 1, KINDS)
    values[HeadTissue.SOFT :] = _soft(rng, *rng.uniform(0.02, 1, 2))
    if rng.random() < 0.9:
        values[HeadTissue.AIR] = rng.uniform(0, 0.05)
    if rng.random() < 0.7:
        fluids = [HeadTissue.VENTRICLE, HeadTissue.SULCUS, HeadTissue.FLUID]
        values[fluids] = values[HeadTissue.FLUID] * np.exp(rng.normal(0, 0.08, 3))
    if rng.random() < 0.6:
        values[HeadTissue.CEREBELLAR_GREY] = values[HeadTissue.GREY] * np.exp(rng.normal(0, 0.08))
        values[HeadTissue.HINDBRAIN_WHITE] = values[HeadTissue.WHITE] * np.exp(rng.normal(0, 0.08))
        values[HeadTissue.CORD] = values[HeadTissue.WHITE] * np.exp(rng.normal(0, 0.08))
    return values


def _soft(rng: np.random.Generator, fat: float, muscle: float) -> Doubles:
    """Brightness of the kinds of soft tissue: fat in the outer layers and in one side of the deep ones."""
    shells = np.where(np.arange(len(SHELLS_MM)) < rng.integers(1, len(SHELLS_MM) + 1), fat, muscle)
    deep = np.where(np.arange(len(DEEP_LEVELS) + 1) < rng.integers(0, len(DEEP_LEVELS) + 1), fat, muscle)
    return np.asarray(np.concatenate([shells, deep]) * np.exp(rng.normal(0, 0.1, len(shells) + len(deep))))


def draw_growth(rng: np.random.Generator, values: Doubles, sequence: str | None, count: int = 1) -> Growth:
    """Draw a lesion: a tumour in two thirds, an infarct or a plaque, or a cavity after resection."""
    white, fluid = values[HeadTissue.WHITE], values[HeadTissue.SULCUS]
    kind = str(rng.choice(["tumour", "patch", "cavity"], p=[0.62, 0.18, 0.2]))
    shades = rng.uniform(0, 1.3 * max(white, fluid), 3)
    if sequence and kind == "tumour":
        bright = {"flair": (0.9, 1.6, 1.7), "t2": (2.6, 2.2, 2.4), "t1c": (0.55, 1.9, 0.75), "t1": (0.6, 0.75, 0.75)}
        shades = white * np.array(bright.get(sequence, (1.3, 1.1, 1.2))) * np.exp(rng.normal(0, 0.2, 3))
    if kind == "cavity":
        shades[0] = fluid * np.exp(rng.normal(0, 0.15))
    return Growth(
        radius_mm=log_uniform(rng, 5, 34) / (1.0 if count < 3 else 2.0),
        stretch=tuple(np.exp(rng.normal(0, 0.2, 3)).tolist()),
        at_surface=bool(rng.random() < (0.65 if kind != "cavity" else 0.9)),
        rim=rng.uniform(0.55, 1.0),
        halo=rng.uniform(1.0, 1.9) if kind == "tumour" else rng.uniform(1.0, 1.2),
        roughness=rng.uniform(0.05, 0.3),
        shades=(float(shades[0]), float(shades[1]), float(shades[2])),
        opacity=rng.uniform(0.5, 1.0),
        opens_skull=bool(kind == "cavity" and rng.random() < 0.6),
    )


def paint(rng: np.random.Generator, placed: PlacedHead, contrast: HeadContrast) -> tuple[Floats, Floats, Mask]:
    """The image, the share of brain in each voxel and the lesions, all (D, H, W)."""
    inside = np.zeros(KINDS, np.float32)
    inside[list(BRAIN)] = 1
    tissue = placed.tissue
    image, brain, lesion = placed.average(contrast.values), placed.average(inside), np.zeros(tissue.shape, np.bool_)
    spacing_mm = (HEAD_SPACING_MM,) * 3
    texture = smooth_noise(rng, tissue.shape, spacing_mm, contrast.grain_mm)
    image *= np.maximum(1 + contrast.mottle[tissue] * texture, 0.1)
    for growth in contrast.growths:
        _grow(rng, (image, brain, lesion), tissue, growth)
    return image, brain, lesion


def _grow(rng: np.random.Generator, fields: tuple[Floats, Floats, Mask], tissue: Labels, growth: Growth) -> None:
    """Paint a lesion into an image, the share of brain and the mask of lesions, all (D, H, W), in place.

    Its core takes brain and the fluid and dura beside it, which then belong to the brain; oedema stays in the brain.
    """
    centre = _choose_centre(rng, fields[1], growth.at_surface)
    if centre is None:
        return
    box = _box_around(centre, 2 * growth.radius_mm * max(growth.stretch), tissue.shape)
    image, brain, lesion = (field[box.slices] for field in fields)
    tissue = tissue[box.slices]
    share = _distance(rng, box, centre, growth)
    core = (share < 1) & ((brain > 0.3) | (tissue == HeadTissue.FLUID) | (tissue == HeadTissue.DURA))
    halo = (share < growth.halo) & (brain > 0.5) & (tissue != HeadTissue.VENTRICLE) & ~core
    interior, rim, oedema = growth.shades
    image[halo] += growth.opacity * (oedema - image[halo])
    image[core] = np.where(share[core] > growth.rim, rim, interior) * (1 + 0.1 * rng.standard_normal(int(core.sum())))
    if growth.opens_skull:
        bone = (share < 1.15) & ((tissue == HeadTissue.BONE) | (tissue == HeadTissue.MARROW))
        image[bone] += 0.9 * (rim - image[bone])
    brain[core], lesion[core] = 1, True


def _choose_centre(rng: np.random.Generator, brain: Floats, at_surface: bool) -> tuple[int, int, int] | None:
    """A voxel of the brain, at its surface if wanted; None if no brain is seen."""
    skip = 2
    coarse = brain[::skip, ::skip, ::skip] > 0.5
    if at_surface:
        inner = coarse.copy()
        for axis in range(3):
            inner &= np.roll(coarse, 2, axis) & np.roll(coarse, -2, axis)
        coarse &= ~inner
    candidates = np.flatnonzero(coarse)
    if not candidates.size:
        return None
    d, h, w = np.unravel_index(rng.choice(candidates), coarse.shape)
    return int(d) * skip, int(h) * skip, int(w) * skip


def _box_around(centre: tuple[int, int, int], reach_mm: float, shape: Shape) -> Box:
    reach = int(reach_mm / HEAD_SPACING_MM) + 1
    start = tuple(max(0, c - reach) for c in centre)
    stop = tuple(min(n, c + reach + 1) for c, n in zip(centre, shape, strict=True))
    return Box(start, stop)  # type: ignore[arg-type]


def _distance(rng: np.random.Generator, box: Box, centre: tuple[int, int, int], growth: Growth) -> Floats:
    """Distance (D, H, W) of the voxels of a box from a centre as a share of the radius, with noise."""
    each = zip(box.start, box.stop, centre, growth.stretch, strict=True)
    scaled = [(np.arange(a, b) - c) * (HEAD_SPACING_MM / (growth.radius_mm * s)) for a, b, c, s in each]
    z, y, x = (a.astype(np.float32) for a in np.ix_(*scaled))
    noise = smooth_noise(rng, box.shape, (HEAD_SPACING_MM,) * 3, max(3.0, 0.4 * growth.radius_mm))
    return np.asarray(np.sqrt(z * z + y * y + x * x) + np.float32(growth.roughness) * noise, np.float32)


def simulate_no_head(rng: np.random.Generator, shape: Shape = HEAD_SHAPE) -> HeadSample:
    """Simulate a scan without a head: balls, boxes and bars of random brightness, or noise alone."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    z, y, x = np.ix_(*axes)
    image = np.full(shape, rng.uniform(0, 0.1), np.float32)
    for _ in range(int(rng.integers(0, 6))):
        c, r = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.1, 0.9, 3)
        parts = [np.abs((a - m) / s) for a, m, s in zip((z, y, x), c, r, strict=True)]
        power = rng.choice([2.0, 8.0])
        image[sum(p**power for p in parts) < 1] = rng.uniform(0, 1)
    image *= np.maximum(1 + rng.uniform(0, 0.5) * smooth_noise(rng, shape, (2.0,) * 3, log_uniform(rng, 4, 30)), 0)
    if rng.random() < 0.5:
        image *= 1 + np.float32(rng.uniform(0, 1)) * np.sign(np.sin(rng.uniform(5, 60) * (z, y, x)[rng.integers(3)]))
    nothing = np.zeros(shape, np.float32)
    scan = replace(draw_head_scan(rng), stripped_mm=None, defaced_mm=None)
    return HeadSample(*acquire(rng, image, (nothing, nothing > 0), scan))
