"""Series of a kind that is not read here, through dcm2niix of Chris Rorden: an optional program of 3 MB."""

import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from subprocess import SubprocessError

from brainsegnet.errors import BrainSegNetError, ImageError, MissingExtra
from brainsegnet.io.dicom_geometry import MIN_SLICES
from brainsegnet.io.images import Series, read_series

REMEDY = "convert it with dcm2niix"
"""How the reason of a refusal ends where the program may help."""
CORRECTED = ("_Eq", "_Tilt")
"""Ends of names of files with even steps or right angles; the file as scanned is beside each."""
TIMEOUT_S = 900


def convert_series(root: Path, series_uids: Sequence[str]) -> dict[str, list[Series]]:
    """What dcm2niix makes of some series of a study: by series UID, each image on its own grid.

    Args:
        root: Folder, zip or file of the study.
        series_uids: Of the series that are wanted.

    Raises:
        MissingExtra: dcm2niix is not installed.
        ImageError: it does not end.
    """
    try:
        program = import_module("dcm2niix")
    except ImportError as error:
        raise MissingExtra('dcm2niix is not installed; run: pip install "brainsegnet[dcm2niix]"') from error
    with tempfile.TemporaryDirectory() as folder:
        source, out = root, Path(folder) / "out"
        out.mkdir()
        if root.is_file() and zipfile.is_zipfile(root):
            source = Path(folder) / "in"
            with zipfile.ZipFile(root) as archive:
                archive.extractall(source)
        options = ["-o", str(out), "-f", "%j", "-b", "n", "-z", "n", "-v", "0"]
        try:
            program.main([*options, str(source)], capture_output=True, timeout=TIMEOUT_S)
        except (OSError, SubprocessError) as error:
            raise ImageError(f"dcm2niix cannot convert {root}: {error}") from error
        return {uid: images for uid in series_uids if (images := _read_images(out, uid))}


def _read_images(out: Path, uid: str) -> list[Series]:
    """The images of one series that are volumes; of two forms of one image the corrected one."""
    stems = sorted(path.stem for path in out.glob(f"{uid}*.nii"))
    kept = [stem for stem in stems if not any(f"{stem}{word}" in other for other in stems for word in CORRECTED)]
    found = []
    for stem in kept:
        with suppress(BrainSegNetError):
            series = read_series(out / f"{stem}.nii")
            if min(series.array.shape[1:]) >= MIN_SLICES:
                found.append(series)
    return found
