"""Realistic gliomas: from a seed and an anatomy to four sequences as a scanner stores them, and their labels.

All parameters of a case are drawn into a `Recipe`, then applied. The artefacts of a scan are a bias field, thick
slices, noise, motion, ghosts and an incomplete field of view. Images are (D, H, W) in torch, with white matter at 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from brainsegnet._types import Millimetres
from brainsegnet.anatomy.procedural import log_uniform
from brainsegnet.simulation.confounders import Confounders, draw_confounders, mix_cerebellum, tilt_cerebellum
from brainsegnet.simulation.fields import Pose, RandomStreams, along, blur, blur_matrix, draw_pose, linear_matrix, noise
from brainsegnet.simulation.glioma import Glioma, draw_glioma, efface
from brainsegnet.simulation.rendering import (
    NOISE,
    Palette,
    Scene,
    build_scene,
    draw_palettes,
    draw_texture,
    margins,
    paint,
)
from brainsegnet.volume import Case, LabelMap, Volume

LARGEST_INTENSITY = 32000.0
"""Intensities are stored as int16."""


@dataclass(frozen=True)
class Artefacts:
    """Parameters of the scan of one sequence; most artefacts are absent in most scans."""

    bias: float  # amplitude of the logarithm of the bias field
    bias_mm: float  # grain of that field
    coil: float  # logarithm of the brightness of the surface of the head over its middle, because coils are near it
    blur_mm: float  # standard deviation of the point spread
    axis: int  # axis of the slices: 0, 1 or 2 for D, H, W
    thick_mm: float  # thickness of the slices; 0 for that of the grid
    noise: float  # standard deviation of the noise in each channel
    shift_mm: float  # displacement of the head along the phase axis during the scan, 0 for none
    moved: float  # share of the lines of k-space that follow the motion
    ghost: float  # strength of a ghost image, 0 for none
    ghosts: int  # number of ghosts in the field of view
    phase: int  # axis of phase encoding, another one than that of the slices
    cut: tuple[float, float]  # share of the slices that are missing at either end


def draw_artefacts(rng: np.random.Generator, coil: float = 0.0, noise_factor: float = 1.0) -> Artefacts:
    """Draw the scan of one sequence: thick slices in half of the cases; motion, ghosts and missing slices in few.

    `coil` is the logarithm of the brightness of the surface over the middle; some sequences are corrected for it.
    """
    axis = int(rng.choice([0, 1, 2], p=[0.8, 0.1, 0.1]))
    bottom, top = (rng.uniform(0.03, 0.15) if rng.random() < 0.05 else 0.0 for _ in range(2))
    return Artefacts(
        bias=float(np.abs(rng.normal(0, 0.07))),
        bias_mm=rng.uniform(35, 80),
        coil=coil * rng.uniform(0.2, 1.1),
        blur_mm=rng.uniform(0.3, 0.75),
        axis=axis,
        thick_mm=rng.uniform(1.5, 6.0) if rng.random() < 0.5 else 0.0,
        noise=noise_factor * log_uniform(rng, 0.007, 0.045),
        shift_mm=rng.uniform(1, 5) if rng.random() < 0.07 else 0.0,
        moved=rng.uniform(0.1, 0.45),
        ghost=rng.uniform(0.03, 0.12) if rng.random() < 0.06 else 0.0,
        ghosts=int(rng.integers(2, 6)),
        phase=[other for other in range(3) if other != axis][int(rng.integers(0, 2))],
        cut=(bottom, top),
    )


@dataclass(frozen=True)
class Recipe:
    """All parameters of a simulated glioma. Palettes, artefacts and gains are by sequence."""

    pose: Pose
    glioma: Glioma
    confounders: Confounders
    palettes: dict[str, Palette]
    artefacts: dict[str, Artefacts]
    gains: dict[str, float]


def draw_recipe(rng: np.random.Generator) -> Recipe:
    """Draw the parameters of a case. Its fields of noise are drawn when it is rendered."""
    pose, glioma, confounders, palettes = draw_pose(rng), draw_glioma(rng), draw_confounders(rng), draw_palettes(rng)
    return Recipe(pose, glioma, confounders, palettes, *draw_scans(rng, tuple(palettes)))


def draw_scans(rng: np.random.Generator, sequences: Sequence[str]) -> tuple[dict[str, Artefacts], dict[str, float]]:
    """Draw the artefacts of each sequence, with one coil for all of them, and the gains with which they are stored."""
    coil = rng.uniform(0, 0.35) if rng.random() < 0.6 else rng.uniform(0.2, 0.75)
    coil = coil if rng.random() < 0.75 else 0.0
    artefacts = {sequence: draw_artefacts(rng, coil, NOISE[sequence]) for sequence in sequences}
    return artefacts, {sequence: log_uniform(rng, 300, 1500) for sequence in sequences}


def simulate_glioma(seed: int, anatomy: LabelMap, name: str, device: str = "cpu") -> Case:
    """Simulate a head with a glioma: flair, t1, t1c and t2 as int16, and labels of BRATS 2015, all (D, H, W).

    The same seed, anatomy and machine give the same arrays, bit for bit.

    Args:
        seed: Seed of everything that is random.
        anatomy: Anatomical label map (D, H, W). It is deformed, mirrored and displaced by the tumour.
        name: Name of the case.
        device: Device of torch that computes.
    """
    rng = np.random.default_rng(seed)
    recipe = draw_recipe(rng)
    images, labels = render(RandomStreams.of(rng, device), recipe, anatomy)
    return store(name, images, labels, recipe.gains, anatomy)


def store(
    name: str, images: Mapping[str, Tensor], labels: Tensor, gains: Mapping[str, float], anatomy: LabelMap
) -> Case:
    """A case as files hold it, from images and labels (D, H, W) on the grid of an anatomy with `margins`.

    Images are int16 with these gains, and at least 1 in the brain.
    """
    affine = anatomy.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ margins(anatomy.spacing_mm)
    volumes = {}
    for sequence, image in images.items():
        stored = (image * gains[sequence]).clamp(max=LARGEST_INTENSITY).clamp(min=1)
        volumes[sequence] = Volume(torch.where(image > 0, stored, 0).to(torch.int16).cpu().numpy(), affine)
    return Case(name, volumes, LabelMap(labels.cpu().numpy(), affine))


def render(streams: RandomStreams, recipe: Recipe, anatomy: LabelMap) -> tuple[dict[str, Tensor], Tensor]:
    """Render a case on the device of `streams`, on the grid of the anatomy with `margins` around it.

    Returns four sequences by name, 0 outside the brain, and the labels of BRATS 2015, all (D, H, W).
    """
    spacing = anatomy.spacing_mm
    scene = build_scene(streams, recipe.pose, recipe.glioma, anatomy)
    labels = torch.zeros_like(scene.tissue)
    labels[scene.box] = scene.lesions.labels
    scene, brain = add_confounders(streams, scene, recipe.confounders)
    scene = replace(scene, fluid=scene.fluid * efface(recipe.glioma, labels > 0, spacing))
    texture, near = draw_texture(streams, scene), near_coil(brain, spacing)
    images = {}
    for sequence, palette in recipe.palettes.items():
        image = paint(streams, scene, palette, texture)
        images[sequence] = degrade(image, brain, near, streams, recipe.artefacts[sequence], spacing)
    return images, labels * brain


def add_confounders(streams: RandomStreams, scene: Scene, drawn: Confounders) -> tuple[Scene, Tensor]:
    """A bare scene with confounders, and the mask (D, H, W) of the brain that its extraction gives."""
    spacing = scene.spacing_mm
    tissue = drawn.add_csf(scene.tissue, spacing)
    brain = drawn.strip(streams, tissue, spacing)
    extras, opacity = drawn.scatter(streams, tissue, brain, spacing)
    changed = replace(
        scene,
        tissue=tissue,
        extras=extras,
        opacity=opacity,
        fluid=drawn.fill_sulci(streams, tissue, spacing),
        cortex=mix_cerebellum(drawn.mixing_mm, tissue, spacing),
        hindbrain=tilt_cerebellum(drawn.slope, tissue, spacing),
    )
    return changed, brain


def degrade(
    image: Tensor, mask: Tensor, near: Tensor, streams: RandomStreams, scan: Artefacts, spacing_mm: Millimetres
) -> Tensor:
    """Apply all artefacts to an image (D, H, W) in the order of a scan; exactly 0 outside the brain `mask`.

    `near` is `near_coil` of the mask.
    """
    if scan.coil:
        image = image * torch.exp(scan.coil * near)
    bias = torch.exp(scan.bias * noise(streams, image.shape, spacing_mm, scan.bias_mm)[0])
    image = scan_slices(image * bias, streams, scan, spacing_mm)
    if scan.shift_mm:
        image = move(image, scan.shift_mm / spacing_mm[scan.phase], scan.moved, scan.phase)
    if scan.ghost:
        image = add_ghosts(image, scan.ghost, scan.ghosts, scan.phase)
    return image * cut_view(mask, scan.cut, scan.axis)


def near_coil(mask: Tensor, spacing_mm: Millimetres) -> Tensor:
    """Nearness (D, H, W) to the surface of a brain mask: 0 in the middle, about 1 on the surface."""
    wide, narrow = (blur(mask, reach_mm, spacing_mm) for reach_mm in (25.0, 10.0))
    near: Tensor = 2 - wide / wide.max() - narrow / narrow.max()
    return near.clamp(0, 1.2)


def add_noise(image: Tensor, streams: RandomStreams, strength: float) -> Tensor:
    """The magnitude of an image with Gaussian noise in two channels: Rician, never negative."""
    one, other = strength * streams.normal((2, *image.shape))
    return torch.hypot(image + one, other)


def scan_slices(image: Tensor, streams: RandomStreams, scan: Artefacts, spacing_mm: Millimetres) -> Tensor:
    """An image (D, H, W) acquired in thick slices with noise, and interpolated back to its grid."""
    pair = slice_matrices(image.shape[scan.axis], spacing_mm[scan.axis], scan.thick_mm, image.device)
    there = [blur_matrix(n, scan.blur_mm / s, image.device) for n, s in zip(image.shape, spacing_mm, strict=True)]
    back: list[Tensor | None] = [None, None, None]
    if pair is not None:
        there[scan.axis], back[scan.axis] = pair
    return along(add_noise(along(image, there), streams, scan.noise), back)


def slice_matrices(n: int, spacing_mm: float, thick_mm: float, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Matrices from n voxels to m slices of `thick_mm` (m, n) and back (n, m); None where slices are not thicker."""
    few = round(n * spacing_mm / thick_mm) if thick_mm > spacing_mm else n
    profile = blur_matrix(n, 0.36 * thick_mm / spacing_mm, device) if few < n else None
    if profile is None or few < 2:
        return None
    return linear_matrix(few, n, device) @ profile, linear_matrix(n, few, device)


def move(image: Tensor, shift: float, share: float, axis: int) -> Tensor:
    """An image (D, H, W) whose head moved by `shift` voxels along `axis` before the last `share` of k-space."""
    frequency = torch.fft.fftfreq(image.shape[axis], device=image.device)
    late = frequency > 0.5 - share
    ramp = torch.where(late, torch.exp(-2j * torch.pi * frequency * shift), torch.ones_like(frequency))
    return _filter_lines(image, ramp, axis)


def add_ghosts(image: Tensor, strength: float, count: int, axis: int) -> Tensor:
    """An image (D, H, W) with `count` faint copies along `axis`, from every `count`-th line of k-space being weaker."""
    lines = torch.ones(image.shape[axis], device=image.device)
    lines[::count] = 1 - strength * count
    lines[0] = 1
    return _filter_lines(image, lines, axis)


def _filter_lines(image: Tensor, lines: Tensor, axis: int) -> Tensor:
    """The magnitude of an image (D, H, W) whose lines of k-space along `axis` are multiplied by `lines`."""
    along_axis = lines.view(*(-1 if a == axis else 1 for a in range(3)))
    magnitude: Tensor = torch.fft.ifft(torch.fft.fft(image, dim=axis) * along_axis, dim=axis).abs()
    return magnitude


def cut_view(mask: Tensor, cut: tuple[float, float], axis: int = 0) -> Tensor:
    """A brain mask (D, H, W) without a share of its slices at either end of `axis`."""
    slices = torch.nonzero(mask.amax(dim=tuple({0, 1, 2} - {axis}))).ravel()
    first, last = int(slices[0]), int(slices[-1]) + 1
    low, high = (round(share * (last - first)) for share in cut)
    seen = torch.zeros_like(mask)
    seen.narrow(axis, first + low, last - first - low - high).fill_(True)
    return mask & seen
