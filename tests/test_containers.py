"""The recipes of containers: both run one script, nobody runs as root, and what they copy is there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "containers"
DOCKERFILE, RECIPE, SCRIPT = (FOLDER / name for name in ("Dockerfile", "brainsegnet.def", "install.sh"))
INSTALL = "sh /source/containers/install.sh /source /opt/brainsegnet"
needs_sh = pytest.mark.skipif(shutil.which("sh") is None or os.name != "posix", reason="there is no sh")


def read_code(path):
    """The lines of a file without its comments."""
    return "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))


@pytest.mark.parametrize("path", [DOCKERFILE, RECIPE], ids=lambda path: path.name)
def test_both_recipes_run_the_script_and_start_the_program(path):
    code = read_code(path)
    assert code.count(INSTALL) == 1 and "/opt/brainsegnet/bin/brainsegnet" in code
    assert not re.search(r"\b(pip|torch|apt-get|curl|wget)\b", code)


def test_both_recipes_start_from_one_image():
    (docker,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    (apptainer,) = re.findall(r"^From: (\S+)$", RECIPE.read_text(), re.MULTILINE)
    assert docker == apptainer


def test_the_container_does_not_run_as_root():
    users = re.findall(r"^USER (\d+):(\d+)$", read_code(DOCKERFILE), re.MULTILINE)
    assert len(users) == 1 and "0" not in users[0]
    assert read_code(DOCKERFILE).index("USER") > read_code(DOCKERFILE).rindex("RUN")


def test_both_recipes_copy_the_same_files_and_docker_is_shown_no_others():
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*)$", read_code(DOCKERFILE), re.MULTILINE)
        for word in line.split()[:-1]
    }  # fmt: skip
    files = re.search(r"^%files\n((?:    .*\n)+)", RECIPE.read_text(), re.MULTILINE)
    assert copied == {line.split()[0] for line in files[1].splitlines()}
    assert all((ROOT / name).exists() for name in copied)
    shown = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {*shown} == copied and (ROOT / ".dockerignore").read_text().startswith("*\n")


@needs_sh
def test_the_script_is_sh_and_refuses_a_folder_that_is_there(tmp_path):
    subprocess.run(["sh", "-n", SCRIPT], check=True)
    done = subprocess.run(["sh", SCRIPT, ROOT, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} is there already; remove it, or name another folder\n"
    assert subprocess.run(["sh", SCRIPT], capture_output=True).returncode == 2


@needs_sh
@pytest.mark.nightly
def test_what_the_script_installs_segments_without_torch(phantoms, tmp_path):
    """Takes the packages from the index, and some minutes."""
    done = subprocess.run(["sh", SCRIPT, ROOT, tmp_path / "prefix"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    program = tmp_path / "prefix" / "bin" / "brainsegnet"
    command = [program, "segment", phantoms, "--model", "tumour", "--out", tmp_path / "out", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len([*(tmp_path / "out").glob("*.nii.gz")]) == 3
