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


@pytest.mark.parametrize(
    "verb",
    [
        ("train", "PHANTOMS", "--task", "brats2015", "--out", "NEW"),
        ("benchmark", "run", "PHANTOMS", "--task", "brats2015", "--out", "NEW"),
        ("simulate", "NEW", "--realistic", "--anatomy", "procedural", "--cases", "1"),
        ("export", "MODEL"),
    ],
    ids=lambda verb: verb[0],
)
def test_what_needs_torch_is_refused_in_one_sentence_without_it(environment, phantoms, trained, tmp_path, verb):
    places = {"PHANTOMS": phantoms, "NEW": tmp_path / "new" / "run", "MODEL": trained}
    command = [environment / "brainsegnet", *(places.get(word, word) for word in verb)]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert '; run: pip install "brainsegnet[train]"' in done.stderr
    assert not (tmp_path / "new").exists()


def test_what_needs_no_torch_runs_without_it(environment, trained, phantoms, tmp_path):
    truths = tmp_path / "truths"
    truths.mkdir()
    for name in ("phantom0000", "phantom0001"):
        (lesion,) = (phantoms / name).rglob("*OT*.mha")
        shutil.copy(lesion, truths / f"{name}.mha")
    run, page = environment / "brainsegnet", tmp_path / "page.html"
    call(run, "evaluate", truths, phantoms, "--task", "brats2015", "--out", tmp_path / "scores")
    call(run, "report", truths, phantoms, "--task", "brats2015", "--out", page)
    call(run, "report", trained, "--out", tmp_path / "run.html")
    call(run, "paper", "table", tmp_path / "scores", "--number", "1", "--out", tmp_path / "table.md")
    call(run, "simulate", tmp_path / "stroke", "--stroke", "isles2022", "--cases", "1", "--detail", "0.3")
    call(run, "inspect", phantoms)
    assert page.is_file() and (tmp_path / "run.html").is_file() and (tmp_path / "table.md").is_file()


def test_the_models_of_the_package_come_with_the_wheel(environment, tmp_path):
    example = ROOT / "examples" / "glioma"
    files = [word for name in ("flair", "t1c") for word in (f"--{name}", example / f"{name}.nii.gz")]
    said = call(environment / "brainsegnet", "segment", *files, "--out", tmp_path / "lesion.nii.gz")
    assert "model tumour" in said and (tmp_path / "lesion.nii.gz").is_file()
