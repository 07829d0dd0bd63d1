"""The training example makes its folder anew, but never at the cost of what it did not make itself."""

import importlib.util
from pathlib import Path

import pytest

from brainsegnet.errors import BrainSegNetError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def learn():
    spec = importlib.util.spec_from_file_location("learn", EXAMPLES / "learn.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_earlier_run_is_removed(learn, tmp_path):
    (tmp_path / "learnt" / "run" / "best").mkdir(parents=True)
    (tmp_path / "learnt" / "learn.json").write_text("{}")
    learn.clear(tmp_path / "learnt")
    learn.clear(tmp_path / "learnt")
    assert not (tmp_path / "learnt").exists()


def test_a_folder_of_anything_else_is_not_touched(learn, tmp_path):
    for name in ("run", "patients"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.nii.gz").write_text("mine")
    with pytest.raises(BrainSegNetError, match="holds patients, which no run made"):
        learn.clear(tmp_path)
    assert (tmp_path / "run" / "scan.nii.gz").is_file() and (tmp_path / "patients" / "scan.nii.gz").is_file()
