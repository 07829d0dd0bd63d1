"""The DICOM files of a study: a folder, a zip of one, or a single file. Names of files mean nothing here."""

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import BinaryIO, TypeVar

from pydicom import Dataset, config, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError

from brainsegnet.errors import DatasetError, ImageError
from brainsegnet.progress import Callback, ProgressEvent

Open = Callable[[str], BinaryIO]
"""Opens a file of a study by its name, relative to the root of the study."""
T = TypeVar("T")
BROKEN = (
    *(ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, OverflowError, EOFError),
    *(RuntimeError, struct.error, InvalidDicomError, BytesLengthException),
)
"""What pydicom raises where a file or a value breaks the standard."""
MAX_MEMBER = 2**32
"""A larger member of a zip is not unpacked."""
WORKERS = min(16, 4 + (os.cpu_count() or 1))
"""Threads: most of the time goes into waiting for files."""
_QUIET = RLock()
"""The settings of pydicom and of warnings are those of all threads."""
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""How a file without preamble begins: an element of group 2 or 8, in the order of bytes that nearly all files have."""


@contextmanager
def opening(root: Path) -> Iterator[Open]:
    """A function that opens the files of a folder, of a zip, or of a file by itself, whose name is empty.

    Raises:
        ImageError: the zip is damaged.
    """
    if not is_zip(root):
        yield lambda name: (root / name if name else root).open("rb")
        return
    try:
        with zipfile.ZipFile(root) as archive:
            yield lambda name: BytesIO(archive.read(name))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ImageError(f"{root} is a damaged zip: {error}; fetch it again") from error


def list_files(root: Path) -> list[str]:
    """Names, relative to `root`, of all files that may be DICOM; one empty name where `root` is a file itself.

    Hidden files and what macOS adds to a zip are left out. A DICOMDIR lists the files beside it and is no image, so its
    folder is what counts.

    Raises:
        DatasetError: there is no such folder or file.
        ImageError: a zip is encrypted or damaged.
    """
    if root.is_dir():
        found = [Path(folder) / file for folder, _, files in os.walk(root) for file in files]
        names = [path.relative_to(root).as_posix() for path in found]
    elif not root.is_file():
        raise DatasetError(f"{root} does not exist; name a study folder, a zip of it, or a DICOM file")
    elif is_zip(root):
        names = _list_members(root)
    else:
        return [""]
    return sorted(name for name in names if not _is_noise(name))


def _list_members(root: Path) -> list[str]:
    try:
        with zipfile.ZipFile(root) as archive:
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise ImageError(f"{root} is a damaged zip: {error}; fetch it again") from error
    if any(entry.flag_bits & 1 for entry in members):
        raise ImageError(f"{root} is encrypted; unpack it and name its folder")
    return [entry.filename for entry in members if entry.file_size < MAX_MEMBER]


def is_zip(root: Path) -> bool:
    """Whether it is a zip file."""
    return root.is_file() and zipfile.is_zipfile(root)


def _is_noise(name: str) -> bool:
    parts = name.split("/")
    return parts[-1].startswith(".") or "__MACOSX" in parts or parts[-1].upper().startswith("DICOMDIR")


def find_root(path: Path) -> Path:
    """Where the files of a study are: the folder of a DICOMDIR, else the path itself."""
    return path.parent if path.is_file() and path.name.upper() == "DICOMDIR" else path


def read_dataset(stream: BinaryIO, tags: Sequence[int] | None = None, pixels: bool = False) -> Dataset | None:
    """What a DICOM file says, without its pixels if these are not asked for; None if it is no DICOM file.

    Args:
        stream: The open file.
        tags: The elements that matter; None is all.
        pixels: Whether the pixels are read too.
    """
    start = stream.read(132)
    bare = start[128:] != b"DICM"
    if bare and start[:2] not in _FIRST_GROUPS:
        return None
    stream.seek(0)
    wanted = None if tags is None else list(tags)
    try:
        return dcmread(stream, stop_before_pixels=not pixels, specific_tags=wanted, force=bare)
    except BROKEN:
        return None


def read_each(
    root: Path, names: Sequence[str], work: Callable[[Open, str], T], callback: Callback | None = None
) -> list[T]:
    """`work` done on every file, by several threads, in the order of `names`; the callback hears how far it is.

    Raises:
        ImageError: a file cannot be opened, or the zip is damaged.
    """
    results: list[T] = []
    step = max(1, len(names) // 100)
    with opening(root) as open_file, quiet(), ThreadPoolExecutor(WORKERS) as pool:
        try:
            for result in pool.map(lambda name: work(open_file, name), names):
                results.append(result)
                if callback and (len(results) % step == 0 or len(results) == len(names)):
                    callback.on_progress(ProgressEvent(len(results) / len(names)))
        except OSError as error:
            raise ImageError(f"{error.filename or root} cannot be read: {error.strerror or error}") from error
        finally:
            pool.shutdown(cancel_futures=True)
    return results


@contextmanager
def quiet() -> Iterator[None]:
    """Real headers break the standard in many harmless ways, of which pydicom would warn."""
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, config.settings.reading_validation_mode = config.settings.reading_validation_mode, config.IGNORE
        try:
            yield
        finally:
            config.settings.reading_validation_mode = before
