"""Results on disk: they appear whole or not at all, and whether they can is known before the work begins.

What is not finished has a hidden name with the host and the process in it. So the next run can tell what a dead process
has left, and whether a living one writes to the same place.
"""

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from brainsegnet._machine import find_host, is_running
from brainsegnet.errors import OutputError

IMAGES = (".nii.gz", ".nii", ".mha", ".nrrd")
"""Image formats that are written: one file each, so .mhd is only read."""
_MARK, _FORMER, _CLAIM = ".brainsegnet", "-former", "claim"
_UNFINISHED = re.compile(rf"{re.escape(_MARK)}~([^~]*)~([0-9]{{1,10}})~[0-9a-f]{{8}}~(.*)", re.DOTALL)
_NAME_BYTES = 250
"""File systems take names of up to 255 bytes."""
_open: dict[Path, Path] = {}
"""Unfinished files and folders of this process, and the places that they are to take."""
_swept: set[Path] = set()
"""Folders in which this process has swept before it wrote."""


class Unfinished(NamedTuple):
    """What an unfinished file says by its name: who writes it, and the name that it is to get."""

    path: Path
    host: str
    process: int
    name: str

    @property
    def is_dead(self) -> bool:
        """Whether its process ran on this host and has ended."""
        if self.host != find_host():
            return False
        return self.path not in _open if self.process == os.getpid() else not is_running(self.process)


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8; an `OutputError` says why it cannot be."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def writable(path: Path, suffixes: tuple[str, ...] = IMAGES) -> None:
    """Make sure, before the work begins, that a file with one of `suffixes` can be written afterwards.

    With no `suffixes`, `path` is a folder.

    Raises:
        OutputError: the suffix is unknown, or the folder cannot be made or written to.
    """
    check_suffix(path, suffixes)
    if suffixes and path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    sweep(path.parent)
    try:
        tempfile.TemporaryFile(dir=next(above for above in path.parents if above.exists())).close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` to write, file or folder, with the same suffix; it takes the place of `path`.

    Their folder is made if it is missing. The exchange happens when the block ends well; if it fails, the neighbour is
    removed and `path` is as it was. A `path` that is such a neighbour itself is written as it is.

    Raises:
        OutputError: the operating system refuses to write.
    """
    if path in _open:
        yield path
        return
    temporary = _unfinished_name(path)
    _open[temporary] = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            _swept.add(path.parent)
            sweep(path.parent)
        yield temporary
        _swap(temporary, path)
    except OSError as error:
        raise OutputError(f"{final_name(path)} cannot be written: {error.strerror or error}") from error
    finally:
        _remove(temporary)
        del _open[temporary]


@contextmanager
def claiming(folder: Path, names: Collection[str]) -> Iterator[None]:
    """Hold a folder, which is made if needed, for writing `names` in it; empty folders that were made go at the end.

    Raises:
        OutputError: another process is writing one of them there, or the system refuses.
    """
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    claim = _unfinished_name(folder / _CLAIM)
    _open[claim] = folder
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            claim.write_text(json.dumps(sorted(names)), encoding="utf-8")
        except OSError as error:
            place = folder / min(names) if len(names) == 1 else folder
            raise OutputError(f"{place} cannot be written: {error.strerror or error}") from error
        _refuse_rivals(claim, {*names})
        yield
    finally:
        _remove(claim)
        del _open[claim]
        with suppress(OSError):
            for empty in made:
                empty.rmdir()


def _refuse_rivals(claim: Path, names: set[str]) -> None:
    for other in unfinished(claim.parent):
        if other.name != _CLAIM or other.path == claim or other.is_dead:
            continue
        if both := sorted(names & _claimed_in(other.path)):
            who = f"process {other.process} on {other.host.partition('+')[0]}"
            raise OutputError(
                f"{claim.parent / both[0]} is being written by {who}; wait for it, or name another place with --out "
                f"(if it has ended, remove {other.path})"
            )


def _claimed_in(claim: Path) -> set[str]:
    """Names in a claim; none if it ends just now, or is being written."""
    with suppress(OSError, ValueError, TypeError):
        return {*json.loads(claim.read_text(encoding="utf-8"))}
    return set()


def require_space(folder: Path, needed: int, what: str) -> None:
    """Make sure, before the work begins, that a disk has room for about so many bytes.

    Raises:
        OutputError: there is less.
    """
    home = next(above for above in (folder, *folder.parents) if above.exists())
    with suppress(OSError):
        if (free := shutil.disk_usage(home).free) < needed:
            raise OutputError(
                f"{folder} cannot be written: {what} may take {needed / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; "
                "make room, or choose another disk"
            )


def unfinished(folder: Path) -> list[Unfinished]:
    """The unfinished files and folders in a folder, of any process; none if there is no such folder."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := _UNFINISHED.fullmatch(entry.name):
                found.append(Unfinished(folder / entry.name, match[1], int(match[2]), match[3]))
    return found


def sweep(folder: Path) -> None:
    """Remove what dead processes of this host left unfinished; a folder that they had moved aside is put back."""
    for left in unfinished(folder):
        if not left.is_dead:
            continue
        place = folder / left.name.removesuffix(_FORMER)
        if left.name.endswith(_FORMER) and not place.exists():
            with suppress(OSError):
                os.replace(left.path, place)
        else:
            _remove(left.path)


def final_name(path: Path) -> Path:
    """The place that an unfinished file of this process, or one in an unfinished folder, is to take; else `path`."""
    for above in (path, *path.parents):
        if above in _open:
            return _open[above] / path.relative_to(above)
    return path


def find_suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    """The one of `suffixes` that the name ends in, in any case; empty if none.

    >>> find_suffix(Path("Pat 1.NII.GZ"), (".nii.gz", ".nii"))
    '.nii.gz'
    """
    return next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path, suffixes: tuple[str, ...] = IMAGES) -> str:
    """The name of a file without its suffix, of which `.nii.gz` is one.

    >>> stem_of(Path("out/pat 1.nii.gz")), stem_of(Path("notes.txt"))
    ('pat 1', 'notes.txt')
    """
    return path.name[: len(path.name) - len(find_suffix(path, suffixes))]


def check_suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    """The one of `suffixes` that the name ends in.

    Raises:
        OutputError: none of them; with no `suffixes` any name will do.
    """
    suffix = find_suffix(path, suffixes)
    if suffixes and not suffix:
        raise OutputError(f"{path} cannot be written: its name must end in one of {', '.join(suffixes)}")
    return suffix


def _swap(temporary: Path, path: Path) -> None:
    if not (temporary.is_dir() and path.is_dir()):
        os.replace(temporary, path)
        return
    former = _unfinished_name(path.with_name(f"{path.name}{_FORMER}"))
    os.replace(path, former)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _unfinished_name(path: Path) -> Path:
    """A neighbour of `path` of this process: what `Unfinished` reads. The name is cut at its start if it is long."""
    start = f"{_MARK}~{find_host()}~{os.getpid()}~{secrets.token_hex(4)}~"
    name = os.fsencode(path.name)[-(_NAME_BYTES - len(start)) :]
    return path.parent / f"{start}{name.decode(errors='ignore')}"


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there and the system lets us."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
