"""Results on disk: files appear complete or not at all, and it is checked before the work that they can be written."""

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


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8.

    Raises:
        OutputError: the file cannot be written; the text says why.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def writable(path: Path, suffixes: tuple[str, ...] = IMAGES) -> None:
    """Check, before the work begins, that a file with one of `suffixes` can be written afterwards.

    Without `suffixes`, `path` is a folder.

    Raises:
        OutputError: the suffix is unknown, or the folder cannot be created or written to.
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
    """A temporary file or folder beside `path`, with the same suffix, to write; it then takes the place of `path`.

    The folder is created if it is missing. The exchange happens at the end of the block. If the block fails, the
    temporary file is removed and `path` is unchanged.

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
    former = temporary.with_name(f"{temporary.name}-former")
    os.replace(path, former)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)
