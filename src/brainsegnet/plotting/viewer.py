"""A result as one HTML page to scroll through. It opens from disk, offline, without WebGL or a server."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from brainsegnet._atomic import writable, write_text
from brainsegnet._types import Array, ItkObject
from brainsegnet.errors import ImageError
from brainsegnet.io.images import write_image
from brainsegnet.metrics.lesions import ANY_LESION, Lesion, measure_lesions
from brainsegnet.metrics.scores import dice
from brainsegnet.plotting.overlays import spelt
from brainsegnet.plotting.packing import (
    Frame,
    frame_head,
    mask_head,
    pack,
    pack_image,
    pack_share,
    to_finite,
    to_text,
)
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.geometry import find_turn, turn
from brainsegnet.preprocessing.registration import register
from brainsegnet.task import Task
from brainsegnet.volume import LabelMap, Volume, load_itk

BACKGROUND = "background"
MOST_LESIONS = 50
_HEIGHT = 860
"""Pixels of a viewer in a notebook."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A result with all that a viewer shows of it.

    Attributes:
        name: Name of the case.
        labels: The label map.
        task: What its values mean, their colours, and the regions.
        images: Sequence to image, on the grid of the label map or on another.
        maps: Tissue, "background" or "entropy" to its map of numbers from 0 to 1.
        truth: True labels in the same convention, on any grid, if they are known.
        note: Content of the JSON of the result, as `Segmentation.report` gives it; it may be empty.
        motions: Sequence to how it was moved for the result, as `geometry.moved` of the note tells, where images are as
            scanned. Empty if they are aligned already.
        file: Name and content of the file of the label map. By default it is a .nii.gz, named after the case.
        warnings: Sentences beside those of the note.
    """

    name: str
    labels: LabelMap
    task: Task
    images: Mapping[str, Volume]
    maps: Mapping[str, Volume] = field(default_factory=dict)
    truth: LabelMap | None = None
    note: Mapping[str, Any] = field(default_factory=dict)
    motions: Mapping[str, Any] = field(default_factory=dict)
    file: tuple[str, bytes] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Viewer:
    """A page to scroll through a result. A notebook shows it.

    Attributes:
        html: The page.
        warnings: The sentences at its top.
    """

    html: str
    warnings: tuple[str, ...] = ()

    def save(self, path: Path | str) -> None:
        """Write the page, whole or not at all.

        Raises:
            OutputError: it cannot be written, or its name does not end in .html.
        """
        writable(Path(path), (".html",))
        write_text(self.html, Path(path))

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{_HEIGHT}px;border:0"
        return f'<iframe title="viewer" style="{style}" srcdoc="{escape(self.html)}"></iframe>'


def show(shown: Shown) -> Viewer:
    """The page of a result.

    Raises:
        ImageError: there is no image, or one cannot be registered again.
        LabelError: the label map or the truth holds labels that the task does not have.
    """
    from jinja2 import Environment, StrictUndefined

    shown.task.check(shown.labels.array, shown.name)
    truth = None if shown.truth is None else resample(shown.truth, shown.labels).array
    if truth is not None:
        shown.task.check(truth, f"{shown.name} (truth)")
    meta, volumes = _pack_all(shown, bring_images(shown), truth)
    home = files("brainsegnet.plotting")
    page, style, script = (home.joinpath(f"viewer.{end}").read_text("utf-8") for end in ("html.j2", "css", "js"))
    warnings = list_warnings(shown)
    writer = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = writer.from_string(page).render(
        name=shown.name,
        warnings=warnings,
        about=_describe_origin(shown),
        regions=describe_regions(shown, truth),
        truth=truth is not None,
        meta=meta,
        meta_json=json.dumps(meta, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        volumes=volumes,
        style=style,
        script=script,
        version=version("brainsegnet"),
    )
    return Viewer(html, warnings)


def bring_images(shown: Shown) -> dict[str, Array]:
    """Each image (D, H, W) on the grid of the label map; what was registered for the result is registered again."""
    reference = next((image for image in shown.images.values() if _is_on_grid(image, shown.labels)), None)
    arrays = {}
    for name, image in shown.images.items():
        try:
            transform = _find_transform(shown, name, reference) if _is_registered(shown, name) else None
        except (TypeError, ValueError) as error:
            told = f"case {shown.name}: the JSON does not tell how {name} was registered"
            raise ImageError(f"{told} ({error}); segment it again") from error
        finite = image.with_array(to_finite(image.array))
        arrays[name] = resample(finite, shown.labels, transform).array
    if not arrays:
        raise ImageError(f"case {shown.name}: there is no image to show; give one at least")
    return arrays


def _is_registered(shown: Shown, name: str) -> bool:
    motion = get(shown.motions, name)
    return motion.get("how") == "registered" and motion.get("applied") is not False


def _find_transform(shown: Shown, name: str, reference: Volume | None) -> ItkObject:
    """How an image was registered for the result: by the matrix of the JSON, or registered again where it has none."""
    if (matrix := get(shown.motions, name).get("matrix_ras")) is None:
        return register(shown.images[name], reference).transform if reference else None
    mirror = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps = mirror @ np.asarray(matrix, np.float64).reshape(4, 4) @ mirror
    transform = load_itk().AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def _is_on_grid(volume: Volume, labels: LabelMap) -> bool:
    """Whether a volume is on the grid of the label map, perhaps along other axes."""
    return turn(volume, find_turn(volume.affine)).on_grid_of(turn(labels, find_turn(labels.affine)))


def _pack_all(shown: Shown, arrays: Mapping[str, Array], truth: Array | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What the script reads: facts, and volumes as text."""
    inside = mask_head(arrays, shown.labels.spacing_mm)
    frame = frame_head(shown.labels, inside if truth is None else inside | (truth != 0))
    head = frame.take(inside)
    volumes = {"labels": pack(frame.take(shown.labels.array))}
    if truth is not None:
        volumes["truth"] = pack(frame.take(truth))
    images, maps = [], []
    for number, (name, array) in enumerate(arrays.items()):
        packed = pack_image(frame.take(array), head)
        volumes[f"image{number}"] = packed.data
        resampled = _is_registered(shown, name) or not _is_on_grid(shown.images[name], shown.labels)
        images.append({"name": spelt(name), "resampled": resampled, **packed.scale})
    for number, (name, share) in enumerate(_list_maps(shown).items()):
        packed = pack_share(frame.take(share))
        volumes[f"map{number}"] = packed.data
        maps.append({"name": name, **packed.scale})
    file, content = shown.file or (f"{shown.name}.nii.gz", to_nifti(shown.labels))
    volumes["mask"] = to_text(content)
    return {**_describe_grid(shown, frame, head), "images": images, "maps": maps, "file": file}, volumes


def _describe_grid(shown: Shown, frame: Frame, head: Array) -> dict[str, Any]:
    """Shape, place, labels and lesions, with axes in the order (w, h, d)."""
    lesions = measure_lesions(shown.labels, shown.task, region=ANY_LESION)
    more = lesions[MOST_LESIONS:]
    middle = tuple(n // 2 for n in frame.shape[::-1])
    start = frame.find(lesions[0].voxel) if lesions else middle
    return {
        "case": shown.name,
        "shape": frame.shape[::-1],
        "spacing": frame.spacing_mm[::-1],
        "step": frame.step[::-1],
        "toRas": frame.to_ras[:3].tolist(),
        "toVoxel": frame.to_voxel[:3].tolist(),
        "labels": _describe_labels(shown),
        "regions": [{"name": region, "values": values} for region, values in shown.task.regions.items()],
        "lesions": [_describe_lesion(lesion, frame) for lesion in lesions[:MOST_LESIONS]],
        "more": {"count": len(more), "ml": sum(lesion.volume_ml for lesion in more)},
        "start": start,
    }


def _describe_labels(shown: Shown) -> list[dict[str, Any]]:
    voxels = np.bincount(shown.labels.array.ravel(), minlength=256)
    return [
        {
            "value": value,
            "name": tissue,
            "colour": shown.task.colours[value],
            "ml": voxels[value] * shown.labels.voxel_ml,
        }
        for value, tissue in shown.task.labels.items()
    ]


def _describe_lesion(lesion: Lesion, frame: Frame) -> dict[str, Any]:
    place = frame.find(lesion.voxel)
    x, y, z = (frame.to_ras @ (*place, 1))[:3].tolist()
    return {"ml": lesion.volume_ml, "place": place, "mm": f"{x:.0f}, {y:.0f}, {z:.0f}".replace("-", "\N{MINUS SIGN}")}


def describe_regions(shown: Shown, truth: Array | None) -> list[dict[str, Any]]:
    """Of each region: volume, interval, mean Dice on unseen cases, Dice to the truth; None for what is not known."""
    intervals, expected = (
        get(shown.note, *where) for where in (("uncertainty", "volume_intervals"), ("validation", "those used"))
    )
    rows = []
    for region, values in shown.task.regions.items():
        mask, interval = np.isin(shown.labels.array, values), get(intervals, region)
        ends = [interval.get(end) for end in ("least_ml", "most_ml")]
        score = expected.get(region)
        rows.append(
            {
                "name": region,
                "ml": np.count_nonzero(mask) * shown.labels.voxel_ml,
                "interval": ends if all(isinstance(end, int | float) for end in ends) else None,
                "expected": score if isinstance(score, int | float) else None,
                "dice": None if truth is None else dice(mask, np.isin(truth, values)),
            }
        )
    return rows


def _list_maps(shown: Shown) -> dict[str, Array]:
    """The maps to choose from: the probability of any lesion first, which is what the background leaves."""
    found = {name: resample(share, shown.labels).array for name, share in shown.maps.items()}
    background = found.pop(BACKGROUND, None)
    return ({} if background is None else {ANY_LESION: 1 - background}) | found


def list_warnings(shown: Shown) -> tuple[str, ...]:
    """The sentences of the result, of its registrations, and of what was found while it was read."""
    moved = get(shown.note, "geometry", "moved")
    of_moved = [f"{name}: {get(moved, name).get('warning')}" for name in moved if get(moved, name).get("warning")]
    found = [*_list(shown.note, "warnings"), *of_moved, *shown.warnings]
    return tuple(dict.fromkeys(str(sentence) for sentence in found))


def _describe_origin(shown: Shown) -> str:
    """Which model found it, from which sequences."""
    model, used = get(shown.note, "model").get("name"), get(shown.note, "sequences")
    if not model:
        return ""
    found, absent = (", ".join(spelt(str(name)) for name in _list(used, which)) for which in ("used", "absent"))
    return f"Found by the model {model}" + (f" in {found}" if found else "") + (f", without {absent}" if absent else "")


def to_nifti(volume: Volume) -> bytes:
    """A volume as the bytes of a .nii.gz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.nii.gz"
        write_image(volume, path)
        return path.read_bytes()


def _list(content: Mapping[str, Any], name: str) -> list[Any]:
    """A list within a JSON; empty if there is none."""
    found = content.get(name)
    return found if isinstance(found, list) else []


def get(content: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A map within a JSON, at these names; empty if there is none."""
    for name in names:
        found = content.get(name)
        content = found if isinstance(found, dict) else {}
    return content
