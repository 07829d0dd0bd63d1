"""Where results go: the label map of each case, and what it must not be."""

from collections.abc import Sequence
from pathlib import Path

from brainsegnet._atomic import IMAGES, find_suffix, writable
from brainsegnet.errors import OutputError
from brainsegnet.io.case_files import CaseFiles
from brainsegnet.io.dicom import DicomSeries
from brainsegnet.io.images import READERS
from brainsegnet.io.layouts import names_lesion
from brainsegnet.pipeline.study_case import StudyCase


def plan_targets(cases: Sequence[CaseFiles | StudyCase], out: Path, searched: bool, total: int) -> dict[str, Path]:
    """The label map of each case: `out` itself if the `total` is one case, or `out/<case>.nii.gz`.

    Raises:
        OutputError: `out` names a file but there are many cases, a target is one of the images or cannot be written, or
            a later search of the folder that was `searched` would take it for the truth or for an image of a case.
    """
    one_file = find_suffix(out, IMAGES) and not out.is_dir()
    if one_file and total > 1:
        raise OutputError(f"{total} cases do not fit into {out}; name a folder with --out")
    targets = {case.name: out if one_file else out / f"{case.name}.nii.gz" for case in cases}
    scans = {path.resolve() for case in cases for path in list_scans(case)}
    folders = {scan.parent for scan in scans if find_suffix(scan, READERS)} if searched else set()
    studies = [case.home.resolve() for case in cases if isinstance(case, StudyCase) and case.home.is_dir()]
    lesions = {case.lesion.resolve() for case in cases if isinstance(case, CaseFiles) and case.lesion}
    for target in targets.values():
        place = target.resolve()
        if place in scans | lesions:
            raise OutputError(f"{target} is a file of the case itself; name another with --out")
        writable(target)
        if names_lesion(target) and place.parent in folders:
            raise OutputError(
                f"{target} is beside the scans and would be taken for their truth; name another with --out"
            )
        if inside := next((folder for folder in studies if searched and folder in place.parents), None):
            raise OutputError(
                f"{target} is inside the study {inside} and would be taken for an image of it; name another with --out"
            )
    return targets


def list_scans(case: CaseFiles | StudyCase) -> list[Path]:
    """The image files of a case; the folder or zip of a study of DICOM."""
    if isinstance(case, CaseFiles):
        return [*case.images.values()]
    sources = [finding.source for choice in case.choices.values() for finding in choice.findings]
    return [source.root if isinstance(source, DicomSeries) else source.path for source in sources]
