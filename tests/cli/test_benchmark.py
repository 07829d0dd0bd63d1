import json
import signal
from dataclasses import replace

import pytest

from brainsegnet.benchmark.models import MODELS, SIZES
from brainsegnet.cli.bars import BenchmarkBar
from brainsegnet.errors import Interrupted
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.progress import ProgressEvent
from brainsegnet.training import loop

BASE = ("--task", "brats2015", "--steps", 1)


def event(step, progress, fold=2):
    return ProgressEvent(progress, 0.5, 12.4, step, step / 4, "original", 1.25, 1e-3, 12.34, 0.021,
                         model="unet", fold=fold, folds=5, training=progress)  # fmt: skip


def test_an_event_is_a_line_with_model_fold_and_training():
    line = BenchmarkBar().describe(event(3, 0.1))
    assert line == "unet, fold 2 of 5: original step 3: loss 1.250, 12.3 samples/s, 2% waiting for data"
    seeded = BenchmarkBar().describe(replace(event(3, 0.1), seed=4))
    assert seeded.startswith("unet, seed 4, fold 2 of 5: original")


def test_off_a_terminal_each_training_shows_a_few_lines_with_the_minutes_left(capsys):
    with BenchmarkBar() as bar:
        for fold in (1, 2):
            for number in range(100):
                bar.on_progress(event(number, number / 100, fold))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and all(line.endswith(", 12 minutes left") for line in lines)
    assert sum("fold 2 of 5" in line for line in lines) == 5


def test_benchmark_run_says_what_it_does_and_shows_the_table(run, quick, phantoms, tmp_path):
    out = tmp_path / "out"
    more = ("--models", "brainsegnet", "--sequences", "flair", "t1c", "--seed", 4, "--out", out)
    ended = run("benchmark", "run", phantoms, *BASE, "--folds", 3, *more)
    assert ended.code == 0 and ended.out.startswith(
        "task brats2015, sequences flair, t1c; 3 cases of 3 patients in 3 folds"
    )
    assert "brainsegnet, fold 3 of 3: whole 0." in ended.out and "s/scan" in ended.out
    assert ended.out.splitlines()[-1] == f"done; see {out / 'benchmark.md'}"
    assert "brainsegnet, fold 1 of 3: " in ended.err and " left\n" in ended.err
    assert json.loads((out / "benchmark.json").read_text())["settings"]["seed"] == 4
    assert json.loads((out / "settings.json").read_text())["resample"] is False
    other = run("benchmark", "run", phantoms, *BASE, "--folds", 3, *more, "--register", "--drop-sequences", 0.5)
    assert other.code == 1 and f"{out} holds a benchmark with other recipe, register; " in other.sentence
    again = run("benchmark", "run", phantoms, *BASE, "--folds", 3, *more)
    assert again.code == 0 and "3 trainings of 1 steps, 3 of them finished" in again.out and "loss" not in again.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--models", "brainsegnet", "resnet"), f"unknown model 'resnet'; choose from {', '.join((*MODELS, *SIZES))}"),
        (("--models", "unet", "--ablation"), "an ablation compares brainsegnet with itself"),
        ((), "3 cases of 3 patients cannot be dealt into 5 folds"),
        (("--folds", 4), "3 cases of 3 patients cannot be dealt into 4 folds"),
        (("--exclude", "nobody"), "no case is called nobody"),
        (("--minutes", 3), "a budget is one of epochs, steps and minutes"),
        (("--seed", -1), "seed must be 0 or more"),
        (("--seeds", 0), "seeds must be 1 or more, not 0"),
        (("--drop-sequences", 2), "the share of samples that lose sequences lies from 0 to 1"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_benchmark_run_refuses_what_cannot_be_meant(run, quick, left, phantoms, tmp_path, flags, sentence):
    ended = run("benchmark", "run", phantoms, *BASE, "--out", tmp_path / "out", *flags)
    assert ended.code in (1, 2) and sentence in ended.sentence and not left(tmp_path)


def test_ctrl_c_says_that_the_same_command_goes_on(run, quick, phantoms, tmp_path, monkeypatch):
    def interrupted(*arguments, **more):
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(loop, "fit", interrupted)
    ended = run("benchmark", "run", phantoms, *BASE, "--folds", 3, "--models", "brainsegnet", "--out", tmp_path / "out")
    assert ended.code == 130
    assert ended.sentence == (
        f"stopped by SIGINT; what is finished is in {tmp_path / 'out'}, and the same command goes on from here"
    )


def test_evaluate_and_rank_make_a_ranking_of_two_models(run, phantoms, tmp_path):
    first, second, *_ = (case.lesion for case in find_cases([phantoms]))
    for model, lesion in (("right", first), ("wrong", second)):
        predicted = tmp_path / model / "phantom0000.nii.gz"
        predicted.parent.mkdir()
        write_image(read_labels(lesion), predicted)
        flags = ("--out", tmp_path / model / "scores", "--tolerance-mm", 2, "--lesions", "brats2023")
        ended = run("evaluate", predicted, phantoms / "phantom0000", "--task", "brats2015", *flags)
        assert ended.code == 0 and "within 2 mm" in ended.out and "as in BraTS 2023" in " ".join(ended.out.split())
    scores = [tmp_path / model / "scores" / "scores.json" for model in ("wrong", "right")]
    ended = run("benchmark", "rank", *scores, "--out", tmp_path / "ranking", "--metrics", "surface_dice", "lesion_f1")
    assert ended.code == 0 and not ended.err and "whole surface_dice" in ended.out
    assert "fewer than six cases differ" in " ".join(ended.out.split())
    document = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    assert document["standings"][0]["model"] == str(tmp_path / "right" / "scores")
    assert document["metrics"] == ["surface_dice", "lesion_f1"]


def test_evaluate_names_the_definition_of_hd95(run, phantoms, shifted, tmp_path):
    definitions = {"max": ("HD95 ", "the larger of the two"), "pooled": ("HD95 pooled", "both directions together")}
    means = {}
    for name, (heading, words) in definitions.items():
        how = ("--hd95", name, "--lesions", "brats2026", "--out", tmp_path / name)
        ended = run("evaluate", shifted, phantoms, "--task", "brats2015", *how)
        assert ended.code == 0 and heading in ended.out and words in " ".join(ended.out.split())
        assert max(map(len, ended.out.splitlines())) <= 80
        page, document = (tmp_path / name / f"scores.{kind}" for kind in ("md", "json"))
        assert heading in page.read_text() and words in page.read_text() and "as in BraTS 2026" in page.read_text()
        scores = json.loads(document.read_text())
        assert scores["rules"]["hd95"] == name and words in scores["hd95_rule"]
        means[name] = scores["mean"]["whole"]["hd95_mm"]
    assert means["pooled"] <= means["max"]
    ended = run("benchmark", "rank", tmp_path / "max", tmp_path / "pooled", "--out", tmp_path / "ranking")
    assert ended.code == 1 and "evaluate all by the same" in ended.sentence


def test_flags_that_cannot_be_meant_are_refused(run, left, phantoms, tmp_path):
    lesion = find_cases([phantoms])[0].lesion
    common = ("evaluate", lesion, lesion, "--task", "brats2015", "--out", tmp_path / "out")
    ended = run(*common, "--tolerance-mm", -1)
    assert ended.code == 1 and "tolerance must be a number of millimetres from 0 up, not -1.0" in ended.sentence
    assert run(*common, "--lesions", "all").code == 2 and run(*common, "--hd95", "mean").code == 2
    ended = run("benchmark", "rank", tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "out")
    assert ended.code == 1 and "a.json cannot be read: No such file or directory" in ended.sentence
    assert "seed must be 0 or more, not -1" in run("benchmark", "rank", tmp_path / "a.json", "--seed", -1).sentence
    assert not left(tmp_path)
