"""`Segmentation`: the result of one case, with labels, maps, volumes and warnings, and how it is saved and shown."""

import base64
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainsegnet._atomic import replacing, stem_of, write_text
from brainsegnet._types import ItkObject, NibabelImage
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.postprocessing import Interval
from brainsegnet.io.images import to_nibabel, to_sitk, write_image
from brainsegnet.io.results import describe_place
from brainsegnet.model.card import Card
from brainsegnet.volume import Case, LabelMap, Volume

if TYPE_CHECKING:
    from brainsegnet.plotting.viewer import Viewer

ENTROPY = "entropy"
POOR_DICE = 0.25
"""Mean Dice on unseen cases below which a warning is given."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of one case: its label map, the lesion volumes, warnings, and how it was computed.

    A notebook shows it as a picture with volumes and warnings.

    Attributes:
        case: The sequences that were segmented, all on one grid, and the true label map if it was given.
        card: Card of the model.
        labels: Label map (D, H, W) in the label convention of the task, on the grid of the case.
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
        seconds: Seconds of each stage: "read" (if files were read), "prepare", "network".
        engine: Library, device and arithmetic that ran the network.
        notes: Remarks, such as what was done for lack of memory.
        pass_bytes: Estimated memory of one forward pass in bytes, without weights and libraries.
        options: The options that were used.
        moved: For each sequence that was resampled or registered: how it was brought to the grid of the first.
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
    seconds: Mapping[str, float] = field(default_factory=dict)
    engine: str = ""
    notes: Sequence[str] = ()
    pass_bytes: int = 0
    options: SegmentOptions = field(default_factory=SegmentOptions)
    moved: Mapping[str, Any] = field(default_factory=dict)
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

    def to_nibabel(self) -> NibabelImage:
        """The label map as a `nibabel.Nifti1Image`, with the axes and the affine that nibabel uses."""
        return to_nibabel(self.labels)

    def to_sitk(self) -> ItkObject:
        """The label map as a `SimpleITK.Image`."""
        return to_sitk(self.labels)

    def save(self, path: Path | str) -> dict[str, Any]:
        """Write the label map, the maps and the picture that the options ask for, and a JSON beside them.

        All files get their names together at the end, and the JSON, named after the label map, is the last. If it
        exists, all files exist. If one file cannot be written, none is, and earlier results stay.

        Args:
            path: File of the label map: .nii.gz, .nii, .mha or .nrrd.

        Returns:
            The content of the JSON, as `report` gives it.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        path, started = Path(path), time.perf_counter()
        maps = dict(self.probabilities or {}) | ({ENTROPY: self.entropy} if self.entropy else {})
        files = {name: path.with_name(f"{stem_of(path)}_{part}.nii.gz") for name, part in name_parts(maps).items()}
        done = path.with_name(f"{stem_of(path)}.json")
        with ExitStack() as stack:  # files get their names where it ends, the last one first

            def begin(file: Path) -> Path:
                return stack.enter_context(replacing(file))

            new_json = begin(done)
            write_image(self.labels, begin(path))
            for name, file in files.items():
                write_image(maps[name], begin(file))
            if self.options.picture:
                from brainsegnet.plotting.slices import save_figure

                save_figure(self.figure(), begin(path.with_name(f"{stem_of(path)}.png")))
            written = {name: file.name for name, file in files.items()}
            report = self.report(path.name, written, {"write": time.perf_counter() - started})
            report["inputs"] = relate_inputs(self.inputs, path.parent)
            write_text(json.dumps(report, indent=2) + "\n", new_json)
            done.unlink(missing_ok=True)
        return report

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
            intervals = {region: vars(interval) for region, interval in self.intervals.items()}
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
            "geometry": {"grid": next(iter(self.case.images)), "moved": dict(self.moved)},
            "head": dict(self.head),
            "volumes_ml": self.volumes_ml,
            "dropped": {"confidence_margin": margin, "components": self.components_dropped, "ml": self.dropped_ml},
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

        return overlay_figure(self.case, self.labels.array, self.card.task, self.used[:4])

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


def relate_inputs(inputs: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[str, dict[str, Any]]:
    """Descriptions of files whose "path" is relative to a folder."""
    return {
        name: {**facts, **({"path": describe_place(facts["path"], folder)} if "path" in facts else {})}
        for name, facts in inputs.items()
    }


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
