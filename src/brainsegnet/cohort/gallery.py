"""The pictures of a cohort: one thumbnail for each result, drawn from what is on disk, and kept until that changes."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainsegnet._atomic import find_suffix, replacing
from brainsegnet._types import Mask
from brainsegnet.cohort.manifest import Entry
from brainsegnet.cohort.places import PER_FOLDER, Places
from brainsegnet.errors import BrainSegNetError
from brainsegnet.io.case_files import MAPS, CaseFiles, read_sequences
from brainsegnet.io.images import READERS, read_labels
from brainsegnet.pipeline.existing import stay_beside
from brainsegnet.plotting.slices import Rgb
from brainsegnet.plotting.thumbnails import draw_thumbnail
from brainsegnet.plotting.viewer import get
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.preprocessing.foreground import find_foreground
from brainsegnet.volume import LabelMap, Volume

THUMBNAILS = "thumbnails"
_EDITION = "1"
"""Another edition draws all thumbnails again."""
BRAIN_MASK = "brain_mask"
_TOLD = {"b": "", "s": "outline of the brain not saved", "n": "scan not found"}
"""Letter at the end of a file's name, to what the thumbnail lacks."""


@dataclass(frozen=True)
class Picture:
    """The thumbnail of a case.

    Attributes:
        file: Its file, relative to the folder of the report; empty if there is none.
        lacks: What it lacks, in words; empty if nothing.
        is_new: Whether it was drawn now.
    """

    file: str = ""
    lacks: str = ""
    is_new: bool = False


@dataclass(frozen=True)
class Scan:
    """Where the scan of a result is.

    Attributes:
        files: The file, as a case of one sequence.
        is_preprocessed: Whether it is the image that the network saw, on a grid of its own.
    """

    files: CaseFiles
    is_preprocessed: bool = False

    @property
    def path(self) -> Path:
        """The file."""
        return next(iter(self.files.images.values()))

    def read(self, labels: LabelMap) -> Volume:
        """The scan, on the grid of the label map if it is preprocessed. Errors are those of `read_sequences`."""
        (scan,) = read_sequences(self.files, [*self.files.images])
        return resample(scan, labels) if self.is_preprocessed else scan


@dataclass
class Gallery:
    """The thumbnails of the results of one model. Several threads may draw at a time.

    Attributes:
        places: Where the results are.
        folder: Folder of the report.
        palette: Label value to colour.
    """

    places: Places
    folder: Path
    palette: Mapping[int, Rgb]
    _known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = {_stem(name): name for name in self._list()}

    def draw(self, entry: Entry, note: Mapping[str, Any]) -> Picture:
        """The thumbnail of a case, drawn if there is none of this result.

        Args:
            entry: The case.
            note: Content of its JSON.

        Raises:
            OutputError: it cannot be written.
        """
        target = self.places.target_of(entry)
        scan = find_scan(entry, note, target.parent)
        stem = f"{entry.number // PER_FOLDER:04d}/{entry.number}-{_mark(note, target, scan)}"
        if name := self._known.get(stem):
            return Picture(f"{THUMBNAILS}/{name}", _TOLD[name.removeprefix(stem)[0]])
        try:
            letter, content = self._draw(target, note, scan)
        except (BrainSegNetError, OSError, MemoryError, ValueError) as error:
            return Picture(lacks=f"no picture: {error or 'there is not enough memory'}")
        name = f"{stem}{letter}.webp"
        with replacing(self.folder / THUMBNAILS / name) as temporary:
            temporary.write_bytes(content)
        return Picture(f"{THUMBNAILS}/{name}", _TOLD[letter], is_new=True)

    def sweep(self, used: set[str]) -> None:
        """Remove the thumbnails of results that are there no more.

        Args:
            used: The files of the thumbnails that stay.
        """
        for name in self._list():
            if f"{THUMBNAILS}/{name}" not in used:
                with suppress(OSError):
                    (self.folder / THUMBNAILS / name).unlink()

    def _draw(self, target: Path, note: Mapping[str, Any], scan: Scan | None) -> tuple[str, bytes]:
        """The letter that tells what a thumbnail lacks, and the thumbnail."""
        labels, image = read_labels(target), None
        with suppress(BrainSegNetError, OSError):
            image = scan.read(labels) if scan else None
        if image is None or image.shape != labels.shape:
            return "n", draw_thumbnail(labels, self.palette)
        brain = find_brain(note, target, image, labels)
        return "s" if brain is None else "b", draw_thumbnail(labels, self.palette, image, brain)

    def _list(self) -> Iterator[str]:
        """The files of all thumbnails, with their folder."""
        home = self.folder / THUMBNAILS
        for folder in os.listdir(home) if home.is_dir() else ():
            if folder.isdigit():
                yield from (f"{folder}/{name}" for name in os.listdir(home / folder) if name.endswith(".webp"))


def find_scan(entry: Entry, note: Mapping[str, Any], home: Path) -> Scan | None:
    """The image whose grid a label map has: at the place that the JSON or the manifest tells, or as the network saw it.

    A file whose size has changed is another image. DICOM is not read, because that takes longer than the thumbnail is
    worth.

    Args:
        entry: The case.
        note: Content of its JSON.
        home: Folder of the JSON.
    """
    name = get(note, "geometry").get("grid")
    facts, saved = get(note, "inputs", str(name)), get(note, "preprocessed").get(str(name))
    if not isinstance(name, str):
        return None
    place, part = facts.get("path"), facts.get("part")
    told = [home / place] if isinstance(place, str) and "files" not in facts else []
    for path in [*told, *([Path(entry.images[name])] if name in entry.images else [])]:
        with suppress(OSError):
            if find_suffix(path, READERS) and path.is_file() and path.stat().st_size == facts.get("bytes"):
                parts = {name: part} if isinstance(part, int) or part in MAPS else {}
                return Scan(CaseFiles(entry.case, {name: path}, parts=parts))
    if isinstance(saved, str) and (path := stay_beside(home / name, saved)).is_file():
        return Scan(CaseFiles(entry.case, {name: path}), is_preprocessed=True)
    return None


def find_brain(note: Mapping[str, Any], target: Path, image: Volume, labels: LabelMap) -> Mask | None:
    """The brain (D, H, W) of a result, as the network saw it: the mask that was saved, or a scan without its skull.

    None if the scan has its skull on and the mask was not saved.

    Args:
        note: Content of the JSON.
        target: The label map.
        image: The scan on the grid of the label map.
        labels: The label map.
    """
    saved = get(note, "preprocessed").get(BRAIN_MASK)
    if isinstance(saved, str):
        with suppress(BrainSegNetError, OSError):
            return resample(read_labels(stay_beside(target, saved)), labels).array > 0
    if str(get(note, "head").get("skull")).startswith("stripped") and get(note, "brain").get("how") == "as given":
        return find_foreground({"scan": image.array}, image.spacing_mm).mask
    return None


def _mark(note: Mapping[str, Any], target: Path, scan: Scan | None) -> str:
    """What changes if a thumbnail would: of the JSON, the label map and the scan."""
    facts: list[object] = [_EDITION, repr(note), scan and scan.is_preprocessed]
    for path in (target, scan.path if scan else None):
        with suppress(OSError):
            facts += [(stat.st_size, stat.st_mtime_ns) for stat in ([path.stat()] if path else [])]
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _stem(name: str) -> str:
    """The name of a thumbnail without its letter and ending."""
    return name.removesuffix(".webp")[:-1]
