"""Every NIfTI file that the package writes has a header without fault, as nibabel's `nib-nifti-dx` judges."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from nibabel.cmdline import nifti_dx

from brainsegnet.inference import SegmentOptions
from brainsegnet.io.images import write_image
from brainsegnet.pipeline.segment import segment
from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.volume import LabelMap, Volume

EVERYTHING = SegmentOptions(
    device="cpu", threads=1, probabilities=True, uncertainty=True, all_grids=True, save_preprocessed=True
)


def diagnose(path: Path) -> str:
    """What `nib-nifti-dx` prints of a file."""
    said = StringIO()
    with redirect_stdout(said):
        nifti_dx.main([str(path)])
    return said.getvalue()


def require_clean(folder: Path) -> set[str]:
    """The names of all NIfTI files below a folder, none of which may have a fault."""
    files = sorted(folder.rglob("*.nii*"))
    assert not [said for path in files if "is clean" not in (said := diagnose(path))]
    return {path.name for path in files}


def test_all_files_of_a_raw_study_are_clean(raw_study, trained, depth_extractor, tmp_path):
    segment(raw_study, trained, tmp_path / "out" / "olga.nii.gz", EVERYTHING)
    names = require_clean(tmp_path / "out")
    assert {"olga.nii.gz", "olga_entropy.nii.gz", "brain_mask.nii.gz", "t1c.nii.gz", "t2.nii.gz"} <= names, names
    assert any("oedema" in name for name in names), "a probability map"


def test_simulated_cases_are_clean(tmp_path):
    simulate(tmp_path, SimulateOptions(1, 3, stroke="isles2022", detail=0.35))
    assert len(require_clean(tmp_path)) >= 3


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_a_turned_grid_is_written_clean(kind, tmp_path):
    axes = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turned = np.eye(4)
    turned[:3] = np.column_stack([axes * (0.9, 3.1, 1.2), (-7, 3, 9)])
    array = np.arange(60).reshape(3, 4, 5).astype(kind)
    write_image((LabelMap if kind == np.uint8 else Volume)(array, turned), tmp_path / "a.nii.gz")
    assert require_clean(tmp_path) == {"a.nii.gz"}


def test_a_fault_is_noticed(tmp_path):
    write_image(LabelMap(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "a.nii")
    header = bytearray((tmp_path / "a.nii").read_bytes())
    header[252:254] = (99).to_bytes(2, "little")
    (tmp_path / "a.nii").write_bytes(header)
    with pytest.raises(AssertionError, match="qform"):
        require_clean(tmp_path)
