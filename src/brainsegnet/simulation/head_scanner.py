"""A scanner for whole heads: field of view, thick slices with gaps, coils, noise, ringing, motion, and what people do.

The last means that air is set to 0, faces are removed, and the brain was extracted before. Everything happens on the
grid of the simulation, whose axes are those of the scanner.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from brainsegnet._types import Array, Floats, Mask, Millimetres, Range
from brainsegnet.anatomy.procedural import log_uniform, smooth_noise

GRID_MM = 2.0
FWHM_TO_SIGMA = 0.425
"""Standard deviation of a Gaussian over its width at half height."""
LEAST_SLICES = 8
"""A scan has at least as many slices."""


@dataclass(frozen=True)
class SliceParams:
    """Slices along one axis."""

    axis: int
    step_mm: float  # from one slice to the next
    thick_mm: float  # thickness; the step is larger by the gap
    uneven: float  # standard deviation of the logarithm of the brightness of slices


@dataclass(frozen=True)
class HeadScan:
    """Parameters of a scan of a head, except its contrast."""

    view: tuple[Range, Range, Range]  # share of the grid at which the field of view starts and stops, by axis
    slices: SliceParams | None  # thick slices; None for a scan in three dimensions
    blur_mm: Millimetres
    bias: float  # amplitude of the logarithm of the bias field
    bias_mm: float  # its size
    coil: float  # logarithm of the brightness of the rim of the field of view over its middle
    noise: float  # standard deviation, as a share of the brightness of the head
    grain: float  # blur of the noise in voxels
    ringing: tuple[int, float] | None  # axis, and share of k-space that was measured
    motion: tuple[int, float, float] | None  # axis, voxels, and share of k-space after it
    ghost: tuple[int, float, int] | None  # axis, strength, and number
    air_level: float | None  # share of the brightness of the head below which air is set to 0
    defaced_mm: tuple[float, float] | None  # least distance of the plane from the brain, and its slope
    stripped_mm: float | None  # a brain that was extracted with this margin
    offset: float  # constant that is added, as a share of the brightness of the head
    gamma: float


def draw_head_scan(rng: np.random.Generator) -> HeadScan:
    """Draw the parameters of a scan: thick slices in two thirds, most of them axial."""
    thick = bool(rng.random() < 0.65)
    slices = _draw_slices(rng) if thick else None
    along = slices.axis if slices else -1
    blur = np.where(np.arange(3) == along, 0.1, rng.uniform(0.2, 1.3) * rng.uniform(0.7, 1.3, 3))
    plane = [axis for axis in range(3) if axis != along]
    return HeadScan(
        view=tuple(_draw_view(rng, 0.5 if axis == along else 0.25) for axis in range(3)),  # type: ignore[arg-type]
        slices=slices,
        blur_mm=tuple(blur.tolist()),
        bias=abs(rng.normal(0, 0.22)),
        bias_mm=rng.uniform(35, 90),
        coil=rng.normal(0.1, 0.3) * (rng.random() < 0.6),
        noise=log_uniform(rng, 0.004, 0.14),
        grain=rng.uniform(0, 0.9),
        ringing=(int(rng.choice(plane)), rng.uniform(0.5, 0.9)) if rng.random() < 0.15 else None,
        motion=(int(rng.choice(plane)), rng.normal(0, 1.5), rng.uniform(0.05, 0.45)) if rng.random() < 0.1 else None,
        ghost=_draw_ghost(rng, plane) if rng.random() < 0.1 else None,
        air_level=rng.uniform(0.03, 0.25) if rng.random() < 0.3 else None,
        defaced_mm=(rng.uniform(2, 25), rng.uniform(0.3, 1.6)) if rng.random() < 0.15 else None,
        stripped_mm=float(rng.choice([0, 2, 4, 8])) if rng.random() < 0.05 else None,
        offset=rng.uniform(-0.3, 0.6) if rng.random() < 0.12 else 0.0,
        gamma=float(np.exp(rng.normal(0, 0.15))),
    )


def _draw_slices(rng: np.random.Generator) -> SliceParams:
    step_mm = rng.uniform(2.5, 7.5)
    return SliceParams(
        axis=int(rng.choice(3, p=[0.6, 0.2, 0.2])),
        step_mm=step_mm,
        thick_mm=max(2.0, step_mm * (rng.uniform(0.65, 1) if rng.random() < 0.6 else 1)),
        uneven=rng.exponential(0.03) * (rng.random() < 0.5),
    )


def _draw_ghost(rng: np.random.Generator, plane: list[int]) -> tuple[int, float, int]:
    return int(rng.choice(plane)), rng.uniform(0.02, 0.12), int(rng.integers(2, 5))


def _draw_view(rng: np.random.Generator, chance: float) -> Range:
    low, high = (rng.uniform(0, 0.34) * (rng.random() < 0.6) for _ in range(2))
    return (low, 1 - high) if rng.random() < chance else (0.0, 1.0)


def acquire(
    rng: np.random.Generator, image: Floats, parts: tuple[Floats, Mask], scan: HeadScan
) -> tuple[Floats, Floats, Mask, Mask]:
    """A scan of a painted head: image, share of brain, lesions and field of view, all (D, H, W).

    `parts` are the share of brain and the lesions. Nothing is brain outside the field of view.
    """
    brain, lesion = parts
    level = max(float(np.quantile(image[::3, ::3, ::3], 0.9)), 1e-3)
    image = _shade(rng, image / np.float32(level), scan)
    image = _prepare_before(image, brain, scan)
    for strength, function in ((scan.motion, move), (scan.ghost, ghost), (scan.ringing, ring)):
        if strength is not None:
            image = function(image, *strength)
    seen = _field_of_view(image.shape, scan)
    image = _measure(rng, image, scan)
    if scan.air_level is not None:
        image = np.where(ndimage.uniform_filter(image, 3) < scan.air_level, 0, image)
    image = np.sign(image) * np.abs(image) ** np.float32(scan.gamma) + np.float32(scan.offset)
    if scan.stripped_mm is None and scan.defaced_mm is not None:
        image = np.where(face(brain, *scan.defaced_mm), image.min(), image)
    return np.asarray(np.where(seen, image, 0), np.float32), brain * seen, lesion & seen, seen


def _shade(rng: np.random.Generator, image: Floats, scan: HeadScan) -> Floats:
    """The image times the bias field and the sensitivity of coils."""
    shape = image.shape
    radius = sum(np.square(a) for a in np.ix_(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape)))
    field = np.float32(scan.bias) * smooth_noise(rng, shape, (GRID_MM,) * 3, scan.bias_mm)
    field += np.float32(scan.coil) * np.minimum(radius, 1.5)
    return np.asarray(image * np.exp(field), np.float32)


def _prepare_before(image: Floats, brain: Floats, scan: HeadScan) -> Floats:
    """The image as it is, or the brain alone with a margin."""
    if scan.stripped_mm is None:
        return image
    mask = brain > 0.5
    reach = round(scan.stripped_mm / GRID_MM)
    return np.asarray(image * (ndimage.binary_dilation(mask, iterations=reach) if reach else mask), np.float32)


def face(brain: Floats, distance_mm: float, slope: float) -> Mask:
    """The voxels (D, H, W) in front of and below a plane that passes the brain at a distance."""
    d, h, _ = brain.shape
    along = np.ix_(np.arange(d, dtype=np.float32) * -slope, -np.arange(h, dtype=np.float32))
    front = (along[0] + along[1]) / np.hypot(1, slope)
    inside = (brain > 0.5).any(axis=2)
    limit = front[inside].max() + distance_mm / GRID_MM if inside.any() else np.inf
    return np.asarray(np.broadcast_to((front > limit)[..., None], brain.shape), np.bool_)


def _filter_lines(image: Floats, lines: Array, axis: int) -> Floats:
    """The magnitude of an image (D, H, W) whose lines of k-space along an axis are multiplied by `lines`."""
    shape = [1, 1, 1]
    shape[axis] = -1
    factors = lines.reshape(shape).astype(np.complex64)
    return np.asarray(np.abs(fft.ifft(fft.fft(image, axis=axis) * factors, axis=axis)))


def move(image: Floats, axis: int, shift: float, share: float) -> Floats:
    """An image (D, H, W) whose head moved by `shift` voxels along an axis before the last `share` of k-space."""
    frequency = np.fft.fftfreq(image.shape[axis])
    return _filter_lines(image, np.where(frequency > 0.5 - share, np.exp(-2j * np.pi * frequency * shift), 1), axis)


def ghost(image: Floats, axis: int, strength: float, count: int) -> Floats:
    """An image (D, H, W) with `count` faint copies along an axis."""
    lines = np.ones(image.shape[axis])
    lines[::count] = 1 - strength * count
    lines[0] = 1
    return _filter_lines(image, lines, axis)


def ring(image: Floats, axis: int, share: float) -> Floats:
    """An image (D, H, W) of which only the middle `share` of k-space along an axis was measured."""
    frequency = np.abs(np.fft.fftfreq(image.shape[axis]))
    return _filter_lines(image, (frequency <= share / 2).astype(np.float64), axis)


def _field_of_view(shape: tuple[int, ...], scan: HeadScan) -> Mask:
    seen = np.ones(shape, np.bool_)
    for axis, (n, (low, high)) in enumerate(zip(shape, scan.view, strict=True)):
        index = np.arange(n)
        edge = [1, 1, 1]
        edge[axis] = -1
        seen &= ((index >= round(low * n)) & (index < round(high * n))).reshape(edge)
    return seen


def _measure(rng: np.random.Generator, image: Floats, scan: HeadScan) -> Floats:
    """The image blurred and averaged over slices, with noise, and interpolated back to its grid."""
    sigmas = [b / GRID_MM for b in scan.blur_mm]
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.15:
            image = ndimage.gaussian_filter1d(image, sigma, axis, truncate=2.5)
    if scan.slices is None:
        return _add_noise(rng, image, scan.noise, scan.grain)
    slices = scan.slices
    there, back = slice_matrices(image.shape[slices.axis], scan.view[slices.axis], slices)
    few = np.tensordot(there, image, axes=(1, slices.axis))
    few *= np.exp(rng.normal(0, slices.uneven, (len(few), 1, 1))).astype(np.float32)
    few = _add_noise(rng, few, scan.noise, scan.grain)
    return np.asarray(np.moveaxis(np.tensordot(back, few, axes=(1, 0)), 0, slices.axis), np.float32)


def slice_matrices(n: int, view: Range, slices: SliceParams) -> tuple[Floats, Floats]:
    """Matrices from n voxels to m slices within the field of view (m, n) and back (n, m).

    Beyond the middle of the first and the last slice these are repeated.
    """
    start, stop = (round(share * n) * GRID_MM for share in view)
    count = max(round((stop - start) / slices.step_mm), LEAST_SLICES)
    step = (stop - start) / count
    middles, voxels = start + (np.arange(count) + 0.5) * step, (np.arange(n) + 0.5) * GRID_MM
    sigma = max(FWHM_TO_SIGMA * slices.thick_mm, 0.3 * GRID_MM)
    there = np.exp(-0.5 * ((middles[:, None] - voxels[None]) / sigma) ** 2)
    at = np.clip((voxels[:, None] - middles[0]) / step, 0, count - 1)
    back = np.clip(1 - np.abs(at - np.arange(count)[None]), 0, None)
    return (there / there.sum(axis=1, keepdims=True)).astype(np.float32), back.astype(np.float32)


def _add_noise(rng: np.random.Generator, image: Floats, strength: float, grain: float) -> Floats:
    """The magnitude of an image with noise in two channels."""
    one = rng.standard_normal(image.shape, dtype=np.float32)
    other = rng.standard_normal(image.shape, dtype=np.float32)
    if grain > 0.3:
        one, other = (ndimage.gaussian_filter(n, grain, truncate=2) for n in (one, other))
        strength /= max(float(one[::2, ::2, ::2].std()), 1e-6)
    one *= np.float32(strength)
    one += image
    other *= np.float32(strength)
    return np.asarray(np.hypot(one, other), np.float32)
