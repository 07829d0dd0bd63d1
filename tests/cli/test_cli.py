"""The entry point as the shell sees it: light, with exit codes that mean something, and signals that leave no mess."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from cyclopts import App

from brainsegnet.cli.app import app
from brainsegnet.io.images import read_image
from brainsegnet.model.store import open_model


def leaves(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb, those of groups too."""
    for name in group:
        if name.startswith("-"):
            continue
        if group[name].default_command is None:
            yield from leaves(group[name], (*path, name))
        else:
            yield *path, name


VERBS = tuple(leaves(app))
HEAVY = {"torch", "lightning", "SimpleITK", "numpy", "scipy", "matplotlib", "pydantic"}
START = "import sys; from brainsegnet.cli import main; "


def test_help_is_light_and_shows_an_example_of_each_verb():
    code = f"""{START}
for verb in [(), *{VERBS}]:
    sys.argv = ["brainsegnet", *verb, "--help"]
    main()
print("loaded:", *sorted({HEAVY} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nloaded:\n") and not done.stderr
    for verb in VERBS:
        assert f"Example: brainsegnet {' '.join(verb)}" in done.stdout


@pytest.mark.parametrize("verb", [(), ("paper",), ("benchmark",), *VERBS], ids=" ".join)
def test_help_ends_well(run, verb):
    ended = run(*verb, "--help")
    assert ended.code == 0 and "Usage: brainsegnet" in ended.out and not ended.err
    assert all(len(line) <= 80 for line in ended.out.splitlines()) and "--empty" not in ended.out


def test_without_a_verb_the_verbs_are_shown(run):
    assert all(verb[0] in run().out for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("fly",), 'Unknown command "fly"'),
        (("train", "data"), "train needs --task; see: brainsegnet train --help"),
        (("train",), "train needs --task; see: brainsegnet train --help"),
        (("export",), "export needs MODEL; see: brainsegnet export --help"),
        (("train", "a", "--task", "b", "--out", "c", "--recipe", "fast"), '"fast"'),
        (("train", "a", "--task", "b", "--out", "c", "--wings", "2"), 'Unknown option: "--wings"'),
        (("evaluate", "a", "b"), "evaluate needs --task; see: brainsegnet evaluate --help"),
        (("segment", "a", "--out"), "--out requires an argument"),
        (("simulate", "a", "--shape", "2", "4"), "--shape requires 3 positional arguments. Only got 2"),
        (("simulate", "out", "--cases", "two"), 'unable to convert "two" into int'),
        (("inspect", "a", "b"), "Unused Tokens"),
    ],
)
def test_a_mistyped_command_is_one_line_and_code_2(run, arguments, sentence):
    ended = run(*arguments)
    assert ended.code == 2 and sentence.replace('"', "") in ended.sentence.replace('"', "")


def hear_ctrl_c():
    """Where the tests run in the background, the shell has their processes ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def script(tmp_path, tiny, *arguments):
    """The command in a process of its own, the recipe `quick` at the size of tests."""
    path = tmp_path / "command.py"
    path.write_text(
        "import torch\n"
        "from brainsegnet.cli import main\n"
        "from brainsegnet.training import recipes\n"
        "torch.set_num_threads(1)\n"
        f"recipes.RECIPES['quick'] = recipes.Recipe.model_validate_json({tiny.model_dump_json()!r})\n"
        "main()\n"
    )
    return subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=hear_ctrl_c,
    )


def steps(out):
    with (out / "log.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if not row["dice_whole"]]


def test_ctrl_c_keeps_a_training_and_resume_finishes_it(run, quick, left, phantoms, tiny, tmp_path):
    out = tmp_path / "run"
    common = (phantoms, "--task", "brats2015", "--out", out, "--hold-out", "phantom0002")
    process = script(tmp_path, tiny, "train", *common, "--steps", 100_000)
    deadline = time.monotonic() + 300
    while not (out / "log.csv").is_file() or len(steps(out)) < 5:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "brainsegnet: stopped by SIGINT; continue with --resume" and "Traceback" not in err
    assert said.startswith("task brats2015, sequences flair, t1, t1c, t2; 2 training cases, held out: phantom0002;")

    done = steps(out)
    assert done == list(range(1, len(done) + 1)) and (out / "state.safetensors").is_file()
    assert open_model(out).folder == out / "last"
    assert not [name for name in left(out) if name.startswith(".")]

    ended = run("train", *common, "--steps", len(done) + 2, "--resume")
    assert ended.code == 0 and "done; try: brainsegnet segment" in ended.out
    assert steps(out) == list(range(1, len(done) + 3))
    assert {"best", "last", "log.csv", "log.json", "tensorboard"} <= {path.name for path in out.iterdir()}
    assert open_model(out).folder == out / "best"


@pytest.mark.parametrize(
    ("number", "code", "told"), [(signal.SIGINT, 130, "brainsegnet: interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_a_signal_to_another_verb_leaves_whole_files_only(left, tmp_path, number, code, told):
    command = [
        sys.executable,
        "-c",
        START + "main()",
        "simulate",
        str(tmp_path),
        "--cases",
        "999",
        "--shape",
        *"24 40 40".split(),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )
    assert process.stdout is not None and process.stdout.readline() == "phantom0000\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (code, told)
    files = left(tmp_path)
    assert len(files) >= 6 and not [name for name in files if "/." in name]
    assert all(read_image(tmp_path / name).shape == (24, 40, 40) for name in files[-6:] if name.endswith(".mha"))
