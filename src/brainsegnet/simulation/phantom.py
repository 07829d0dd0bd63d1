"""How a head looks in each sequence: contrast, texture, vessels, blur, bias field and noise.

Brightness is relative to white matter, as seen in raw BRATS scans; each case departs a little from the table.

A whole phantom from a seed: a case of four sequences and its labels, as a BRATS 2015 scan would be.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Floats, Mask, Millimetres, Shape
from brainsegnet.anatomy.procedural import Tissue, affine_for, shape_of, simulate_anatomy, smooth_noise, spacing_for
from brainsegnet.simulation.tumour import Growth, Lesion, grow_tumour
from brainsegnet.volume import Case, LabelMap, Volume

SEQUENCES = ("flair", "t1", "t1c", "t2")

TISSUES: Mapping[str, tuple[float, ...]] = {
    #        background csf  grey  white ventricle deep  cerebellar  hindbrain
    "flair": (0.0, 0.45, 1.18, 1.00, 0.36, 1.12, 1.10, 1.00),
    "t1": (0.0, 0.42, 0.76, 1.00, 0.34, 0.86, 0.76, 0.97),
    "t1c": (0.0, 0.46, 0.80, 1.00, 0.34, 0.88, 0.80, 0.96),
    "t2": (0.0, 2.20, 1.36, 1.00, 2.60, 1.18, 1.34, 1.02),
}
LESIONS: Mapping[str, tuple[float, ...]] = {
    #        -    necrosis oedema non-enhancing enhancing
    "flair": (0.0, 1.15, 1.80, 1.60, 1.65),
    "t1": (0.0, 0.58, 0.80, 0.74, 0.82),
    "t1c": (0.0, 0.58, 0.82, 0.80, 1.75),
    "t2": (0.0, 2.25, 1.85, 1.65, 1.60),
}


OPACITY: tuple[float, ...] = (0.0, 1.0, 0.85, 0.9, 1.0)
"""How far each `Lesion` hides the tissue beneath."""
VESSELS: Mapping[str, float] = {"flair": 0.8, "t1": 1.1, "t1c": 2.6, "t2": 0.5}
"""Factor on the brightness of fluid where a vessel runs through a sulcus."""


@dataclass(frozen=True)
class Scanner:
    """What differs from scan to scan of one sequence.

    Attributes:
        gain: Intensity of white matter in the file.
        tissues: Brightness of each `Tissue`.
        lesions: Brightness of each `Lesion`.
        texture: Weights of slow and fine unevenness, and of the mottling of the tumour.
        blur: Standard deviation of the partial volume effect, in voxels.
        bias: Amplitude of the logarithm of the bias field.
        noise: Standard deviation of the noise of either channel, relative to white matter.
    """

    gain: float
    tissues: tuple[float, ...]
    lesions: tuple[float, ...]
    texture: tuple[float, float, float]
    blur: float
    bias: float
    noise: float


def draw_scanner(rng: np.random.Generator, sequence: str) -> Scanner:
    """The random part of one sequence's appearance, its fields of noise excepted."""
    tissues = np.array(TISSUES[sequence]) * np.exp(rng.normal(0, 0.025, len(Tissue)))
    lesions = np.array(LESIONS[sequence]) * np.exp(rng.normal(0, 0.06, len(Lesion)))
    return Scanner(
        gain=float(np.exp(rng.uniform(np.log(300), np.log(1200)))),
        tissues=tuple(tissues.tolist()),
        lesions=tuple(lesions.tolist()),
        texture=(float(rng.normal(0.03, 0.01)), float(rng.uniform(0.02, 0.035)), float(rng.uniform(0.05, 0.1))),
        blur=float(rng.uniform(0.45, 0.65)),
        bias=float(rng.uniform(0.02, 0.07)),
        noise=float(rng.uniform(0.02, 0.04)),
    )


def paint(rng: np.random.Generator, growth: Growth, spacing_mm: Millimetres) -> dict[str, Array]:
    """The four sequences as int16 (D, H, W): background exactly 0, brain at least 1."""
    inside = growth.anatomy != Tissue.BACKGROUND
    texture = _draw_texture(rng, growth, spacing_mm)
    images = {}
    for sequence in SEQUENCES:
        scanner = draw_scanner(rng, sequence)
        bias = np.exp(scanner.bias * smooth_noise(rng, shape_of(inside), spacing_mm, 60.0))
        scene = _light(growth, texture, scanner, VESSELS[sequence]) * bias
        images[sequence] = _acquire(rng, scene, inside, scanner)
    return images


@dataclass(frozen=True, eq=False)
class Texture:
    """What all sequences share, each (D, H, W): slow and fine unevenness, mottling of the tumour, vessels."""

    slow: Floats
    fine: Floats
    mottle: Floats
    vessels: Mask


def _draw_texture(rng: np.random.Generator, growth: Growth, spacing_mm: Millimetres) -> Texture:
    """Vessels run where sheets of noise cross the sulci."""
    shape = shape_of(growth.anatomy)
    slow, fine, mottle, sheets = (smooth_noise(rng, shape, spacing_mm, blur_mm) for blur_mm in (12.0, 2.6, 5.0, 3.5))
    sulci = (growth.anatomy == Tissue.CSF) & (growth.lesion == Lesion.NONE)
    return Texture(slow, fine, mottle * (growth.lesion != Lesion.NONE), sulci & (np.abs(sheets) < 0.1))


def _light(growth: Growth, texture: Texture, scanner: Scanner, vessels: float) -> Floats:
    """Brightness (D, H, W) relative to white matter, before blur and noise."""
    scene = np.array(scanner.tissues, np.float32)[growth.anatomy]
    scene[texture.vessels] *= vessels
    opacity = np.array(OPACITY, np.float32)[growth.lesion]
    scene += opacity * (np.array(scanner.lesions, np.float32)[growth.lesion] - scene)
    slow, fine, mottle = scanner.texture
    return np.asarray(scene * (1 + slow * texture.slow + fine * texture.fine + mottle * texture.mottle), np.float32)


def _acquire(rng: np.random.Generator, scene: Floats, inside: Mask, scanner: Scanner) -> Array:
    """A scene (D, H, W) as a scanner stores it: blurred within the brain, with Rician noise, int16."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), scanner.blur)
    blurred = ndimage.gaussian_filter(scene, scanner.blur)[inside] / weight[inside]
    real, imaginary = scanner.noise * rng.standard_normal((2, blurred.size), dtype=np.float32)
    image = np.zeros(inside.shape, np.int16)
    image[inside] = np.clip(scanner.gain * np.hypot(blurred + real, imaginary), 1, np.iinfo(np.int16).max)
    return image


DEMO_SHAPE: Shape = (72, 136, 112)
"""Voxels of 2.1 x 1.4 x 1.4 mm, 1.1 million in all."""


def simulate_phantom(seed: int, shape: Shape = DEMO_SHAPE, name: str | None = None) -> Case:
    """A head with a glioma: flair, t1, t1c and t2 as int16, and labels of BRATS 2015, all (D, H, W).

    Anatomy, tumour and appearance draw from streams of their own, spawned in this order from the seed.

    Args:
        seed: The same seed, shape and kind of processor give the same arrays, bit for bit.
        shape: (D, H, W); the spacing follows, so that the head keeps its size.
        name: Name of the case; `phantom` and the seed in four digits if None.

    Raises:
        ImageError: the shape is below `anatomy.SMALLEST_SHAPE`.

    >>> case = simulate_phantom(3, (24, 40, 33))
    >>> case.name, list(case.images), case.reference.shape
    ('phantom0003', ['flair', 't1', 't1c', 't2'], (24, 40, 33))
    >>> np.unique(case.lesion.array).tolist()
    [0, 1, 2, 3, 4]
    """
    for_anatomy, for_tumour, for_appearance = np.random.default_rng(seed).spawn(3)
    spacing_mm = spacing_for(shape)
    growth = grow_tumour(for_tumour, simulate_anatomy(for_anatomy, shape), spacing_mm)
    affine = affine_for(shape, spacing_mm)
    images = {sequence: Volume(array, affine) for sequence, array in paint(for_appearance, growth, spacing_mm).items()}
    return Case(f"phantom{seed:04d}" if name is None else name, images, LabelMap(growth.lesion, affine))
