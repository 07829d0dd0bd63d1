"""Segmenting on a CPU needs no torch: shown with a wheel in an empty environment, as a user would install it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brainsegnet.training.export import export

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "safetensors", "nncf", "onnx", "monai")


def call(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds our wheel and what it asks for, no extra."""
    home = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", home, ROOT)
    (wheel,) = home.glob("brainsegnet-*.whl")
    call(sys.executable, "-m", "venv", home / "env")
    programs = home / "env" / ("Scripts" if os.name == "nt" else "bin")
    call(programs / "python", "-m", "pip", "install", "--quiet", wheel)
    return programs


def test_a_wheel_without_extras_segments_a_phantom(environment, trained, phantoms, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    export(tmp_path / "run")
    for package in HEAVY:
        code = f"import importlib.util as u; print(u.find_spec({package!r}))"
        assert call(environment / "python", "-c", code).strip() == "None"
    case, out = phantoms / "phantom0002", tmp_path / "lesion.nii.gz"
    said = call(environment / "brainsegnet", "segment", case, "--model", tmp_path / "run", "--out", out, "--timings")
    assert "phantom0002" in said and out.is_file()
    assert json.loads((tmp_path / "lesion.json").read_text())["engine"].startswith("OpenVINO on the CPU")


def test_without_torch_training_is_refused_in_one_sentence(environment, phantoms, tmp_path):
    command = [environment / "brainsegnet", "train", phantoms, "--task", "brats2015", "--out", tmp_path / "new" / "run"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stderr.count("\n") == 1
    assert 'is not installed; run: pip install "brainsegnet[train]"' in done.stderr
    assert not (tmp_path / "new").exists()


def test_the_models_of_the_package_come_with_the_wheel(environment, tmp_path):
    example = ROOT / "examples" / "glioma"
    files = [word for name in ("flair", "t1c") for word in (f"--{name}", example / f"{name}.nii.gz")]
    said = call(environment / "brainsegnet", "segment", *files, "--out", tmp_path / "lesion.nii.gz")
    assert "model tumour" in said and (tmp_path / "lesion.nii.gz").is_file()
