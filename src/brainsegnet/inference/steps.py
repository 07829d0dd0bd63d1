"""`Steps`: how the images of a case came to the network, for its result and its report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from brainsegnet._types import Mask
from brainsegnet.errors import ImageError
from brainsegnet.preprocessing.alignment import Alignment
from brainsegnet.preprocessing.foreground import SkullState
from brainsegnet.volume import Volume

if TYPE_CHECKING:
    from brainsegnet.io.dicom import DicomSeries


class DicomSource(NamedTuple):
    """Where an image comes from: a series, and the number of the volume in it."""

    series: "DicomSeries"
    number: int = 0


def require_dicom(case: str, reference: str, source: DicomSource | None) -> DicomSource:
    """The source of a reference that a DICOM segmentation is to refer to.

    Raises:
        ImageError: it is not DICOM.
    """
    if source is None:
        raise ImageError(
            f"case {case}: its reference {reference} is not DICOM, so no DICOM segmentation can refer to it; leave out "
            "--dicom, or name a DICOM sequence with --reference"
        )
    return source


@dataclass(frozen=True, eq=False)
class BrainNote:
    """How the brain of a case was found.

    Attributes:
        how: `as given` by scans without the skull, or with it where extraction is off; `extracted`; or from a `file`.
        skull: Sequence to whether its skull is on.
        mask: The brain (D, H, W) on the working grid; None if the scans give it.
        volume_ml: Its volume in millilitres; None if the scans give it.
        details: What the extraction found in each sequence.
        warnings: Where the sequences disagree.
    """

    how: Literal["as given", "extracted", "file"]
    skull: Mapping[str, SkullState]
    mask: Mask | None = None
    volume_ml: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The values for the report of a case."""
        volume = {} if self.volume_ml is None else {"volume_ml": round(self.volume_ml, 1)}
        return {"how": self.how, "skull": dict(self.skull), **volume, **self.details}


@dataclass(frozen=True, eq=False)
class Steps:
    """What was done to the images of a case before the network.

    Attributes:
        alignment: How each sequence came to the reference.
        brain: How the brain was found.
        natives: Sequence to its own grid, without voxels.
    """

    alignment: Alignment
    brain: BrainNote
    natives: Mapping[str, Volume]

    @property
    def warnings(self) -> list[str]:
        """What is doubtful about the alignment and the brain, as sentences."""
        motions = self.alignment.motions.items()
        return [*(f"{name}: {motion.warning}" for name, motion in motions if motion.warning), *self.brain.warnings]

    def to_json(self) -> dict[str, Any]:
        """The geometry, for the report of a case."""
        motions = {name: motion.to_json() for name, motion in self.alignment.motions.items()}
        native_mm = self.natives[self.alignment.reference].spacing_mm[::-1]
        return {
            "native_spacing_mm": [round(mm, 4) for mm in native_mm],
            "moved": {name: told for name, told in motions.items() if told["how"] != "in place"},
            "in_place": {name: told for name, told in motions.items() if told["how"] == "in place"},
        }


def describe_steps(report: Mapping[str, Any]) -> list[str]:
    """What was done to the images before the network, a line each: sequences found, alignment, brain."""
    lines = []
    found = {name: facts["series"] for name, facts in report["inputs"].items() if "series" in facts}
    if found:
        lines.append("; ".join(f"{name} is {series}" for name, series in found.items()))
    if moved := report["geometry"]["moved"]:
        words = "; ".join(f"{name} {describe_motion(motion)}" for name, motion in moved.items())
        lines.append(f"on the grid of {report['geometry']['grid']}: {words}")
    brain = report["brain"]
    if brain["how"] != "as given":
        how = "found in the scans" if brain["how"] == "extracted" else "of the mask that was given"
        lines.append(f"brain {brain['volume_ml']:.0f} ml, {how}")
    return lines


def describe_motion(motion: Mapping[str, Any]) -> str:
    """How a sequence came to the reference, in words."""
    if motion["how"] != "registered":
        return f"{motion['how']} by its header"
    before, after = motion["mutual_information_before"], motion["mutual_information_after"]
    moved = f"{motion['translation_mm']:.1f} mm and {motion['rotation_degrees']:.1f} degrees"
    return f"moved by {moved} (mutual information {before:.2f} to {after:.2f})"
