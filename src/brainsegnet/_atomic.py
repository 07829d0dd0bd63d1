"""Results on disk: they appear whole or not at all, and whether they can is known before the work begins."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from brainsegnet.errors import OutputError

IMAGES = (".nii.gz", ".nii", ".mha", ".nrrd")
"""Image formats that are written: one file each, so .mhd is only read."""


_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
"""Names that systems use, in lower case, beside those that begin with a dot."""


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8; an `OutputError` says why it cannot be.

    Bytes of a path that are no UTF-8 are escaped, as JSON does it.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def writable(path: Path, suffixes: tuple[str, ...] = IMAGES) -> None:
    """Make sure, before the work begins, that a file with one of `suffixes` can be written afterwards.

    With no `suffixes`, `path` is a folder.

    Raises:
        OutputError: the suffix is unknown, or the folder cannot be made or written to.
    """
    check_suffix(path, suffixes)
    if suffixes and path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    try:
        tempfile.TemporaryFile(dir=next(above for above in path.parents if above.exists())).close()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path` to write, file or folder, with the same suffix; it takes the place of `path`.

    Their folder is made if it is missing. The exchange happens when the block ends well; if it fails, the neighbour is
    removed and `path` is as it was.

    Raises:
        OutputError: the operating system refuses to write.
    """
    temporary = path.parent / f".{secrets.token_hex(4)}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _swap(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def is_unicode(path: Path) -> bool:
    """Whether a path is text: some libraries open no others."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one that systems write beside the user's: `._x` of macOS, `Thumbs.db` of Windows.

    >>> is_hidden("._scan.nii.gz"), is_hidden("Thumbs.db"), is_hidden("scan.nii.gz")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM


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
    former = temporary.with_name(f"{temporary.name}-former")
    os.replace(path, former)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)
