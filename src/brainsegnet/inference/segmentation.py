"""`Segmentation`: the result of one case, with labels, maps, volumes and warnings, and how it is saved and shown."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainsegnet._atomic import replacing, stem_of, write_text
from brainsegnet._types import ItkObject, NibabelImage
from brainsegnet.errors import MissingSequence
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.postprocessing import Decision
from brainsegnet.inference.steps import DicomSource, Steps, require_dicom
from brainsegnet.inference.uncertainty import Interval
from brainsegnet.io.images import to_nibabel, to_sitk, write_image
from brainsegnet.io.label_files import ENDINGS, write_label_files
from brainsegnet.model.card import Card
from brainsegnet.preprocessing.grids import bring
from brainsegnet.task import Task
from brainsegnet.volume import Case, LabelMap, Volume

if TYPE_CHECKING:
    from brainsegnet.plotting.viewer import Viewer

ENTROPY = "entropy"
BRAIN_MASK = "brain_mask"
DICOM_ENDINGS = ("_seg.dcm", "_sr.dcm")
"""Endings of the names of the DICOM segmentation and of the DICOM report."""
POOR_DICE = 0.25
"""Mean Dice on unseen cases below which sequences are refused, or warned of if the user allows them."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of one case: its label map, the lesion volumes, warnings, and how it was computed.

    A notebook shows it as a picture with volumes and warnings.

    Attributes:
        case: The sequences as the network saw them, all on one grid, and the true label map if it was given. The grid
            has the voxel size of the model, so it may differ from that of the result.
        card: Card of the model.
        labels: Label map (D, H, W) in the label convention of the task, on the grid of the reference.
        used: Sequences of the model that the case has.
        absent: Sequences of the model that the case lacks.
        volumes_ml: Volumes in millilitres: "labels" maps each tissue, "regions" maps each region.
        probabilities: Each tissue, and "background", to a float32 map (D, H, W) on the same grid. Dropped components
            are still in it. None if not asked for.
        entropy: Entropy of the class probabilities as a share of its maximum, float32 (D, H, W), 0 outside the brain.
            None if not asked for.
        intervals: Interval for the volume of each region, built to hold the true volume in 80 % of unseen cases of the
            model's validation. On other kinds of scans it may be too narrow. None if not asked for.
        warnings: Sentences about a scan that looks unlike the training cases, or sequences with a poor Dice.
        components_dropped: Number of connected components that were dropped for their low confidence.
        dropped_ml: Volume of these components in millilitres.
        decision: Whether a tissue that the network marked is there at all; None if it was not decided.
        seconds: Seconds of each stage: "read" (if files were read), "prepare", "network".
        engine: Library, device and arithmetic that ran the network.
        notes: Remarks, such as what was done for lack of memory.
        pass_bytes: Estimated memory of one forward pass in bytes, without weights and libraries.
        options: The options that were used.
        steps: How the sequences came to the grid that the network saw; None for a `Case`, which is taken as it is.
        source: The DICOM series of the reference; None if it is none.
        grids: Sequence to the label map on its own grid, if asked for.
        brain_mask: The brain on the grid that the network saw, if the preprocessed images are asked for.
        model_folder: Folder of the model.
        inputs: For each sequence that was read from a file: its size, time and hashes, as `describe_file` gives them.
        head: "skull": whether the skull is on. "around": sequence to what surrounds the head. "volume_ml": of the head
            or brain.
    """

    case: Case
    card: Card
    labels: LabelMap
    used: tuple[str, ...]
    absent: tuple[str, ...]
    volumes_ml: Mapping[str, Mapping[str, float]]
    probabilities: Mapping[str, Volume] | None = None
    entropy: Volume | None = None
    intervals: Mapping[str, Interval] | None = None
    warnings: Sequence[str] = ()
    components_dropped: int = 0
    dropped_ml: float = 0.0
    decision: Decision | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    engine: str = ""
    notes: Sequence[str] = ()
    pass_bytes: int = 0
    options: SegmentOptions = field(default_factory=SegmentOptions)
    steps: Steps | None = None
    source: DicomSource | None = None
    grids: Mapping[str, LabelMap] = field(default_factory=dict)
    brain_mask: LabelMap | None = None
    model_folder: Path | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: case, model and volumes."""
        volumes = ", ".join(f"{region} {ml:.1f} ml" for region, ml in self.volumes_ml["regions"].items())
        return f"Segmentation({self.name}, model {self.card.name}: {volumes})"

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    @property
    def reference(self) -> str:
        """The sequence that gives the grid of the result."""
        return self.steps.alignment.reference if self.steps else next(iter(self.case.images))

    def to_nibabel(self) -> NibabelImage:
        """The label map as a `nibabel.Nifti1Image`, with the axes and the affine that nibabel uses."""
        return to_nibabel(self.labels)

    def to_sitk(self) -> ItkObject:
        """The label map as a `SimpleITK.Image`."""
        return to_sitk(self.labels)

    def save(self, path: Path | str, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the label map, the maps and the picture that the options ask for, and a JSON beside them.

        All files get their names together at the end, and the JSON, named after the label map, is the last. If it
        exists, all files exist. If one file cannot be written, none is, and earlier results stay.

        Args:
            path: File of the label map: .nii.gz, .nii, .mha or .nrrd.
            record: What the JSON says beside the result, for example on which host it was made.

        Returns:
            The content of the JSON, as `report` gives it.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        path, started = Path(path), time.perf_counter()
        maps = {**(self.probabilities or {}), **({ENTROPY: self.entropy} if self.entropy else {}), **self.grids}
        files = {name: beside(path, f"_{part}.nii.gz") for name, part in name_parts(maps).items()}
        done = beside(path, ".json")
        with ExitStack() as stack:  # files get their names where it ends, the last one first

            def begin(file: Path) -> Path:
                return stack.enter_context(replacing(file))

            new_json = begin(done)
            write_image(self.labels, begin(path))
            for name, file in files.items():
                write_image(maps[name], begin(file))
            written = {name: file.name for name, file in files.items()}
            more = {
                **self._save_picture(path, begin),
                **save_label_files(self.options.label_files, self.card.task, path, begin),
            }
            more |= {**self._save_preprocessed(path, begin), **self._save_dicom(path, begin)}
            own = self.report(path.name, written, {"write": time.perf_counter() - started})
            report = {**own, **more, **(record or {})}
            write_text(json.dumps(report, indent=2) + "\n", new_json)
            done.unlink(missing_ok=True)
        return report

    def _save_picture(self, path: Path, begin: Callable[[Path], Path]) -> dict[str, Any]:
        """Draw the labels over the scan, if asked for. Returns a part of the JSON."""
        if not self.options.picture:
            return {}
        from brainsegnet.plotting.overlays import DPI
        from brainsegnet.plotting.slices import save_figure

        file = beside(path, f".{self.options.picture_format}")
        save_figure(self.figure(), begin(file), self.options.drawing.dpi or DPI)
        return {"picture": file.name}

    def _save_preprocessed(self, path: Path, begin: Callable[[Path], Path]) -> dict[str, Any]:
        """Write the images as the network saw them, and the brain mask, if asked for. Returns a part of the JSON."""
        if self.brain_mask is None:
            return {}
        folder = beside(path, "_preprocessed")
        images = {**self.case.images, BRAIN_MASK: self.brain_mask}
        (unfinished := begin(folder)).mkdir()
        for name, image in images.items():
            write_image(image, unfinished / f"{name}.nii.gz")
        return {"preprocessed": {name: f"{folder.name}/{name}.nii.gz" for name in images}}

    def _save_dicom(self, path: Path, begin: Callable[[Path], Path]) -> dict[str, Any]:
        """Write a DICOM segmentation and a report, if asked for. Returns a part of the JSON."""
        if not self.options.dicom:
            return {}
        source = require_dicom(self.name, self.reference, self.source)
        from brainsegnet.io.dicom_out import Findings, build_dicom

        software = version("brainsegnet")
        made = Findings(self.card.task, self.labels, self.volumes_ml, self.card.name, software, source.number)
        result = build_dicom(source.series, made)
        files = [beside(path, ending) for ending in DICOM_ENDINGS]
        result.save(*map(begin, files))
        names = dict(zip(("segmentation", "report"), (file.name for file in files), strict=True))
        return {"dicom": {**names, "notes": list(result.notes)}}

    def report(
        self, labels: str = "", maps: Mapping[str, str] | None = None, seconds: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Everything about the result except the arrays: the content of the JSON beside the label map.

        Args:
            labels: File name of the label map.
            maps: Tissue, or "entropy", to the file name of its map.
            seconds: Seconds of further stages, such as "write".
        """
        card, maps, uncertainty = self.card, maps or {}, {}
        if self.intervals is not None:
            intervals = {r: vars(one) | {"sequences": list(one.sequences)} for r, one in self.intervals.items()}
            uncertainty = {"uncertainty": {ENTROPY: maps.get(ENTROPY, ""), "volume_intervals": intervals}}
        margin = None if self.options.keep_all_components else card.components.confidence_margin
        stages = {**self.seconds, **(seconds or {})}
        return {
            "case": self.name,
            "labels": labels,
            "probabilities": {tissue: maps.get(tissue, "") for tissue in self.probabilities or {}},
            "task": card.task.name,
            "convention": {str(value): tissue for value, tissue in card.task.labels.items()},
            "sequences": {"used": list(self.used), "absent": list(self.absent)},
            "grids": {sequence: maps.get(sequence, "") for sequence in self.grids},
            "geometry": {
                "grid": self.reference,
                "spacing_mm": [round(mm, 4) for mm in self.case.reference.spacing_mm[::-1]],
                **(self.steps.to_json() if self.steps else {"moved": {}}),
            },
            "brain": self.steps.brain.to_json() if self.steps else {"how": "as given"},
            "head": dict(self.head),
            "volumes_ml": self.volumes_ml,
            "dropped": {"confidence_margin": margin, "components": self.components_dropped, "ml": self.dropped_ml},
            "presence": self.decision.to_json() if self.decision else None,
            "test_time_augmentation": self.options.tta,
            "inputs": dict(self.inputs),
            "options": self.options.to_json(),
            **uncertainty,
            "validation": expected_dice(card, self.used),
            "validated_on": card.training.held_out_sources or "unseen cases",
            "model": {
                "name": card.name,
                "folder": str(self.model_folder or ""),
                "sha256": card.weights.sha256 if card.weights else None,
            },
            "engine": self.engine,
            "memory": {"one_pass_gb": round(self.pass_bytes / 1e9, 3)},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "seconds": {stage: round(duration, 4) for stage, duration in stages.items()},
            "brainsegnet": version("brainsegnet"),
            "intended_use": card.intended_use,
        }

    def figure(self) -> Any:  # noqa: ANN401
        """Draw the labels over the scan, beside the true labels if they are known, as a matplotlib `Figure`."""
        from brainsegnet.plotting.overlays import overlay_figure

        shown = {name: bring(self.case.images[name], self.labels) for name in self.used[:4]}
        lesion = bring(self.case.lesion, self.labels) if self.case.lesion else None
        case, drawing = Case(self.name, shown, lesion), self.options.drawing
        return overlay_figure(case, self.labels.array, self.card.task, self.used[:4], drawing=drawing)

    def view(self) -> "Viewer":
        """A page to scroll through the result, which a notebook shows and `save` writes: see `brainsegnet.view`."""
        from brainsegnet.plotting.viewer import Shown, show

        maps = dict(self.probabilities or {}) | ({ENTROPY: self.entropy} if self.entropy else {})
        case = self.case
        return show(Shown(self.name, self.labels, self.card.task, case.images, maps, case.lesion, self.report()))

    def _repr_html_(self) -> str:
        """A picture, the volumes and the warnings, for notebooks."""
        from brainsegnet.plotting.slices import render

        png = base64.b64encode(render(self.figure(), "png", 80)).decode()
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td style='text-align:right'>{ml:.1f} ml</td></tr>"
            for name, ml in self.volumes_ml["regions"].items()
        )
        warnings = "".join(f"<p>Warning: {escape(warning)}.</p>" for warning in self.warnings)
        alt = f"{escape(self.name)} with labels"
        picture = f"<img style='max-width:100%' alt='{alt}' src='data:image/png;base64,{png}'>"
        model = f"<p>Model {escape(self.card.name)}; {escape(self.card.intended_use)}.</p>"
        return f"{picture}<table>{rows}</table>{warnings}{model}"


def save_label_files(asked: bool, task: Task, path: Path, begin: Callable[[Path], Path]) -> dict[str, Any]:
    """Write names and colours of the labels for other programs, if asked for. Returns a part of the JSON."""
    if not asked:
        return {}
    files = {program: beside(path, ending) for program, ending in ENDINGS.items()}
    write_label_files(task, *map(begin, files.values()))
    return {"label_files": {program: file.name for program, file in files.items()}}


def beside(path: Path, ending: str) -> Path:
    """A file that is named after a label map.

    Examples:
        >>> beside(Path("out/pat1.nii.gz"), "_seg.dcm").as_posix()
        'out/pat1_seg.dcm'
    """
    return path.with_name(f"{stem_of(path)}{ending}")


def name_parts(names: Iterable[str]) -> dict[str, str]:
    """Part of a file name for each tissue: its words, and a number if two tissues have the same words.

    Examples:
        >>> list(name_parts(["necrosis + non-enhancing", "../necrosis/non-enhancing", "??"]).values())
        ['necrosis-non-enhancing', 'necrosis-non-enhancing-2', 'map']
    """
    parts: dict[str, str] = {}
    for name in names:
        part = stem = "-".join(re.findall(r"\w[\w-]*", name)) or "map"
        taken, number = {other.casefold() for other in parts.values()}, 1
        while part.casefold() in taken:
            number += 1
            part = f"{stem}-{number}"
        parts[name] = part
    return parts


def expected_dice(card: Card, used: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """Mean Dice on unseen cases by region, with all sequences and with the sequences used; empty if not measured."""
    measured = card.training.subsets
    wanted = {"all sequences": card.sequences, "those used": used}
    return {what: measured["+".join(names)] for what, names in wanted.items() if "+".join(names) in measured}


def warn_of_sequences(expected: Mapping[str, Mapping[str, float]], used: Sequence[str]) -> list[str]:
    """A warning if the best Dice on unseen cases with only these sequences is below `POOR_DICE`."""
    best = max(expected.get("those used", {}).values(), default=1.0)
    if best >= POOR_DICE:
        return []
    found = f"found hardly anything on unseen cases (best Dice {best:.2f})"
    return [f"with {' and '.join(used)} alone the model {found}; add sequences"]


def refuse_poor(case: str, card: Card, used: Sequence[str]) -> None:
    """Refuse the sequences of which `warn_of_sequences` warns: what is found with them is mostly false.

    Raises:
        MissingSequence: these are such sequences.
    """
    for said in warn_of_sequences(expected_dice(card, used), used):
        raise MissingSequence(f"case {case}: {said}, or segment all the same with --allow-poor")
