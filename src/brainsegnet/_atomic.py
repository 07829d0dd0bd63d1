"""Results on disk: files appear complete or not at all, and it is checked before the work that they can be written.

An unfinished file has a hidden name that contains the host and the process. So the next run can tell what a dead
process has left, and whether a running process writes to the same place.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brainsegnet._machine import find_host, is_running
from brainsegnet.errors import OutputError, UsageError

IMAGES = (".nii.gz", ".nii", ".mha", ".nrrd")
"""Image formats that are written: one file each, so .mhd is only read."""
_MARK, _FORMER, _CLAIM = ".brainsegnet", "-former", "claim"
_UNFINISHED = re.compile(rf"{re.escape(_MARK)}~([^~]*)~([0-9]{{1,10}})~[0-9a-f]{{8}}~(.*)", re.DOTALL)
_NAME_BYTES = 250
"""File systems take names of up to 255 bytes."""
_open: dict[Path, Path] = {}
"""Unfinished files and folders of this process, to their final places."""
_swept: set[Path] = set()
"""Folders in which this process has already removed what dead processes left."""


@dataclass(frozen=True)
class OutputOptions:
    """What happens to results that exist already. By default they are refused, before any work.

    The fields are options of `brainsegnet segment` and `brainsegnet simulate`.

    Raises:
        UsageError: verify is set without skip_existing.
    """

    overwrite: bool = False
    "Replace results that exist already. By default they are refused."
    skip_existing: bool = False
    """Continue a stopped run: leave out each case whose result is complete and was made with the same inputs, options
    and model. Other complete results are refused, or replaced with --overwrite."""
    verify: bool = False
    "With --skip-existing: compare the content of files by its SHA-256, not their size, time and header."

    def __post_init__(self) -> None:
        if self.verify and not self.skip_existing:
            raise UsageError("--verify compares the inputs of existing results; add --skip-existing")


class Unfinished(NamedTuple):
    """What the name of an unfinished file tells.

    Attributes:
        path: The file.
        host: Host that writes it.
        process: Number of the process that writes it.
        name: Its final name.
    """

    path: Path
    host: str
    process: int
    name: str

    @property
    def is_dead(self) -> bool:
        """Whether the process ran on this host and has ended."""
        if self.host != find_host():
            return False
        return self.path not in _open if self.process == os.getpid() else not is_running(self.process)


_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
"""Names of system files in lower case. Names that begin with a dot are hidden too."""


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8. Bytes of a path that are not UTF-8 are escaped, as in JSON.

    Raises:
        OutputError: the file cannot be written; the text says why.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def writable(path: Path, suffixes: tuple[str, ...] = IMAGES) -> None:
    """Check, before the work begins, that a file with one of `suffixes` can be written afterwards.

    Without `suffixes`, `path` is a folder.

    Raises:
        OutputError: the suffix is unknown, or the folder cannot be created or written to.
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
    """A temporary file or folder beside `path`, with the same suffix, to write; it then takes the place of `path`.

    The folder is created if it is missing. The exchange happens at the end of the block. If the block fails, the
    temporary file is removed and `path` is unchanged. A `path` that is such a temporary file is written directly.

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
    """Reserve `names` in a folder for this process. The folder is created if needed, and removed if it stays empty.

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
                f"{claim.parent / both[0]} is being written by {who}; wait for it, or name another output "
                f"(if it has ended, remove {other.path})"
            )


def _claimed_in(claim: Path) -> set[str]:
    """Names in a claim; none if it was just removed or is not complete yet."""
    with suppress(OSError, ValueError, TypeError):
        return {*json.loads(claim.read_text(encoding="utf-8"))}
    return set()


def refuse_existing(conflicts: Mapping[Path, str], *, can_skip: bool = True, flag: str = "--overwrite") -> None:
    """Refuse to replace results.

    Args:
        conflicts: Each result that exists, to the reason why it is not the one that is asked for; empty without
            --skip-existing.
        can_skip: Whether the command has --skip-existing.
        flag: The option that replaces them.

    Raises:
        OutputError: there is one.
    """
    if not conflicts:
        return
    path, reason = next(iter(conflicts.items()))
    more = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
    place = "or name another output"
    if reason:
        raise OutputError(
            f"{path} is there already{more} and is another result: {reason}; add {flag} to replace it, {place}"
        )
    remedy = f"add --skip-existing to continue a stopped run, or {flag}" if can_skip else f"add {flag}"
    raise OutputError(f"{path} is there already{more}; {remedy} to replace it, {place}")


def hash_file(path: Path) -> str:
    """SHA-256 of the content of a file in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(folder: Path, needed: int, what: str) -> None:
    """Check before the work that a disk has room for about `needed` bytes.

    Raises:
        OutputError: it has less.
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
    """Remove what dead processes of this host left unfinished. A folder that they had moved aside is put back."""
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
    """The final place of an unfinished file of this process, or of a file in an unfinished folder; else `path`."""
    for above in (path, *path.parents):
        if above in _open:
            return _open[above] / path.relative_to(above)
    return path


def is_unicode(path: Path) -> bool:
    """Whether a path is valid Unicode. Some libraries open no other files."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or written by the system, such as `._x` on macOS and `Thumbs.db` on Windows.

    Examples:
        >>> is_hidden("._scan.nii.gz"), is_hidden("Thumbs.db"), is_hidden("scan.nii.gz")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM


def find_suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    """The one of `suffixes` that the name ends in, in any case; empty if none.

    Examples:
        >>> find_suffix(Path("Pat 1.NII.GZ"), (".nii.gz", ".nii"))
        '.nii.gz'
    """
    return next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), "")


def stem_of(path: Path, suffixes: tuple[str, ...] = IMAGES) -> str:
    """The name of a file without its suffix, of which `.nii.gz` is one.

    Examples:
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
    _open[former] = path  # so that no sweep of another thread puts it back
    try:
        os.replace(path, former)
        try:
            os.replace(temporary, path)
        except OSError:
            os.replace(former, path)
            raise
        shutil.rmtree(former, ignore_errors=True)
    finally:
        del _open[former]


def _unfinished_name(path: Path) -> Path:
    """A temporary file beside `path`, with the name that `Unfinished` reads. A long name is cut at its start."""
    start = f"{_MARK}~{find_host()}~{os.getpid()}~{secrets.token_hex(4)}~"
    name = os.fsencode(path.name)[-(_NAME_BYTES - len(start)) :]
    return path.parent / f"{start}{name.decode(errors='ignore')}"


def _remove(path: Path) -> None:
    """Remove a file or a folder if it exists and the system allows it."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
