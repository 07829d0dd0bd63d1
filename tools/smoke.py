"""A smoke test of the wheel, on any system: build it, install it into a fresh environment, and segment with it.

    python tools/smoke.py [FOLDER]

The wheel is left in FOLDER (by default `dist`). It has to be at most 25 MB, and its models must agree with the SHA-256
sums of their cards. Only the standard library is needed here.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "glioma"
MOST_MEGABYTES = 25
MODELS = ("tumour", "stroke", "perfusion")
BRAIN = "brain"
"""The model that extracts brains, which has a card of its own."""
LEAST_DICE = 0.8
"""Of the whole tumour in the example."""


def main(folder: Path) -> None:
    """Build, install and try the wheel, and end with an error at the first thing that is wrong."""
    wheel = build(folder)
    check_models(wheel)
    with tempfile.TemporaryDirectory() as scratch:
        programs = install(wheel, Path(scratch))
        try_out(programs, Path(scratch))
    print("the wheel works")


def build(folder: Path) -> Path:
    """The wheel of this checkout, in `folder`."""
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    wheel = folder / f"brainsegnet-{declared_version()}-py3-none-any.whl"
    megabytes = wheel.stat().st_size / 1e6
    require(megabytes <= MOST_MEGABYTES, f"{wheel.name} has {megabytes:.1f} MB, of {MOST_MEGABYTES} at most")
    return wheel


def check_models(wheel: Path) -> None:
    """Compare each file of the models in the wheel with the sum on its card; a file without a sum is an error too."""
    with zipfile.ZipFile(wheel) as archive:
        cards = [name for name in archive.namelist() if name.endswith("/card.json")]
        require(len(cards) == len(MODELS), f"the wheel holds {len(cards)} cards, of {len(MODELS)} models")
        for name in cards:
            card = json.loads(archive.read(name))
            sums = {card["weights"]["file"]: card["weights"]["sha256"]}
            for export in card["exports"].values():
                sums |= {f"export/{file}": known for file, known in export["files"].items()}
            check_sums(archive, name, sums)
        (brain,) = (name for name in archive.namelist() if name.endswith(f"/{BRAIN}/brain.json"))
        check_sums(archive, brain, json.loads(archive.read(brain))["files"])


def check_sums(archive: zipfile.ZipFile, card: str, sums: Mapping[str, str]) -> None:
    """Compare the files beside a card with their sums."""
    home = card.rpartition("/")[0] + "/"
    held = {name.removeprefix(home) for name in archive.namelist() if name.startswith(home)} - {card.removeprefix(home)}
    require(held == set(sums), f"{home} holds {sorted(held)}, its card names {sorted(sums)}")
    for file, known in sums.items():
        found = hashlib.sha256(archive.read(home + file)).hexdigest()
        require(found == known, f"{home}{file} has the SHA-256 {found}, its card says {known}")


def declared_version() -> str:
    """What pyproject.toml says."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def install(wheel: Path, scratch: Path) -> Path:
    """The folder of programs of a new environment that holds the wheel and what it asks for, but no extra."""
    call(sys.executable, "-m", "venv", scratch / "environment")
    programs = scratch / "environment" / ("Scripts" if os.name == "nt" else "bin")
    call(programs / "python", "-m", "pip", "install", "--quiet", wheel.resolve())
    return programs


def try_out(programs: Path, scratch: Path) -> None:
    """The version, a model, a segmentation of the example and its scores, from a folder that holds no checkout."""
    program = programs / "brainsegnet"
    version = call(program, "--version", folder=scratch)
    require(declared_version() in version, f"--version says {version}, pyproject.toml {declared_version()}")
    for name in (*MODELS, BRAIN):
        require(name in call(program, "inspect", name, folder=scratch), f"inspect {name} does not name the model")
    call(program, "segment", EXAMPLE, "--out", "lesion.nii.gz", folder=scratch)
    truth = EXAMPLE / "lesion.nii.gz"
    call(program, "evaluate", "lesion.nii.gz", truth, "--task", "brats2021", "--out", "scores", folder=scratch)
    with (scratch / "scores" / "scores.csv").open(encoding="utf-8", newline="") as file:
        dice = max(float(row["dice"]) for row in csv.DictReader(file) if row["region"] == "whole")
    require(dice > LEAST_DICE, f"Dice of the example is {dice:.2f}, of {LEAST_DICE} at least")


def call(*command: object, folder: Path | None = None) -> str:
    """What a program writes; where it fails, its complaint ends the test."""
    words = [str(word) for word in command]
    print("+", *words, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    require(done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def require(condition: bool, sentence: str) -> None:
    """End the test with a sentence unless the condition holds."""
    if not condition:
        sys.exit(sentence)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("dist"))
    main(parser.parse_args().folder)
