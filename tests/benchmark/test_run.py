import json
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.benchmark import BenchmarkOptions
from brainsegnet.benchmark.models import OURS, ablation, choose_models, choose_specs
from brainsegnet.benchmark.run import _Progress, run_benchmark
from brainsegnet.errors import BrainSegNetError, Interrupted, OutputError, TaskError
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, write_image
from brainsegnet.progress import ProgressEvent
from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.task import BRATS2015
from brainsegnet.training import loop
from brainsegnet.training.recipes import MODERN, PAPER, QUICK
from brainsegnet.volume import Volume

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three phantoms, as small as they get."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    simulate(folder, SimulateOptions(3, 0, (24, 32, 32)))
    return folder


@pytest.fixture
def recipe(tiny):
    return tiny.model_copy(update={"patch": (16, 32, 32), "batch": 1, "averaging": 0.0})


@pytest.fixture
def ours(recipe):
    """Brain SegNet alone, in three folds."""
    return BenchmarkOptions(recipe, steps=2, models=(OURS,), folds=3)


def results(out):
    return {path.name: path.read_bytes() for path in sorted((out / "runs").glob("*.json"))}


def scores(result):
    return {name: json.loads(text)["scores"] for name, text in result.items()}


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_every_model_trains_is_scored_on_every_case_and_stands_in_the_table(data, ours, recorder, tmp_path):
    heard, models = recorder(), (OURS, "segresnet")
    done = run_benchmark(data, "brats2015", tmp_path / "out", replace(ours, models=models, folds=2), heard)
    assert tuple(done.results) == models and "2 of 2 folds by patient finished" in done.notes[0]
    for name, entry in done.results.items():
        assert list(entry.scores) == ["phantom0000", "phantom0001", "phantom0002"], name
        assert all(tuple(score) == tuple(BRATS2015.regions) for score in entry.scores.values())
        assert entry.steps == 2 and entry.samples_per_second > 0 and entry.seconds_per_scan > 0
    assert done.results["segresnet"].parameters > done.results[OURS].parameters
    markdown = (tmp_path / "out" / "benchmark.md").read_text()
    assert all(f"| {name} | " in markdown for name in models)
    assert left(tmp_path / "out" / "runs") == sorted(f"{name}-fold-{k}.json" for name in models for k in (1, 2))
    events, said = heard.events, heard.messages
    assert [(e.model, e.fold) for e in events[::2]] == [(name, fold) for fold in (1, 2) for name in models]
    assert [e.progress for e in events] == pytest.approx([k / 8 for k in range(8)])
    assert [e.training for e in events] == [0, 0.5] * 4 and {e.seed for e in events} == {None}
    assert events[0].minutes_left is None and all(e.minutes_left > 0 for e in events[1:])
    assert said[0].startswith("task brats2015, sequences flair, t1, t1c, t2; 3 cases of 3 patients in 2 folds; ")
    assert said[0].endswith("4 trainings of 2 steps, 0 of them finished") and len(said) == 5


def test_the_tested_cases_are_not_trained_on(data, ours, tmp_path, monkeypatch):
    trained, fit = [], loop.fit
    monkeypatch.setattr(
        loop, "fit", lambda scans, *rest, **more: trained.append(len(scans)) or fit(scans, *rest, **more)
    )
    run_benchmark(data, "brats2015", tmp_path / "out", ours)
    folds = json.loads((tmp_path / "out" / "settings.json").read_text())["folds"]
    assert trained == [3 - len(fold) for fold in folds]
    assert [list(json.loads(r)["scores"]) for r in results(tmp_path / "out").values()] == folds


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted benchmark, filled at its first use."""
    return tmp_path_factory.mktemp("whole") / "out"


@pytest.mark.parametrize("kill", ["signal", "crash"])
def test_a_killed_benchmark_continues_and_redoes_nothing(data, ours, whole, recorder, tmp_path, kill):
    if not whole.exists():
        run_benchmark(data, "brats2015", whole, ours)
    out, after_kill = tmp_path / "out", recorder()

    def stop(event):
        if (event.fold, event.step) == (2, 1):
            if kill == "crash":
                raise RuntimeError("killed")
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted if kill == "signal" else RuntimeError):
        run_benchmark(data, "brats2015", out, ours, recorder(stop))
    before = results(out)
    assert list(before) == ["brainsegnet-fold-1.json"]
    states = [path.name for path in (out / "runs").glob("*.safetensors")]
    assert states == (["brainsegnet-fold-2.safetensors"] if kill == "signal" else [])
    run_benchmark(data, "brats2015", out, ours, after_kill)
    assert [(event.fold, event.step) for event in after_kill.events] == [
        *([] if kill == "signal" else [(2, 1)]),
        (2, 2),
        (3, 1),
        (3, 2),
    ]
    after = results(out)
    assert after["brainsegnet-fold-1.json"] == before["brainsegnet-fold-1.json"]
    assert scores(after) == scores(results(whole)) and not list(out.rglob("*.safetensors"))


def test_a_finished_benchmark_only_writes_its_table_and_others_can_join(data, ours, whole, recorder, tmp_path):
    if not whole.exists():
        run_benchmark(data, "brats2015", whole, ours)
    before, heard, out = results(whole), recorder(), tmp_path / "out"
    shutil.copytree(whole, out)
    run_benchmark(data, "brats2015", out, ours, heard)
    assert results(out) == before and not heard.events
    done = run_benchmark(data, "brats2015", out, replace(ours, models=("segresnet", OURS)), heard)
    assert {event.model for event in heard.events} == {"segresnet"} and list(done.results) == ["segresnet", OURS]
    assert before.items() <= results(out).items()


def test_the_ablation_is_brain_segnet_trained_in_other_ways(data, recipe, tmp_path):
    done = run_benchmark(data, "brats2015", tmp_path / "out", BenchmarkOptions(recipe, steps=2, ablation=True, folds=2))
    assert list(done.results) == [spec.name for spec in ablation(recipe)] and len(done.results) == 7
    cost = {name: entry.multiply_adds_per_voxel for name, entry in done.results.items()}
    assert cost["plain training"] != cost[OURS] > cost["stride 2x2x2"] and cost["without focal"] == cost[OURS]
    assert done.results["linear refinement"].parameters < done.results[OURS].parameters


@pytest.mark.parametrize("recipe", [QUICK, MODERN, PAPER], ids=lambda recipe: recipe.name)
def test_rows_of_the_ablation_differ_in_exactly_the_value_named(recipe):
    whole, *rows = ablation(recipe)
    assert whole.recipe == recipe and whole.fused_decoder
    changed = {
        row.name: [name for name in type(recipe).model_fields if getattr(row.recipe, name) != getattr(recipe, name)]
        for row in rows
    }
    stages = ["without curriculum", "without focal", "without augmentation"]
    assert changed == {
        **{name: ["stages"] for name in stages},
        "linear refinement": ["nonlinear"],
        "stride 2x2x2": ["stride"],
        "plain training": [],
    }
    assert [row.name for row in rows if not row.fused_decoder] == ["plain training"]
    of = {row.name: row.recipe.stages for row in rows}
    assert of["without curriculum"] == recipe.stages[-1:]
    assert [
        s.model_copy(update={"gamma": t.gamma}) for s, t in zip(of["without focal"], recipe.stages, strict=True)
    ] == [*recipe.stages]
    assert {s.gamma for s in of["without focal"]} == {s.augment for s in of["without augmentation"]} == {0}
    assert [s.gamma for s in of["without augmentation"]] == [s.gamma for s in recipe.stages]


def test_the_other_refinement_is_ablated_where_the_recipe_has_one():
    other = QUICK.model_copy(update={"nonlinear": False, "stride": (2, 2, 2), "stages": QUICK.stages[-1:]})
    assert [row.name for row in ablation(other)] == [
        OURS, "without focal", "without augmentation", "refinement with ReLU", "stride 1x2x2", "plain training"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"folds": 4}, "3 cases of 3 patients cannot be dealt into 4 folds"),
        ({"folds": 1}, "there must be at least 2 folds"),
        ({"models": ("unet", "resnet")}, "unknown model 'resnet'; choose from brainsegnet, unet, vnet"),
        ({"models": ("unet", "unet")}, "name each model to compare once, not unet, unet"),
        ({"ablation": True}, "an ablation compares brainsegnet with itself; name no models"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(data, ours, tmp_path, change, sentence):
    with pytest.raises(BrainSegNetError, match=sentence):
        run_benchmark(data, "brats2015", tmp_path / "out", replace(ours, **change))
    assert not left(tmp_path)


def test_a_case_without_truth_and_a_case_under_two_names_are_refused(data, ours, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    cases = sorted(path for path in (tmp_path / "data").rglob("phantom*") if path.is_dir())
    shutil.copytree(cases[0], cases[0].with_name("someone"))
    with pytest.raises(BrainSegNetError, match="cases phantom0000 and someone hold the same scan"):
        run_benchmark(tmp_path / "data", "brats2015", tmp_path / "out", ours)
    for truth in cases[1].rglob("*OT*"):
        shutil.rmtree(truth) if truth.is_dir() else None
    with pytest.raises(BrainSegNetError, match="case phantom0001 has no label map to learn from"):
        run_benchmark(tmp_path / "data", "brats2015", tmp_path / "out", ours)
    assert not left(tmp_path / "out")


def test_another_benchmark_and_damaged_files_are_refused(data, ours, whole, tmp_path):
    if not whole.exists():
        run_benchmark(data, "brats2015", whole, ours)
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    other = replace(ours, seed=1, steps=3)
    with pytest.raises(OutputError, match=r"holds a benchmark with other (folds, )?budget, seed; continue it with"):
        run_benchmark(data, "brats2015", out, other)
    (out / "runs" / "brainsegnet-fold-2.json").write_text("{}")
    with pytest.raises(OutputError, match=r"fold-2\.json is no whole result of a benchmark; delete it"):
        run_benchmark(data, "brats2015", out, ours)
    (out / "settings.json").write_text("[1")
    with pytest.raises(OutputError, match=r"settings\.json is damaged"):
        run_benchmark(data, "brats2015", out, ours)


def test_minutes_left_are_those_at_the_speed_so_far(recorder, monkeypatch):
    now, heard = [100.0], recorder()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = _Progress(heard, finished=2, total=6)
    progress.on_progress(ProgressEvent(0.0))
    now[0] += 6
    progress.on_progress(ProgressEvent(1e-6))
    now[0] += 114
    progress.on_progress(ProgressEvent(0.5, loss=1.0))
    first, barely, second = heard.events
    assert (first.progress, first.minutes_left) == (2 / 6, None) and second.loss == 1.0
    assert barely.minutes_left is None, "a nearly zero progress would give months"
    assert (second.progress, second.minutes_left) == (2.5 / 6, pytest.approx(2 * 3.5 / 0.5))
    progress.finished = 4
    assert progress.minutes_left() == pytest.approx(2)


def test_all_folds_train_the_network_that_fits_the_smallest_of_them():
    few, many = (choose_specs(BenchmarkOptions(models=("brainsegnet", "brainsegnet-full")), n) for n in (5, 6))
    assert [spec.recipe.widths[0] for spec in (*few, *many)] == [8, 32, 16, 32]


def test_models_are_trained_by_one_recipe():
    chosen = choose_models(["vnet", OURS], QUICK)
    assert [spec.name for spec in chosen] == ["vnet", OURS] and all(spec.recipe is QUICK for spec in chosen)
    with pytest.raises(TaskError):
        choose_models(["u-net"], QUICK)


def test_a_finished_benchmark_goes_on_with_more_seeds(data, ours, whole, recorder, tmp_path):
    if not whole.exists():
        run_benchmark(data, "brats2015", whole, ours)
    out, heard, before = tmp_path / "out", recorder(), results(whole)
    shutil.copytree(whole, out)
    done = run_benchmark(data, "brats2015", out, replace(ours, seeds=2), heard)
    seen = [(event.seed, event.fold) for event in heard.events]
    assert seen == [(1, fold) for fold in (1, 2, 3) for _ in range(2)] and before.items() <= results(out).items()
    added = sorted(results(out).keys() - before.keys())
    assert added == [f"brainsegnet-fold-{fold}-seed-1.json" for fold in (1, 2, 3)]
    assert scores(results(out)) | scores(before) == scores(results(out))
    assert all(
        json.loads(results(out)[name])["scores"] != s for name, s in zip(added, scores(before).values(), strict=True)
    )
    assert "2 seeds from 0 on; folds by patient finished: 3 of 3 under seed 0, 3 of 3 under seed 1." in done.notes[0]
    assert "; seeds 0, 1; 6 trainings of 2 steps, 3 of them finished" in heard.messages[0]
    assert "brainsegnet, seed 1, fold 2 of 3: whole 0." in heard.messages[2]
    assert json.loads((out / "benchmark.json").read_text())["settings"]["seeds"] == [0, 1]
    (repeat,) = done.results[OURS].repeats
    assert repeat.keys() == done.results[OURS].scores.keys()


def test_a_training_under_the_second_seed_is_that_of_its_own(data, ours, whole, recorder, tmp_path):
    """The folds stay those of the first seed; the training is what the plan under the second gives."""
    if not whole.exists():
        run_benchmark(data, "brats2015", whole, ours)
    out = tmp_path / "out"

    def stop(event):
        if event.seed == 1 and event.fold == 2:
            raise RuntimeError("killed")

    shutil.copytree(whole, out)
    with pytest.raises(RuntimeError):
        run_benchmark(data, "brats2015", out, replace(ours, seeds=2), recorder(stop))
    document = json.loads((out / "benchmark.json").read_text())
    assert "3 of 3 under seed 0, 1 of 3 under seed 1." in document["notes"][0], "written after each fold of each seed"
    model = document["models"][OURS]
    assert len(model["cases"]) == 3 and [len(cases) for cases in model["repeats"]] == [1]
    assert all(region["seed_sd"] is None for region in model["dice"].values()), "no second mean over all cases"
    assert json.loads((out / "settings.json").read_text()) == json.loads((whole / "settings.json").read_text())


def test_other_grids_and_dropped_sequences_are_settings(data, ours, whole, tmp_path):
    if not whole.exists():
        run_benchmark(data, "brats2015", whole, ours)
    shutil.copytree(whole, tmp_path / "out")
    for changed, named in (
        ({"resample": True}, "resample"),
        ({"register": True}, "register"),
        ({"drop_sequences": 0.5}, "recipe"),
    ):
        with pytest.raises(OutputError, match=f"holds a benchmark with other {named}; continue it with"):
            run_benchmark(data, "brats2015", tmp_path / "out", replace(ours, **changed))


def test_labels_and_regions_are_settings(data, ours, whole, tmp_path):
    if not whole.exists():
        run_benchmark(data, "brats2015", whole, ours)
    shutil.copytree(whole, tmp_path / "out")
    other = BRATS2015.model_copy(update={"regions": {"all": (1, 2, 3, 4)}})
    with pytest.raises(OutputError, match="holds a benchmark with other regions; continue it with"):
        run_benchmark(data, other, tmp_path / "out", ours)
    run_benchmark(data, BRATS2015, tmp_path / "out", ours)


def test_another_grid_is_refused_or_resampled(data, ours, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    path = find_cases([tmp_path / "data"])[1].images["t2"]
    t2 = read_image(path)
    write_image(Volume(t2.array[:, :, ::2].copy(), t2.affine @ np.diag([1, 1, 2, 1.0])), path)
    with pytest.raises(BrainSegNetError, match=r"case phantom0001: t2 is \(24, 32, 16\) but flair is .*--resample"):
        run_benchmark(tmp_path / "data", "brats2015", tmp_path / "out", ours)
    allowed = replace(ours, resample=True)
    assert len(run_benchmark(tmp_path / "data", "brats2015", tmp_path / "out", allowed).results[OURS].scores) == 3


def test_there_is_at_least_one_seed():
    with pytest.raises(TaskError, match="seeds must be 1 or more, not 0"):
        BenchmarkOptions(seeds=0)
