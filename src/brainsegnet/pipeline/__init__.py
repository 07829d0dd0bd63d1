"""From a raw study to a result. This file holds the options of corrections, which load no heavy library."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MeasureOptions:
    """What else is written of a corrected label map.

    The fields are options of `brainsegnet measure`.

    Examples:
        >>> MeasureOptions().label_files
        False
    """

    task: str | None = None
    "Label convention of the result, where its JSON does not tell it: the name of a task, or a YAML file."
    images: tuple[Path, ...] = ()
    "Images, or folders that hold them, where they are no longer where the JSON tells."
    dicom: bool = False
    "Also write a DICOM segmentation and a DICOM report; the reference of the result must be DICOM."
    label_files: bool = False
    "Also write the names and colours of the labels for ITK-SNAP (.txt) and for 3D Slicer (.ctbl)."
