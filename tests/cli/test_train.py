import csv
import os
import subprocess
import sys

import pytest

from brainsegnet.model.store import open_model

TRAIN = ("--task", "brats2015", "--steps", 1)
CPU = ("--device", "cpu", "--threads", 1)


def test_train_says_what_it_will_do_and_how_it_goes(run, quick, phantoms, tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "run"
    more = ("--sequences", "t1c", "flair", "--hold-out", "phantom0001", "--exclude", "phantom0002", "--seed", 5)
    ended = run("train", phantoms, *TRAIN, "--out", out, *more, "--licence", "CC0")
    start, end, advice = ended.out.splitlines()
    assert ended.code == 0 and start.startswith(
        "task brats2015, sequences flair, t1c; 1 training case, held out: phantom0001; recipe quick, 1 steps"
    )
    assert end == f"done; try: brainsegnet segment CASE --model {out} --out lesion.nii.gz"
    assert advice == f"and for speed on a CPU, once: brainsegnet export {out} {phantoms}"
    assert "step 1: loss " in ended.err and "samples/s" in ended.err and "whole 0." in ended.err
    card = open_model(out).card
    assert card.sequences == ("flair", "t1c") and card.licence == "CC0" and card.training.seed == 5
    assert card.training.data.cases == ("phantom0000",) and card.training.held_out == ("phantom0001",)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--hold-out", "nobody"), "no case is called nobody; the cases are phantom0000, phantom0001, phantom0002"),
        (("--exclude", "nobody"), "no case is called nobody"),
        (("--sequences", "flair", "t9"), "task brats2015 has no sequence t9; choose from flair, t1, t1c, t2"),
        (("--sequences", "adc"), "task brats2015 has no sequence adc"),
        (("--minutes", 3), "a budget is one of epochs, steps and minutes, not 2 of them"),
        (("--validation", 3), "no case is left to train on: 3 found, 0 excluded, 3 held out"),
        (("--validation", -1), "validation must be 0 or more, not -1"),
        (("--devices", 0), "devices must be 1 or more, not 0"),
        (("--devices", 3), "a batch of 2 cannot be shared evenly by 3 devices"),
        (("--nodes", 0), "nodes must be 1 or more, not 0"),
        (("--seed", -1), "seed must be 0 or more, not -1"),
        (("--resume",), "holds no state of a training to resume"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_train_refuses_flags_that_cannot_be_meant(run, quick, left, phantoms, tmp_path, flags, sentence):
    ended = run("train", phantoms, *TRAIN, "--out", tmp_path / "run", *flags)
    assert ended.code in (1, 2) and sentence in ended.sentence and not left(tmp_path)


@pytest.mark.parametrize(
    "budget", [("--steps", 0), ("--steps", -4), ("--minutes", -1), ("--minutes", "nan"), ("--epochs", "inf")]
)
def test_train_refuses_a_budget_of_nothing_or_forever(run, left, phantoms, tmp_path, budget):
    ended = run("train", phantoms, "--task", "brats2015", "--out", tmp_path / "run", *budget)
    assert ended.code == 2 and "a budget is a number above zero" in ended.sentence and not left(tmp_path)


def test_train_refuses_an_unknown_task_and_a_run_that_is_there(run, phantoms, trained, tmp_path):
    ended = run("train", phantoms, "--task", "nope", "--out", tmp_path)
    assert "unknown task 'nope'; choose one of brats2015" in ended.sentence
    ended = run("train", phantoms, *TRAIN, "--out", trained)
    assert ended.code == 1 and "already holds a training; continue it with --resume" in ended.sentence


def test_simulate_names_each_phantom_and_refuses_none(run, left, tmp_path):
    ended = run("simulate", tmp_path / "a", "--cases", 2, "--seed", 3, "--shape", 24, 40, 40)
    assert ended.code == 0 and ended.out == "phantom0003\nphantom0004\n" and not ended.err
    assert len(left(tmp_path / "a")) == 12
    ended = run("simulate", tmp_path / "b", "--cases", 0)
    assert ended.code == 2 and "0 cases cannot be simulated; ask for one or more" in ended.sentence
    assert "too coarse" in run("simulate", tmp_path / "b", "--shape", 2, 2, 2).sentence
    assert "seed must be 0 or more" in run("simulate", tmp_path / "b", "--seed", -1).sentence
    assert not left(tmp_path / "b")


def test_simulate_realistic_cases(run, left, tmp_path):
    shape = ("--shape", 32, 44, 40)
    ended = run("simulate", tmp_path / "a", "--cases", 1, "--realistic", "--anatomy", "procedural", *shape)
    assert ended.code == 0 and "glioma0000" in ended.out and len(left(tmp_path / "a")) == 6
    assert "add --realistic" in run("simulate", tmp_path / "b", "--anatomy", "procedural").sentence
    assert "holds no label maps" in run("simulate", tmp_path / "b", "--realistic", "--anatomy", tmp_path).sentence


def test_simulate_white_matter_lesions(run, left, tmp_path):
    how = ("--anatomy", "procedural", "--shape", 32, 44, 40)
    ended = run("simulate", tmp_path / "a", "--cases", 1, "--realistic", "--lesion", "white-matter", *how)
    assert ended.code == 0 and ended.out == "whitematter0000\n"
    names = {f"{name}.nii.gz" for name in ("flair", "t1", "t1c", "t2", "lesion")}
    assert {name.split("/")[-1] for name in left(tmp_path / "a")} == {*names, "simulated.json"}
    assert "add --realistic" in run("simulate", tmp_path / "b", "--lesion", "white-matter").sentence
    assert run("simulate", tmp_path / "b", "--realistic", "--lesion", "cyst").code == 2
    assert not left(tmp_path / "b")


def test_simulate_strokes_and_refuse_options_that_do_not_go_together(run, left, tmp_path):
    ended = run("simulate", tmp_path / "a", "--stroke", "isles2022", "--cases", 1, "--seed", 3)
    assert ended.code == 0 and ended.out == "sub-strokephantom0003\n" and not ended.err
    assert len(left(tmp_path / "a")) == 4
    assert "add --stroke isles2022" in run("simulate", tmp_path / "b", "--shapes", tmp_path).sentence
    assert (
        "holds no lesion masks"
        in run("simulate", tmp_path / "b", "--stroke", "isles2017", "--shapes", tmp_path / "c").sentence
    )
    assert "leave out --realistic" in run("simulate", tmp_path / "b", "--stroke", "isles2022", "--realistic").sentence
    assert (
        "leave out --shape" in run("simulate", tmp_path / "b", "--stroke", "isles2022", "--shape", 40, 40, 40).sentence
    )
    assert not left(tmp_path / "b")


@pytest.mark.usefixtures("quick")
def test_train_grows_its_cases_in_memory_and_writes_none(run, left, tmp_path):
    simulated = ("--simulated", 1, "--refresh-every", 1, "--anatomy", "procedural", "--shape", 30, 40, 34)
    ended = run("train", "--task", "brats2021", *simulated, "--steps", 2, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "1 simulated glioma in memory, one new every step; anatomy procedural" in ended.out
    assert ended.out.endswith(f"brainsegnet export {tmp_path / 'run'}\n")
    assert not [name for name in left(tmp_path) if name.endswith((".mha", ".nii.gz"))]
    assert "--simulated" in run("train", "--task", "brats2021", "--out", tmp_path / "none").sentence


@pytest.mark.usefixtures("quick")
def test_train_says_that_a_model_of_few_steps_is_hardly_trained(run, phantoms, tmp_path):
    ended = run("train", phantoms, "--task", "brats2015", "--steps", 2, "--validation", 0, "--out", tmp_path / "run")
    assert ended.code == 0 and "warning: model run/last was trained for 2 steps only" in ended.err
    assert open_model(tmp_path / "run").card.training.steps == 2


def test_a_dry_run_shows_the_plan_and_writes_nothing(run, quick, left, phantoms, tmp_path):
    pytest.importorskip("torch")
    plan = ("--nodes", 2, "--dry-run", "--samples-per-second", 4, "--accelerator", "cpu")
    ended = run("train", phantoms, *TRAIN, "--out", tmp_path / "run", *plan)
    assert ended.code == 0 and not ended.err and not left(tmp_path)
    kinds = [line.partition(":")[0] for line in ended.out.splitlines()]
    assert kinds[:5] == ["batch", "length", "memory of a process", "rate of a process", "time"]
    assert ended.out.splitlines()[-1] == ("the time on 2 processes is computed from that of one, and was not measured")


def test_torchrun_starts_two_processes_with_the_losses_of_one(phantoms, tmp_path):
    """The command of the documentation, on a CPU. Only the first process writes and speaks."""
    pytest.importorskip("torch")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    common = ["-m", "brainsegnet", "train", phantoms, "--task", "brats2015", "--steps", 4, "--validation", 0]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    losses = {}
    for name, words in (("one", []), ("two", launcher)):
        command = [sys.executable, *words, *common, "--accelerator", "cpu", "--devices", 2 if words else 1]
        command += ["--out", tmp_path / name]
        done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("done; try: brainsegnet segment") == 1
        with (tmp_path / name / "log.csv").open(newline="") as file:
            losses[name] = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len({*losses["one"]}) == 4
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-3)
