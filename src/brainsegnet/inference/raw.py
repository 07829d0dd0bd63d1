"""From images on their own grids to the case that the network sees: aligned, stripped, and of one voxel size.

Scans that are prepared already, on one grid of the model's spacing and without the skull, pass unchanged.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brainsegnet._types import ItkObject, Mask
from brainsegnet.errors import ImageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.brain import REMEDY, BrainExtractor, extract_brain
from brainsegnet.inference.predict import LoadedCase, find_used
from brainsegnet.inference.scope import find_scope_warnings
from brainsegnet.inference.segmentation import refuse_poor
from brainsegnet.inference.steps import BrainNote, DicomSource, Steps, require_dicom
from brainsegnet.io.images import read_image, to_labels
from brainsegnet.model.card import Card
from brainsegnet.preprocessing.alignment import Alignment, align
from brainsegnet.preprocessing.foreground import SkullState, find_air, find_foreground
from brainsegnet.preprocessing.geometry import turn_like
from brainsegnet.preprocessing.grids import bring, build_working_grid
from brainsegnet.preprocessing.prepare import check_case
from brainsegnet.volume import Case, LabelMap, Volume

LEAST_MASK_ML, MOST_MASK_ML = 100.0, 2500.0
"""Volumes of the brain within a given mask below and above which the mask is wrong."""
LEAST_SLICES = 3
LARGEST_STEP_MM = 15.0
"""Distance of slices that no scan of a whole head exceeds."""
CT_AIR = (-1100.0, -900.0)
"""Air in CT, in Hounsfield units."""
_SHOW_BRAIN = ("flair", "t1", "t1c", "t2", "dwi", "adc")
"""Sequences that show a whole brain; maps of perfusion may not."""


@dataclass(frozen=True, eq=False)
class RawCase:
    """The images of a case as they were read.

    Attributes:
        name: Name of the case, for messages.
        images: Each sequence on its own grid; at least one.
        sources: Sequences that are DICOM, to their series.
        lesion: True label map, on the grid of the reference or of the sequence on which it was drawn; or None.
    """

    name: str
    images: Mapping[str, Volume]
    sources: Mapping[str, DicomSource] = field(default_factory=dict)
    lesion: LabelMap | None = None


def load_images(
    raw: RawCase, card: Card, options: SegmentOptions, extractor: Callable[[], BrainExtractor] = BrainExtractor
) -> LoadedCase:
    """Align the sequences of a case, find the brain, and bring all to the grid on which the model works.

    Args:
        raw: The images.
        card: Card of the model.
        options: How to segment.
        extractor: Gives what finds brains; called where a skull is on.

    Raises:
        MissingSequence: the model needs a sequence that is absent, or finds hardly anything with those that are there.
        ImageError: an image cannot be used, a sequence moved further than a patient does, or shows no brain.
        GridMismatch: sequences are on different grids, and the options say that these are not brought together.
    """
    case, images = raw.name, {name: raw.images[name] for name in find_used(raw.name, raw.images, card)}
    for name, image in images.items():
        check_image(case, name, image)
    seconds: dict[str, float] = {}
    with _timing(seconds, "align"):
        alignment = align(case, images, options.alignment, options.reference, card.sequences)
    reference, source = images[alignment.reference], raw.sources.get(alignment.reference)
    if options.dicom:
        require_dicom(case, alignment.reference, source)
    grid = build_working_grid(reference, card.input.spacing_mm if options.spacing == "model" else None)
    with _timing(seconds, "brain"):
        brain = find_brain(replace(raw, images=images), alignment, grid, options, extractor)
    if not options.allow_poor:
        refuse_poor(case, card, [*images])
    with _timing(seconds, "align"):
        working = bring_all(case, images, alignment, grid, brain.mask)
        lesion = raw.lesion and bring(raw.lesion, grid, find_transform(raw.lesion, images, alignment))
    return LoadedCase(
        Case(case, working, lesion),
        native=None if grid.on_grid_of(reference) else _without_voxels(reference),
        steps=Steps(alignment, brain, {name: _without_voxels(image) for name, image in images.items()}),
        source=source,
        warnings=(
            *find_scope_warnings({name: one.series.header for name, one in raw.sources.items()}),
            *_warn_of_spacing(grid, card.input.spacing_mm),
        ),
        seconds=seconds,
    )


def check_image(case: str, name: str, image: Volume) -> None:
    """Check that an image is a scan of a head by MRI, as far as its size and its values tell.

    Raises:
        ImageError: it is flat, empty, a label map or damaged, has too few slices or too far apart, or is CT.
    """
    check_case(Case(case, {name: image}))
    if (count := min(image.shape)) < LEAST_SLICES:
        slices = "1 slice" if count == 1 else f"{count} slices"
        raise ImageError(f"case {case}: {name} has only {slices}; give a scan of the whole head, or leave it out")
    if (apart_mm := max(image.spacing_mm)) > LARGEST_STEP_MM:
        raise ImageError(
            f"case {case}: {name} has slices {apart_mm:.0f} mm apart, as a localizer has, or its header is wrong; give "
            "a scan of the whole head, or leave it out"
        )
    air = find_air(image.array)
    if name in _SHOW_BRAIN and any(CT_AIR[0] <= value <= CT_AIR[1] for value in (air.level, *air.values)):
        raise ImageError(f"case {case}: {name} looks like CT, its air is near -1000; give an image of MRI")


def find_brain(
    raw: RawCase,
    alignment: Alignment,
    grid: Volume,
    options: SegmentOptions,
    extractor: Callable[[], BrainExtractor],
) -> BrainNote:
    """The brain of a case on the working grid; its mask is None where the scans are stripped, or taken as they are.

    Where the skull is not on and the scans are not prepared, they must show a brain too: it may be a phantom, or no
    head.

    Errors are those of `load_images`.
    """
    case, images = raw.name, raw.images
    with ThreadPoolExecutor() as pool:
        skull = dict(zip(images, pool.map(find_skull_state, images.values()), strict=True))
    if options.brain_mask is not None:
        return _read_brain(case, images, alignment, grid, options.brain_mask, skull)
    heads = {name: images[name] for name, state in skull.items() if state in ("skull on", "no background")}
    if not options.extract_brain:
        return BrainNote("as given", skull)
    stripped = {name: image for name, image in images.items() if name not in heads}
    for name in raw.sources.keys() & stripped.keys():
        if defect := extractor()(images[name]).defect:
            raise ImageError(f"case {case}: no brain was found in {name}: {defect}; {REMEDY}")
    if not heads:
        prepared = all(skull[name] == "stripped" and image.on_grid_of(grid) for name, image in images.items())
        if not (prepared or raw.sources):
            _require_brain(case, stripped, extractor)
        return BrainNote("as given", skull)
    found = extract_brain(case, heads, alignment, grid, extractor())
    volume_ml = float(np.count_nonzero(found.mask)) * grid.voxel_ml
    return BrainNote("extracted", skull, found.mask, volume_ml, found.to_json(), tuple(found.warnings))


def _require_brain(case: str, images: Mapping[str, Volume], extractor: Callable[[], BrainExtractor]) -> None:
    """Raise `ImageError` if none of the images shows a clear brain, maps of perfusion aside."""
    absent = ""
    for name in (name for name in _SHOW_BRAIN if name in images):
        found = extractor()(images[name])
        if found.is_brain:
            return
        absent = absent or f"case {case}: no brain was found in {name}: {found.defect}; {REMEDY}"
    if absent:
        raise ImageError(absent)


def find_skull_state(image: Volume) -> SkullState:
    """Whether the skull is on in one image."""
    return find_foreground({"": image.array}, image.spacing_mm).skull


def _read_brain(
    case: str,
    images: Mapping[str, Volume],
    alignment: Alignment,
    grid: Volume,
    path: Path,
    skull: Mapping[str, SkullState],
) -> BrainNote:
    """The brain in the file of the user, which lies where the sequence lies whose grid it has, else the reference."""
    stored = read_image(path)
    drawn = to_labels(stored.with_array(stored.array > 0.5))
    homes = find_homes(drawn, images, alignment)
    named = [name for name in homes if name in re.split(r"[^a-z0-9]+", path.name.lower())]
    home = (named or homes or [alignment.reference])[0]
    moved = [name for name in homes if alignment.motions[name].transform is not alignment.motions[home].transform]
    doubt = (
        f"the brain mask {path.name} has the grid of {' and '.join(homes)}, which moved against each other; it was "
        f"taken as drawn on {home}; put the name of its sequence into its file name"
    )
    mask = bring(drawn, grid, alignment.motions[home].transform).array > 0
    volume_ml = float(np.count_nonzero(mask)) * grid.voxel_ml
    if not LEAST_MASK_ML <= volume_ml <= MOST_MASK_ML:
        raise ImageError(
            f"case {case}: the brain mask {path} covers {volume_ml:.0f} ml of {alignment.reference}, "
            f"and a brain has {LEAST_MASK_ML:.0f} to {MOST_MASK_ML:.0f} ml; name the mask of this patient, on the grid "
            "of one of the sequences"
        )
    return BrainNote("file", skull, mask, volume_ml, warnings=(doubt,) if moved and not named else ())


def bring_all(
    case: str, images: Mapping[str, Volume], alignment: Alignment, grid: Volume, mask: Mask | None
) -> dict[str, Volume]:
    """Each sequence on the working grid, by one interpolation, and 0 outside the brain.

    Raises:
        ImageError: a sequence shows nothing of the brain.
    """

    def bring_one(name: str) -> Volume:
        image = bring(images[name], grid, alignment.motions[name].transform)
        if mask is not None:
            image = image.with_array(np.where(mask, image.array, image.array.dtype.type(0)))
        if image.array.min() == image.array.max():
            place = "in the brain" if mask is not None else f"where {alignment.reference} lies"
            raise ImageError(f"case {case}: {name} shows nothing {place}; check its headers, or leave it out")
        return image

    with ThreadPoolExecutor() as pool:
        return dict(zip(images, pool.map(bring_one, images), strict=True))


def find_transform(part: LabelMap, images: Mapping[str, Volume], alignment: Alignment) -> ItkObject:
    """How a label map comes to the reference: as the sequence whose grid it has, so what was drawn stays in place."""
    homes = find_homes(part, images, alignment)
    return alignment.motions[homes[0]].transform if homes else None


def find_homes(part: LabelMap, images: Mapping[str, Volume], alignment: Alignment) -> list[str]:
    """The sequences whose voxels a label map has, whatever the order of its axes; the reference first."""
    empty = _without_voxels(part)
    homes = [name for name, image in images.items() if turn_like(empty, image).on_grid_of(image)]
    return sorted(homes, key=lambda name: name != alignment.reference)


def _warn_of_spacing(grid: Volume, spacing_mm: float | None) -> list[str]:
    """A warning if the network sees other voxels than those of its training."""
    if build_working_grid(grid, spacing_mm).on_grid_of(grid):
        return []
    seen = " x ".join(f"{mm:.3g}" for mm in grid.spacing_mm[::-1])
    return [f"the network sees voxels of {seen} mm, and it knows those of {spacing_mm:g} mm; leave out --spacing keep"]


def _without_voxels(image: Volume) -> Volume:
    """The grid of an image, in no memory."""
    return replace(image, array=np.broadcast_to(np.uint8(0), image.shape))


@contextmanager
def _timing(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
