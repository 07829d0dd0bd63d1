"""A stroke in a scanner: images of diffusion and maps of perfusion on the grid of the scan, and the lesion outlined."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brainsegnet.synthesis.anatomy import Floats, Labels
from brainsegnet.synthesis.echo_planar import SOLID, Distortion, distort
from brainsegnet.synthesis.stroke_appearance import DiffusionContrast, Flow, measure_adc, paint_diffusion
from brainsegnet.synthesis.stroke_faults import Jolt, add_ghost, cut_slices, darken_slices, fullest_slice, shift_slices
from brainsegnet.synthesis.stroke_scanner import Grid, Optics, add_noise, extract_brain, remnants, resample, shade
from brainsegnet.synthesis.territories import Ground
from brainsegnet.synthesis.tumour import Mask, smooth_noise
from brainsegnet.volume import LabelMap

TRACE_NOISE = 0.62
"""Of the noise of one image what is left in the mean of three directions of diffusion weighting, and a little more."""


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A diffusion scan: images, ADC in 1e-6 mm2/s and the brain found in it, each (D, H, W), and what distorts them."""

    b0: Floats
    dwi: Floats
    adc: Floats
    brain: Mask
    distortion: Distortion


def expose_diffusion(
    rng: np.random.Generator,
    head: LabelMap,
    ground: Ground,
    layers: tuple[Mask, Labels],
    scanner: tuple[Grid, Optics, DiffusionContrast],
) -> Diffusion:
    """A diffusion scan of a head with a core and mimics (`layers`, each (D, H, W))."""
    grid, optics, contrast = scanner
    tissues = paint_diffusion(rng, ground, *layers, contrast)
    distortion = distort(rng, head, ground.points, optics.shift_mm)
    share = distortion.pile(head.array > 0)
    weight = resample(share > SOLID, head, grid, optics.blur)
    factor = np.asarray(shade(rng, grid, optics, weight) / np.maximum(weight, 0.25), np.float32)
    b0, dwi = (
        np.asarray(factor * resample(distortion.expose(signal, share), head, where, optics.blur), np.float32)
        for signal, where in (
            (tissues.b0, grid.moved(optics.drift)),
            (tissues.weighted(contrast.b_s_mm2), grid),
        )
    )
    dwi *= 1 + optics.fat * remnants(rng, grid, weight)
    faults = optics.faults
    dwi, weight = (shift_slices(field, faults.jolt) for field in (dwi, weight))
    dwi = darken_slices(dwi, faults.jolt)
    brain = extract_brain(rng, weight, grid, optics.rim)
    if any(faults.cut):
        brain = cut_slices(brain, faults.cut, fullest_slice(layers[0], head.affine, grid.affine))
    parallel = np.exp(0.35 * smooth_noise(rng, grid.shape, grid.spacing_mm, 30.0))
    sigma = optics.noise * float(np.median(dwi[brain])) * parallel
    b0 = add_noise(rng, add_ghost(b0, faults.ghost), sigma, optics.grain)
    dwi = add_noise(rng, add_ghost(dwi, faults.ghost), sigma * TRACE_NOISE, optics.grain)
    return Diffusion(b0, dwi, measure_adc(b0, dwi, contrast.b_s_mm2), brain, distortion)


def outline(
    rng: np.random.Generator, mask: Mask, head: LabelMap, scan: tuple[Grid, Mask], jolt: Jolt | None = None
) -> LabelMap:
    """A lesion (D, H, W) as a reader outlines it in the brain of a scan: tight or generous, without pin holes."""
    grid, brain = scan
    share = shift_slices(resample(mask, head, grid), jolt) * brain
    drawn = share > min(rng.uniform(0.22, 0.55), 0.8 * float(share.max()))
    closed = drawn | ndimage.binary_closing(drawn)  # which alone would wear off what touches the first or last slice
    return LabelMap((closed & brain).astype(np.uint8), grid.affine)


def expose_flow(
    rng: np.random.Generator, head: LabelMap, flow: Flow, scanner: tuple[Grid, Optics, Distortion]
) -> dict[str, Floats]:
    """MTT, rCBF, rCBV, Tmax and TTP (D, H, W): seconds, and blood in units of the scanner's own.

    Flow is averaged over voxels wider than the grid's; noise grows where there is little flow.
    """
    grid, optics, distortion = scanner
    blur = float(rng.uniform(0.8, 1.4))
    brain = head.array > 0
    weight = np.maximum(resample(distortion.pile(brain), head, grid, blur), 0.25)
    cbf, cbv, delay = (
        np.asarray(resample(distortion.pile(field), head, grid, blur) / weight, np.float32)
        for field in (flow.cbf, flow.cbv, flow.delay * brain)
    )
    noise = [add_noise(rng, np.full(grid.shape, 9, np.float32), 1, 1.0) - 9 for _ in range(4)]
    level = 0.85 * optics.noise * np.sqrt(30 / np.maximum(cbf, 4))
    cbf, cbv = cbf * np.exp(2 * level * noise[0]), cbv * np.exp(2 * level * noise[1])
    mtt = np.clip(60 * cbv / np.maximum(cbf, 1), 0, 30)
    tmax = np.maximum(delay + rng.uniform(4, 14) * level * noise[2], 0)
    ttp = rng.uniform(12, 28) + 1.1 * tmax + 0.4 * mtt + rng.uniform(2, 8) * level * noise[3]
    gain = np.exp(rng.uniform(np.log(0.5), np.log(20), 2))
    return {"mtt": mtt, "rcbf": gain[0] * cbf, "rcbv": gain[1] * cbv, "tmax": tmax, "ttp": ttp}
