"""`Segmentation`: the result of one case, its labels, maps, volumes and warnings; how it is saved and shown."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brainsegnet._atomic import replacing, stem_of, write_text
from brainsegnet._types import ItkObject, NibabelImage
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.postprocessing import Interval
from brainsegnet.io.images import to_nibabel, to_sitk, write_image
from brainsegnet.model.card import Card
from brainsegnet.volume import Case, LabelMap, Volume

ENTROPY = "entropy"
POOR_DICE = 0.25
"""Mean Dice on unseen cases below which a warning is given."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of one case.

    Attributes:
        case: The sequences that were segmented, on one grid, and the truth where it is known.
        card: Of the model.
        labels: (D, H, W) in the convention of the task, on the grid of the case.
        used, absent: Sequences of the model that the case has, and has not.
        volumes_ml: "labels" by tissue and "regions" by region.
        probabilities: Tissue, and "background", to a float32 map on the same grid; components that were dropped are
            still in it.
        entropy: Of the class probabilities as a share of the greatest possible one, float32, 0 around the brain.
        intervals: Of the volume of each region. This and the two before are None if not asked for.
        warnings: Sentences on what looks unlike the training cases, or on sequences with a poor Dice.
        components_dropped, dropped_ml: Connected components that were dropped for their low confidence.
        seconds: By stage: "read" if files were read, "prepare", "network".
        engine, notes: Library, device and arithmetic; what was done for lack of memory, and other remarks.
        pass_bytes: About how much memory one forward pass takes beside weights and libraries.
        moved: How each sequence was brought onto the grid of the first, if it was not on it.
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

    @property
    def name(self) -> str:
        """Of the case."""
        return self.case.name

    def to_nibabel(self) -> NibabelImage:
        """The label map as a `nibabel.Nifti1Image`; its array has the axes of an image that nibabel reads."""
        return to_nibabel(self.labels)

    def to_sitk(self) -> ItkObject:
        """The label map as a `SimpleITK.Image`."""
        return to_sitk(self.labels)

    def save(self, path: Path | str) -> dict[str, Any]:
        """Write the label map, the maps and the picture that were asked for, and a JSON beside it.

        The JSON has the name of the label map and is written last, so if it is there, everything is. All files get
        their names together at the end; where one cannot be written, none is, and earlier results stay as they were.

        Args:
            path: Of the label map: .nii.gz, .nii, .mha or .nrrd.

        Returns:
            The content of the JSON, see `report`.

        Raises:
            OutputError: the folder is not writable, or the disk is full.
        """
        path, started = Path(path), time.perf_counter()
        maps = dict(self.probabilities or {}) | ({ENTROPY: self.entropy} if self.entropy else {})
        parts = {name: "-".join(name.replace("+", " ").split()) for name in maps}
        files = {name: path.with_name(f"{stem_of(path)}_{part}.nii.gz") for name, part in parts.items()}
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
            write_text(json.dumps(report, indent=2) + "\n", new_json)
            done.unlink(missing_ok=True)
        return report

    def report(
        self, labels: str = "", maps: Mapping[str, str] | None = None, seconds: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """All about the result but the arrays, as written into the JSON.

        Args:
            labels: File name of the label map.
            maps: Tissue, or "entropy", to the file name of its map.
            seconds: Of further stages.
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
            "volumes_ml": self.volumes_ml,
            "dropped": {"confidence_margin": margin, "components": self.components_dropped, "ml": self.dropped_ml},
            "test_time_augmentation": self.options.tta,
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
        """The result over the scan, beside the truth where it is known, as a matplotlib `Figure`."""
        from brainsegnet.plotting.overlays import overlay_figure

        return overlay_figure(self.case, self.labels.array, self.card.task, self.used[:4])

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


def expected_dice(card: Card, used: Sequence[str]) -> dict[str, Mapping[str, float]]:
    """Mean Dice on unseen cases by region, with all sequences and with those used; empty where it was not measured."""
    measured = card.training.subsets
    wanted = {"all sequences": card.sequences, "those used": used}
    return {what: measured["+".join(names)] for what, names in wanted.items() if "+".join(names) in measured}


def warn_of_sequences(expected: Mapping[str, Mapping[str, float]], used: Sequence[str]) -> list[str]:
    """A warning if the model found hardly anything on unseen cases with these sequences alone."""
    best = max(expected.get("those used", {}).values(), default=1.0)
    if best >= POOR_DICE:
        return []
    found = f"found hardly anything on unseen cases (best Dice {best:.2f})"
    return [f"with {' and '.join(used)} alone the model {found}; add sequences"]
