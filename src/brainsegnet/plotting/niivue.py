"""A result as one HTML page with NiiVue, which draws it with WebGL. Its script comes from nilearn, and is checked."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from brainsegnet._types import Array
from brainsegnet.errors import MissingExtra
from brainsegnet.io.images import from_array
from brainsegnet.plotting.overlays import spelt
from brainsegnet.plotting.packing import Frame, frame_head, mask_head
from brainsegnet.plotting.viewer import Shown, Viewer, bring_images, list_warnings, to_nifti
from brainsegnet.task import Task

KNOWN: Mapping[str, str] = {"c40dc2679c337c906deef22e157ee02c17459db9b8ecc51aa773af27791a567c": "0.68.1"}
"""SHA-256 of the scripts that were read and tried, to the version of NiiVue."""
WINDOW = (0.1, 99.9)
"""Percentiles of the head between which grey levels lie."""
_SCRIPT = ("_assets", "js", "niivue.umd.js")
_INSTALL = 'run: pip install "brainsegnet[niivue]"'


def show_niivue(shown: Shown) -> Viewer:
    """The page of a result, with NiiVue.

    Raises:
        MissingExtra: nilearn is not installed, or its script is not one of `KNOWN`.
        ImageError: there is no image, or one cannot be registered again.
        LabelError: the label map holds labels that the task does not have.
    """
    from jinja2 import Environment, StrictUndefined

    script, release = read_script()
    shown.task.check(shown.labels.array, shown.name)
    arrays = bring_images(shown)
    inside = mask_head(arrays, shown.labels.spacing_mm)
    frame = frame_head(shown.labels, inside)
    levels = [to_levels(frame.take(array), frame.take(inside)) for array in arrays.values()]
    page = files("brainsegnet.plotting").joinpath("niivue.html.j2").read_text("utf-8")
    writer = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    meta = {"names": [*arrays, "labels"], "colours": _list_colours(shown.task), "start": _find_start(shown, frame)}
    warnings = list_warnings(shown)
    html = writer.from_string(page).render(
        name=shown.name,
        warnings=warnings,
        images=[spelt(name) for name in arrays],
        tissues=[(tissue, shown.task.colours[value]) for value, tissue in shown.task.labels.items()],
        volumes=[_to_volume(array, frame) for array in (*levels, frame.take(shown.labels.array))],
        meta_json=json.dumps(meta, allow_nan=False).replace("<", "\\u003c"),
        script=script,
        niivue=release,
        version=version("brainsegnet"),
    )
    return Viewer(html, warnings)


def read_script(package: str = "nilearn") -> tuple[str, str]:
    """NiiVue's script and its version. The package that carries it is not imported.

    Raises:
        MissingExtra: it is not installed, or carries another script than those of `KNOWN`.
    """
    spec = find_spec(package)
    path = Path(spec.origin).parent.joinpath(*_SCRIPT) if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingExtra(f"{package}, which carries NiiVue, is not installed; {_INSTALL}")
    content = path.read_bytes()
    release = KNOWN.get(hashlib.sha256(content).hexdigest())
    if release is None:
        raise MissingExtra(
            f"{path} is not NiiVue {', '.join(KNOWN.values())}, the version that was checked; {_INSTALL}"
        )
    return content.decode("utf-8"), release


def to_levels(image: Array, inside: Array) -> Array:
    """Grey levels 0 to 255 (D, H, W) of an image, by percentiles of the head.

    Examples:
        >>> to_levels(np.array([[[0.0, 4.0, 10.0]]]), np.ones((1, 1, 3), bool)).tolist()
        [[[0, 102, 255]]]
    """
    low, high = np.percentile(image[inside] if inside.any() else image, WINDOW)
    return np.asarray(np.rint(np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255), np.uint8)


def _to_volume(array: Array, frame: Frame) -> str:
    """What is shown of an array (D, H, W), as .nii.gz in base64."""
    volume = from_array(np.asarray(array, np.uint8).T, frame.to_ras)
    return base64.b64encode(to_nifti(volume)).decode("ascii")


def _list_colours(task: Task) -> dict[str, list[int] | list[str]]:
    """The colours of the labels, as NiiVue takes them."""
    rgb = [bytes.fromhex(colour[1:]) for colour in task.colours.values()]
    return {
        **{channel: [0, *(colour[number] for colour in rgb)] for number, channel in enumerate("RGB")},
        "A": [0, *[255] * len(rgb)],
        "I": [0, *task.labels],
        "labels": ["", *task.labels.values()],
    }


def _find_start(shown: Shown, frame: Frame) -> list[float]:
    """Middle of the labels in millimetres to the right, front and top; of what is shown if there are none."""
    places = np.argwhere(frame.take(shown.labels.array) != 0)
    middle = np.median(places, axis=0) if len(places) else (np.array(frame.shape) - 1) / 2
    return [float(part) for part in (frame.to_ras @ (*middle[::-1], 1))[:3]]
