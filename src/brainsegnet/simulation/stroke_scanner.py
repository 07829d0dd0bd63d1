"""A scanner for strokes: from properties of tissue on a fine grid to images of diffusion and maps of perfusion.

A scan averages signal over its voxels (partial volume), so sulci and thin cortex blur as in patients. It adds coil
sensitivity, bias field, noise, echo-planar distortion and faults; brain extraction leaves some remnants.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

import brainsegnet.simulation.echo_planar as epi
from brainsegnet._types import Array, Floats, Labels, Mask, Millimetres
from brainsegnet.anatomy.procedural import log_uniform, rotation, smooth_noise
from brainsegnet.anatomy.territories import Ground
from brainsegnet.simulation.stroke_appearance import DiffusionContrast, Flow, measure_adc, paint_diffusion
from brainsegnet.volume import LabelMap, Volume

BOX_TO_SIGMA = 12**-0.5
"""Standard deviation of a box function over its width."""
COIL_MM = 12.0
"""Depth to which a surface coil is more sensitive."""
TRACE_NOISE = 0.62
"""Noise of the mean of three diffusion directions over that of one image; a little more than 1 / sqrt(3)."""


@dataclass(frozen=True)
class ScanParams:
    """Parameters of a scan, except its contrast."""

    blur: float  # width of the point spread in the plane, in voxels, beside that of the voxel itself
    bias: float  # amplitude of the logarithm of the bias field
    shift_mm: float  # typical displacement of signal by a cavity of air, see `draw_distortion`
    noise: float  # standard deviation of the noise over brain in the weakest image
    grain: float  # blur of the noise by interpolation, in voxels
    slice_variation: float  # amplitude of the brightness from slice to slice
    brain_level: float  # share of brain in a voxel at which brain extraction cuts
    coil: float  # logarithm of the brightness of the surface of the head over its middle, because coils are near it
    meninges: float  # brightness of meninges that extraction leaves on the brain, relative to brain
    scalp: float  # the same of scalp, which is bright only with diffusion weighting because its ADC is low
    drift: float  # displacement of the image without diffusion weighting in rows, by eddy currents and motion
    faults: epi.Faults  # motion, a ghost, missing slices


def draw_scan(rng: np.random.Generator) -> ScanParams:
    """Draw the parameters of a scan."""
    return ScanParams(
        blur=rng.uniform(0.2, 0.55),
        bias=rng.uniform(0.05, 0.25),
        shift_mm=float(np.exp(rng.normal(np.log(8), 0.3))),
        noise=log_uniform(rng, 0.045, 0.12),
        grain=rng.uniform(0, 0.7),
        slice_variation=rng.exponential(0.01),
        brain_level=rng.uniform(0.3, 0.75),
        coil=float(rng.uniform(0, 0.25) * (rng.random() < 0.7)),
        meninges=rng.exponential(0.2),
        scalp=rng.exponential(0.25),
        drift=rng.normal(0, 0.4),
        faults=epi.draw_faults(rng),
    )


def place_grid(
    rng: np.random.Generator, anatomy: LabelMap, shape: Sequence[int], spacing_mm: Millimetres, detail: float = 1.0
) -> Volume:
    """An empty image, slightly rotated, around an anatomy: slices go up, rows to the front, columns to the left.

    `detail` is a factor on the number of voxels along each axis, and divides the spacing.
    """
    shape, spacing = [round(n * detail) for n in shape], np.array(spacing_mm) / detail
    axes = np.array([[0, 0, 1.0], [0, -1.0, 0], [1.0, 0, 0]])
    affine = np.eye(4)
    affine[:3, :3] = rotation(rng.normal(0, (0.12, 0.04, 0.04)), ((1, 2), (2, 0), (0, 1))) @ axes * spacing
    voxels = np.argwhere(anatomy.array[::4, ::4, ::4] > 0) * 4
    placed = voxels @ anatomy.affine[:3, :3].T + anatomy.affine[:3, 3]
    along = placed @ np.linalg.inv(affine[:3, :3]).T
    middle = (along.min(axis=0) + along.max(axis=0)) / 2 + rng.normal(0, 1.5, 3) * (1 / spacing)
    affine[:3, 3] = affine[:3, :3] @ (middle - (np.array(shape) - 1) / 2)
    return Volume(np.broadcast_to(np.float32(0), shape), affine)


def resample(field: Array, anatomy: LabelMap, grid: Volume, blur: float = 0.0) -> Floats:
    """A field (D, H, W) on the grid of the anatomy, averaged over the voxels of a scan; 0 outside."""
    wide = [n * np.hypot(BOX_TO_SIGMA, blur if axis else 0) for axis, n in enumerate(grid.spacing_mm)]
    sigmas = [s / step for s, step in zip(wide, anatomy.spacing_mm, strict=True)]
    smooth = ndimage.gaussian_filter(np.asarray(field, np.float32), sigmas, truncate=2.5)
    onto = np.linalg.inv(anatomy.affine) @ grid.affine
    out = ndimage.affine_transform(smooth, onto[:3, :3], onto[:3, 3], grid.shape, order=1)
    return np.asarray(out, np.float32)


def shade(rng: np.random.Generator, grid: Volume, params: ScanParams, weight: Floats) -> Floats:
    """Factor (D, H, W) on the signal by bias, slices, coils and remnants; `weight` is the share of brain in a voxel."""
    bias = params.bias * smooth_noise(rng, grid.shape, grid.spacing_mm, 55.0)
    slices = rng.normal(0, params.slice_variation, (grid.shape[0], 1, 1))
    about = ndimage.gaussian_filter(weight, [COIL_MM / s for s in grid.spacing_mm], truncate=2.5)
    near = np.clip(2 - 2 * about, 0, 1)
    meninges = 1 + params.meninges * remnants(rng, grid, weight)
    return np.asarray(np.exp(bias + slices + params.coil * near) * meninges, np.float32)


def remnants(rng: np.random.Generator, grid: Volume, weight: Floats) -> Floats:
    """What extraction leaves on the surface of the brain: 0 to 2, (D, H, W); `weight` is the share of brain."""
    edge = np.clip(1 - np.abs(weight - 0.5) / 0.35, 0, 1)
    return np.asarray(np.clip(smooth_noise(rng, grid.shape, grid.spacing_mm, 7.0), 0, 2) * edge, np.float32)


def add_noise(rng: np.random.Generator, signal: Floats, sigma: float | Floats, grain: float) -> Floats:
    """The magnitude (D, H, W) of a signal with noise in two channels: Rician, blurred by `grain` voxels.

    `sigma` is its standard deviation after the blur, one number or one for each voxel.
    """
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    if grain > 0.2:
        real, imaginary = (ndimage.gaussian_filter(n, grain, truncate=2.5) for n in (real, imaginary))
    spread = np.asarray(sigma / max(float(real.std()), 1e-6), np.float32)
    return np.asarray(np.hypot(signal + spread * real, spread * imaginary), np.float32)


def extract_brain(rng: np.random.Generator, weight: Floats, grid: Volume, brain_level: float) -> Mask:
    """The brain (D, H, W) as an extraction finds it: a share of brain in the voxel above about `brain_level`."""
    ragged = brain_level + 0.12 * smooth_noise(rng, weight.shape, grid.spacing_mm, 9.0)
    return np.asarray(weight > np.clip(ragged, 0.15, 0.9), np.bool_)


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A diffusion scan, each (D, H, W): images, ADC in 1e-6 mm2/s, the extracted brain; and its distortion."""

    b0: Floats
    dwi: Floats
    adc: Floats
    brain: Mask
    distortion: epi.Distortion


def acquire_diffusion(
    rng: np.random.Generator,
    anatomy: LabelMap,
    ground: Ground,
    lesions: tuple[Mask, Labels],
    scanner: tuple[Volume, ScanParams, DiffusionContrast],
) -> Diffusion:
    """Acquire a diffusion scan of an anatomy with lesions: a core and `Mimic`s, each (D, H, W)."""
    grid, params, contrast = scanner
    faults, blur = params.faults, params.blur
    tissues = paint_diffusion(rng, ground, *lesions, contrast)
    distortion = epi.draw_distortion(rng, anatomy, ground.points, params.shift_mm)
    share = distortion.distort_jacobian(anatomy.array > 0)
    weight = resample(share > epi.LEAST_BRAIN, anatomy, grid, blur)
    factor = np.asarray(shade(rng, grid, params, weight) / np.maximum(weight, 0.25), np.float32)
    drifted = grid.affine.copy()
    drifted[:3, 3] += drifted[:3, 1] * params.drift
    signals = (tissues.b0, replace(grid, affine=drifted)), (tissues.weighted(contrast.b_s_mm2), grid)
    b0, dwi = (
        np.asarray(factor * resample(distortion.acquire(signal, share), anatomy, where, blur), np.float32)
        for signal, where in signals
    )
    dwi *= 1 + params.scalp * remnants(rng, grid, weight)
    dwi, weight = (epi.shift_slices(field, faults.motion) for field in (dwi, weight))
    dwi = epi.darken_slices(dwi, faults.motion)
    brain = extract_brain(rng, weight, grid, params.brain_level)
    if any(faults.cut):
        brain = epi.cut_slices(brain, faults.cut, epi.fullest_slice(lesions[0], anatomy.affine, grid.affine))
    parallel = np.exp(0.35 * smooth_noise(rng, grid.shape, grid.spacing_mm, 30.0))
    sigma = params.noise * float(np.median(dwi[brain])) * parallel
    b0 = add_noise(rng, epi.add_ghost(b0, faults.ghost), sigma, params.grain)
    dwi = add_noise(rng, epi.add_ghost(dwi, faults.ghost), sigma * TRACE_NOISE, params.grain)
    return Diffusion(b0, dwi, measure_adc(b0, dwi, contrast.b_s_mm2), brain, distortion)


def outline(
    rng: np.random.Generator,
    mask: Mask,
    anatomy: LabelMap,
    scan: tuple[Volume, Mask],
    motion: epi.HeadMotion | None = None,
) -> LabelMap:
    """A lesion (D, H, W) as a reader outlines it in the brain of a scan: tight or generous, without small holes."""
    grid, brain = scan
    share = epi.shift_slices(resample(mask, anatomy, grid), motion) * brain
    drawn = share > min(rng.uniform(0.22, 0.55), 0.8 * float(share.max()))
    closed = drawn | ndimage.binary_closing(drawn)  # closing alone erodes what touches the first or last slice
    return LabelMap((closed & brain).astype(np.uint8), grid.affine)


def acquire_perfusion(
    rng: np.random.Generator, anatomy: LabelMap, flow: Flow, scanner: tuple[Volume, ScanParams, epi.Distortion]
) -> dict[str, Floats]:
    """Acquire perfusion maps (D, H, W): MTT, Tmax and TTP in seconds, rCBF and rCBV in arbitrary units.

    Flow is averaged over more than a voxel; noise is higher where there is little flow.
    """
    grid, params, distortion = scanner
    blur = rng.uniform(0.8, 1.4)
    brain = anatomy.array > 0
    weight = np.maximum(resample(distortion.distort_jacobian(brain), anatomy, grid, blur), 0.25)
    cbf, cbv, delay = (
        np.asarray(resample(distortion.distort_jacobian(field), anatomy, grid, blur) / weight, np.float32)
        for field in (flow.cbf, flow.cbv, flow.delay * brain)
    )
    noise = [add_noise(rng, np.full(grid.shape, 9, np.float32), 1, 1.0) - 9 for _ in range(4)]
    level = 0.85 * params.noise * np.sqrt(30 / np.maximum(cbf, 4))
    cbf, cbv = cbf * np.exp(2 * level * noise[0]), cbv * np.exp(2 * level * noise[1])
    mtt = np.clip(60 * cbv / np.maximum(cbf, 1), 0, 30)
    tmax = np.maximum(delay + rng.uniform(4, 14) * level * noise[2], 0)
    ttp = rng.uniform(12, 28) + 1.1 * tmax + 0.4 * mtt + rng.uniform(2, 8) * level * noise[3]
    gain = np.exp(rng.uniform(np.log(0.5), np.log(20), 2))
    return {"mtt": mtt, "rcbf": gain[0] * cbf, "rcbv": gain[1] * cbv, "tmax": tmax, "ttp": ttp}
