"""Which sequence is which: every series of a DICOM study, or every image of a folder, with the reason.

The sources are, in this order: headers, JSON sidecars, names of files, and the image itself. The image is read where
the others leave doubt.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from brainsegnet._atomic import find_suffix, is_hidden, stem_of
from brainsegnet._documents import load_json, read_text
from brainsegnet._types import Affine, Millimetres, Shape
from brainsegnet.io.dicom import DicomSeries, Study, read_study
from brainsegnet.io.dicom_headers import SeriesHeader
from brainsegnet.io.diffusion import read_b_values, read_mean
from brainsegnet.io.images import READERS, Series, is_second_half, read_grid, read_series
from brainsegnet.pipeline.contrast import read_contrast
from brainsegnet.pipeline.headers import (
    KINDS,
    Evidence,
    Verdict,
    header_from_sidecar,
    is_echo_planar,
    read_header,
    read_words,
    weigh,
)
from brainsegnet.progress import Callback, ProgressEvent
from brainsegnet.volume import Volume

SURE = 0.8
"""With less confidence, the image itself is looked at."""
DEPTH = 6
"""Folders below the one that is named."""
MANY_VOLUMES = 20
"""An echo-planar series of so many volumes without b-values shows the passage of contrast agent, or function."""
ISOTROPIC = 1.25
"""Greatest voxel spacing over the least one, up to which an image has no plane."""
_PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image file, 3-D or 4-D, on its grid; its voxels are read when they are asked for.

    Attributes:
        path: Of the file.
        name: Path relative to the folder that is searched.
        shape, affine: Grid (D, H, W).
        count: Number of volumes.
        header: From a JSON beside it; empty if there is none.
        b_values: Of each volume in s/mm2, from a .bval beside it; empty if there is none.
    """

    path: Path
    name: str
    shape: Shape
    affine: Affine
    count: int = 1
    header: SeriesHeader = field(default_factory=SeriesHeader)
    b_values: tuple[float, ...] = ()

    def __len__(self) -> int:
        """Number of volumes."""
        return self.count

    def read(self, number: int = 0) -> Volume:
        """One volume. Errors are those of `read_series`."""
        return read_series(self.path).frame(number)

    def read_all(self) -> Series:
        """All volumes (T, D, H, W). Errors are those of `read_series`."""
        return read_series(self.path)


@dataclass(frozen=True, eq=False)
class Finding:
    """A series or image, and which sequence it is.

    Attributes:
        source: Where its voxels are.
        verdict: Which sequence it is, and why.
        header: How it was acquired; its b-value is that of these volumes.
        volumes: Which volumes of the source it has.
    """

    source: DicomSeries | StoredImage
    verdict: Verdict
    header: SeriesHeader
    volumes: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the series or file; of a diffusion scan, with its b-value."""
        b_value = self.header.b_value if self.sequence in ("dwi", "b0") else None
        return self.source.name if b_value is None else f"{self.source.name}, b {b_value:g}"

    def is_called(self, word: str) -> bool:
        """Whether a word is its name, that of its series or file, or its number."""
        return word in (self.name, self.source.name, str(self.header.number))

    @property
    def sequence(self) -> str:
        """A sequence of the package, a kind of `KINDS`, or empty."""
        return self.verdict.sequence

    @property
    def confidence(self) -> float:
        """From 0 to 1."""
        return self.verdict.confidence

    @property
    def reason(self) -> str:
        """Why, in words."""
        return self.verdict.reason

    @property
    def affine(self) -> Affine:
        """(4, 4), from an index (d, h, w, 1) to millimetres."""
        return self.source.affine

    @property
    def shape(self) -> Shape:
        """(D, H, W)."""
        return self.source.shape

    @property
    def spacing_mm(self) -> Millimetres:
        """Distances between voxel centres along (D, H, W)."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)

    @property
    def plane(self) -> str:
        """In which the slices lie: "axial", "coronal", "sagittal", or "3-D" where voxels are nearly cubes."""
        spacing = np.array(self.spacing_mm)
        if spacing.max() <= ISOTROPIC * spacing.min():
            return "3-D"
        return _PLANES[int(np.abs(self.affine[:3, int(spacing.argmax())]).argmax())]

    @property
    def shown(self) -> tuple[int, ...]:
        """The volumes that make its image: of a diffusion scan all directions, else the first."""
        return self.volumes if self.sequence in ("dwi", "b0") else self.volumes[:1]

    def read(self) -> Volume:
        """Its voxels: the mean over directions of a diffusion scan, else its first volume.

        Raises:
            ImageError: a file is gone or damaged.
        """
        return read_mean(self.source, self.shown)


def identify_study(study: Study | Path | str, look: bool = True, callback: Callback | None = None) -> list[Finding]:
    """Which sequence every series of a study is, in their order.

    Args:
        study: A DICOM study, or its folder, zip or file; or a folder of images of another format, or one such image.
        look: Whether the image itself is read where headers and names leave doubt.
        callback: Hears the share of the DICOM files that is read.

    Raises:
        DatasetError: there is no image, or there are several studies.
        ImageError: no series can be used.
    """
    if not isinstance(study, Study):
        if images := find_images(Path(study)):
            return identify_images(images, Path(study), look, callback)
        study = read_study(study, callback)
    findings = [_from_series(series) for series in study.series]
    return [_look(finding) for finding in findings] if look else findings


def identify_images(
    paths: Sequence[Path], root: Path, look: bool = True, callback: Callback | None = None
) -> list[Finding]:
    """Which sequence every image file is, in their order; of a 4-D diffusion scan, one finding for each b-value.

    Args:
        paths: Files of one patient.
        root: Folder to which their names are relative; or the only file.
        look: Whether the image itself is read where headers and names leave doubt.
        callback: Hears the share of the files that is read.

    Raises:
        ImageError: a file is no image, empty or damaged.
    """

    def identify(path: Path) -> list[Finding]:
        findings = list(_from_file(path, root))
        return [_look(finding) for finding in findings] if look else findings

    found: list[Finding] = []
    with ThreadPoolExecutor() as pool:
        for done, findings in enumerate(pool.map(identify, paths), 1):
            found += findings
            if callback:
                callback.on_progress(ProgressEvent(done / len(paths)))
    return found


def find_images(path: Path) -> list[Path]:
    """Image files that are no DICOM, in a folder, `DEPTH` levels deep; or the path itself."""
    if path.is_file():
        return [path] if find_suffix(path, READERS) else []
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        depth = len(Path(folder).relative_to(path).parts)
        folders[:] = sorted(name for name in folders if depth < DEPTH and not is_hidden(name))
        found += [
            Path(folder, name) for name in sorted(names) if not is_hidden(name) and find_suffix(Path(name), READERS)
        ]
    return [image for image in found if not any(is_second_half(image, other) for other in found)]


def _from_series(series: DicomSeries) -> Finding:
    return Finding(series, weigh(_gather(series)), series.header, tuple(range(len(series))))


def _from_file(path: Path, root: Path) -> Iterator[Finding]:
    """One finding, or one for each b-value of a 4-D diffusion scan."""
    image = _open(path, root)
    if not image.b_values:
        yield Finding(image, weigh(_gather(image)), image.header, tuple(range(len(image))))
        return
    rounded = [round(value / 50) * 50.0 for value in image.b_values]
    for value in sorted(set(rounded)):
        header = replace(image.header, b_value=value, image_type=(*image.header.image_type, "DIFFUSION"))
        verdict = weigh(_gather(replace(image, header=header)))
        yield Finding(image, verdict, header, tuple(i for i, other in enumerate(rounded) if other == value))


def _open(path: Path, root: Path) -> StoredImage:
    series = read_grid(path)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) and path != root else path.name
    stem = path.with_name(stem_of(path, READERS))
    header, b_values = _read_sidecar(stem.with_name(f"{stem.name}.json")), _read_bval(stem, len(series))
    return StoredImage(path, name, series.frame(0).shape, series.affine, len(series), header, b_values)


def _read_sidecar(path: Path) -> SeriesHeader:
    """The header in a JSON; empty if there is none, or something else is in it."""
    try:
        content = load_json(read_text(path, "utf-8-sig")) if path.is_file() else {}
    except (OSError, ValueError):
        content = {}
    return header_from_sidecar(content if isinstance(content, dict) else {})


def _read_bval(stem: Path, count: int) -> tuple[float, ...]:
    """The b-values beside a 4-D image; none where there are none, or they do not fit it."""
    path = stem.with_name(f"{stem.name}.bval")
    try:
        values = read_b_values(read_text(path)) if path.is_file() else ()
    except (OSError, ValueError):
        return ()
    return tuple(map(float, values)) if len(values) == count > 1 else ()


def _gather(source: DicomSeries | StoredImage) -> list[Evidence]:
    """What headers and names say."""
    said = read_header(source.header)
    if isinstance(source, StoredImage):
        weighted = {item.sequence for item in said} & {"b0", "dwi"}
        named = read_words(stem_of(source.path, READERS), "name")
        if not named and not said:
            named = [replace(item, confidence=0.7) for item in read_words(source.path.parent.name, "folder")]
        said += [item for item in named if not (weighted and item.sequence == "dwi")]
    diffusion = source.header.b_value or (isinstance(source, StoredImage) and source.b_values)
    if is_echo_planar(source.header) and len(source) >= MANY_VOLUMES and not diffusion:
        said = [item for item in said if item.sequence != "b0"]
        said.append(Evidence("pwi", 0.5, f"{len(source)} echo-planar volumes over time"))
    return said


def _look(finding: Finding) -> Finding:
    """The finding with what its image says, where there is doubt."""
    known = finding.sequence in KINDS and finding.confidence >= 0.5
    if finding.confidence >= SURE or known or len(finding.source) > 1:
        return finding
    said = [*_gather(replace(finding.source, header=finding.header)), *read_contrast(finding.read())]
    return replace(finding, verdict=weigh(said))
