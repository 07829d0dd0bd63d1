import json
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.benchmark.models import OURS, ablation, choose_models
from brainsegnet.benchmark.run import Clock, CompareOptions, CompareWatch, compare
from brainsegnet.errors import BrainSegNetError, OutputError, TaskError
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, write_image
from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.task import BRATS2015
from brainsegnet.training import loop
from brainsegnet.training.options import TrainOptions
from brainsegnet.training.recipes import MODERN, PAPER, QUICK, Budget
from brainsegnet.training.signals import Interrupted
from brainsegnet.volume import Volume

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Three phantoms, as small as they get."""
    folder = tmp_path_factory.mktemp("data") / "heads"
    simulate(folder, SimulateOptions(3, 0, (24, 32, 32)))
    return folder


@pytest.fixture
def training(tiny):
    recipe = tiny.model_copy(update={"patch": (16, 32, 32), "batch": 1, "averaging": 0.0})
    return TrainOptions(recipe, Budget(steps=2))


@pytest.fixture
def ours(training):
    """Brain SegNet alone, in three folds."""
    return CompareOptions((OURS,), folds=3, training=training)


def results(out):
    return {path.name: path.read_bytes() for path in sorted((out / "runs").glob("*.json"))}


def scores(result):
    return {name: json.loads(text)["scores"] for name, text in result.items()}


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_every_model_trains_is_scored_on_every_case_and_stands_in_the_table(heads, training, tmp_path):
    said, moments = [], []
    models = (OURS, "segresnet")
    options = CompareOptions(models, folds=2, training=training)
    done = compare(heads, "brats2015", tmp_path / "out", options, CompareWatch(said.append, moments.append))
    assert tuple(done.entries) == models and "2 of 2 folds by patient finished" in done.notes[0]
    for name, entry in done.entries.items():
        assert list(entry.scores) == ["phantom0000", "phantom0001", "phantom0002"], name
        assert all(tuple(score) == tuple(BRATS2015.regions) for score in entry.scores.values())
        assert entry.steps == 2 and entry.samples_per_second > 0 and entry.seconds_per_scan > 0
    assert done.entries["segresnet"].parameters > done.entries[OURS].parameters
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert all(f"| {name} | " in markdown for name in models)
    assert left(tmp_path / "out" / "runs") == sorted(f"{name}-fold-{k}.json" for name in models for k in (1, 2))
    assert [(m.model, m.fold) for m in moments[::2]] == [(name, fold) for fold in (1, 2) for name in models]
    assert [m.progress for m in moments] == pytest.approx([k / 8 for k in range(8)])
    assert moments[0].minutes_left is None and all(m.minutes_left > 0 for m in moments[1:])
    assert said[0].startswith("task brats2015, sequences flair, t1, t1c, t2; 3 cases of 3 patients in 2 folds; ")
    assert said[0].endswith("4 trainings of 2 steps, 0 of them finished") and len(said) == 5


def test_the_tested_cases_are_not_trained_on(heads, ours, tmp_path, monkeypatch):
    trained, fit = [], loop.fit
    monkeypatch.setattr(
        loop, "fit", lambda scans, *rest, **more: trained.append(len(scans)) or fit(scans, *rest, **more)
    )
    compare(heads, "brats2015", tmp_path / "out", ours)
    folds = json.loads((tmp_path / "out" / "settings.json").read_text())["folds"]
    assert trained == [3 - len(fold) for fold in folds]
    assert [list(json.loads(r)["scores"]) for r in results(tmp_path / "out").values()] == folds


@pytest.fixture(scope="module")
def whole(heads, tmp_path_factory):
    """An uninterrupted comparison, filled at its first use."""
    return tmp_path_factory.mktemp("whole") / "out"


@pytest.mark.parametrize("kill", ["signal", "crash"])
def test_a_killed_comparison_continues_and_redoes_nothing(heads, ours, whole, tmp_path, kill):
    if not whole.exists():
        compare(heads, "brats2015", whole, ours)
    out, seen = tmp_path / "out", []

    def stop(moment):
        if (moment.fold, moment.record.step) == (2, 1):
            if kill == "crash":
                raise RuntimeError("killed")
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted if kill == "signal" else RuntimeError):
        compare(heads, "brats2015", out, ours, CompareWatch(step=stop))
    before = results(out)
    assert list(before) == ["brainsegnet-fold-1.json"]
    states = [path.name for path in (out / "runs").glob("*.safetensors")]
    assert states == (["brainsegnet-fold-2.safetensors"] if kill == "signal" else [])
    compare(heads, "brats2015", out, ours, CompareWatch(step=lambda m: seen.append((m.fold, m.record.step))))
    assert seen == [*([] if kill == "signal" else [(2, 1)]), (2, 2), (3, 1), (3, 2)]
    after = results(out)
    assert after["brainsegnet-fold-1.json"] == before["brainsegnet-fold-1.json"]
    assert scores(after) == scores(results(whole)) and not list(out.rglob("*.safetensors"))


def test_a_finished_comparison_only_writes_its_table_and_others_can_join(heads, ours, whole, tmp_path):
    if not whole.exists():
        compare(heads, "brats2015", whole, ours)
    before, seen, out = results(whole), [], tmp_path / "out"
    shutil.copytree(whole, out)
    watch = CompareWatch(step=lambda moment: seen.append(moment.model))
    compare(heads, "brats2015", out, ours, watch)
    assert results(out) == before and not seen
    done = compare(heads, "brats2015", out, replace(ours, models=("segresnet", OURS)), watch)
    assert set(seen) == {"segresnet"} and list(done.entries) == ["segresnet", OURS]
    assert before.items() <= results(out).items()


def test_the_ablation_is_ours_trained_in_other_ways(heads, training, tmp_path):
    options = CompareOptions(ablation=True, folds=2, training=training)
    done = compare(heads, "brats2015", tmp_path / "out", options)
    assert list(done.entries) == [c.name for c in ablation(training.recipe)] and len(done.entries) == 7
    cost = {name: entry.multiply_adds_per_voxel for name, entry in done.entries.items()}
    assert cost["plain training"] != cost[OURS] > cost["stride 2x2x2"] and cost["without focal"] == cost[OURS]
    assert done.entries["linear refinement"].parameters < done.entries[OURS].parameters


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


def test_the_other_reading_is_ablated_where_the_recipe_has_one():
    other = QUICK.model_copy(update={"nonlinear": False, "stride": (2, 2, 2), "stages": QUICK.stages[-1:]})
    assert [row.name for row in ablation(other)] == [
        OURS, "without focal", "without augmentation", "refinement with ReLU", "stride 1x2x2", "plain training"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"folds": 4}, "3 cases of 3 patients cannot be dealt into 4 folds"),
        ({"folds": 1}, "a comparison needs at least 2 folds"),
        ({"models": ("unet", "resnet")}, "unknown model 'resnet'; choose from brainsegnet, unet, vnet"),
        ({"models": ("unet", "unet")}, "name each model to compare once, not unet, unet"),
        ({"ablation": True}, "an ablation compares brainsegnet with itself; name no models"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(heads, ours, tmp_path, change, sentence):
    with pytest.raises(BrainSegNetError, match=sentence):
        compare(heads, "brats2015", tmp_path / "out", replace(ours, **change))
    assert not left(tmp_path)


def test_a_case_without_truth_and_a_case_under_ours_names_are_refused(heads, ours, tmp_path):
    shutil.copytree(heads, tmp_path / "data")
    cases = sorted(path for path in (tmp_path / "data").rglob("phantom*") if path.is_dir())
    shutil.copytree(cases[0], cases[0].with_name("someone"))
    with pytest.raises(BrainSegNetError, match="cases phantom0000 and someone hold the same scan"):
        compare(tmp_path / "data", "brats2015", tmp_path / "out", ours)
    for truth in cases[1].rglob("*OT*"):
        shutil.rmtree(truth) if truth.is_dir() else None
    with pytest.raises(BrainSegNetError, match="case phantom0001 has no label map to learn from"):
        compare(tmp_path / "data", "brats2015", tmp_path / "out", ours)
    assert not left(tmp_path / "out")


def test_held_out_cases_have_no_place_in_a_comparison(heads, ours, training, tmp_path):
    held = replace(ours, training=replace(training, hold_out=("phantom0000",)))
    with pytest.raises(BrainSegNetError, match="a comparison tests every case in its fold"):
        compare(heads, "brats2015", tmp_path / "out", held)


def test_another_comparison_and_damaged_files_are_refused(heads, ours, training, whole, tmp_path):
    if not whole.exists():
        compare(heads, "brats2015", whole, ours)
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    other = replace(ours, training=replace(training, seed=1, budget=Budget(steps=3)))
    with pytest.raises(OutputError, match=r"holds a comparison with other (folds, )?budget, seed; continue it with"):
        compare(heads, "brats2015", out, other)
    (out / "runs" / "brainsegnet-fold-2.json").write_text("{}")
    with pytest.raises(OutputError, match=r"fold-2\.json is no whole result of a comparison; delete it"):
        compare(heads, "brats2015", out, ours)
    (out / "settings.json").write_text("[1")
    with pytest.raises(OutputError, match=r"settings\.json is damaged"):
        compare(heads, "brats2015", out, ours)


def test_a_clock_tells_the_time_that_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(finished=2, total=6)
    assert clock.read(0) == (2 / 6, None)
    now[0] += 120
    assert clock.read(0.5) == (2.5 / 6, pytest.approx(2 * 3.5 / 0.5))
    clock.finished = 4
    assert clock.read(0) == (4 / 6, pytest.approx(2))


def test_all_folds_train_the_network_that_fits_the_smallest_of_them():
    few, many = (CompareOptions(("brainsegnet", "brainsegnet-full")).contenders(n) for n in (5, 6))
    assert [c.recipe.widths[0] for c in (*few, *many)] == [8, 32, 16, 32]


def test_models_are_contenders_under_one_recipe():
    chosen = choose_models(["vnet", OURS], QUICK)
    assert [c.name for c in chosen] == ["vnet", OURS] and all(c.recipe is QUICK for c in chosen)
    with pytest.raises(TaskError):
        choose_models(["u-net"], QUICK)


def test_a_comparison_from_before_goes_on_with_more_seeds(heads, ours, whole, tmp_path):
    """Its files are as they were then: without the settings and the fields that came since."""
    if not whole.exists():
        compare(heads, "brats2015", whole, ours)
    out, seen, said = tmp_path / "out", [], []
    shutil.copytree(whole, out)
    settings = json.loads((out / "settings.json").read_text())
    del settings["resample"], settings["register"]
    (out / "settings.json").write_text(json.dumps(settings))
    for path in (out / "runs").glob("*.json"):
        result = json.loads(path.read_text())
        del result["seed"], result["whole_grid"], result["notes"]
        path.write_text(json.dumps(result))
    before = results(out)
    watch = CompareWatch(said.append, lambda moment: seen.append((moment.seed, moment.fold)))
    done = compare(heads, "brats2015", out, replace(ours, seeds=2), watch)
    assert seen == [(1, fold) for fold in (1, 2, 3) for _ in range(2)] and before.items() <= results(out).items()
    added = sorted(results(out).keys() - before.keys())
    assert added == [f"brainsegnet-fold-{fold}-seed-1.json" for fold in (1, 2, 3)]
    assert scores(results(out)) | scores(before) == scores(results(out))
    assert all(
        json.loads(results(out)[name])["scores"] != s for name, s in zip(added, scores(before).values(), strict=True)
    )
    assert "2 seeds from 0 on; folds by patient finished: 3 of 3 under seed 0, 3 of 3 under seed 1." in done.notes[0]
    assert done.notes[2].startswith("3 of 6 trainings were tested by an earlier version")
    assert "; seeds 0, 1; 6 trainings of 2 steps, 3 of them finished" in said[0]
    assert json.loads((out / "comparison.json").read_text())["settings"]["seeds"] == [0, 1]
    (repeat,) = done.entries[OURS].repeats
    assert repeat.keys() == done.entries[OURS].scores.keys()


def test_a_training_under_the_second_seed_is_that_of_its_own(heads, ours, whole, tmp_path):
    """The folds stay those of the first seed; the training is what the plan under the second gives."""
    if not whole.exists():
        compare(heads, "brats2015", whole, ours)
    out = tmp_path / "out"
    seen = []

    def stop(moment):
        seen.append((moment.seed, moment.fold, moment.model))
        if moment.seed == 1 and moment.fold == 2:
            raise RuntimeError("killed")

    shutil.copytree(whole, out)
    with pytest.raises(RuntimeError):
        compare(heads, "brats2015", out, replace(ours, seeds=2), CompareWatch(step=stop))
    document = json.loads((out / "comparison.json").read_text())
    assert "3 of 3 under seed 0, 1 of 3 under seed 1." in document["notes"][0], "written after each fold of each seed"
    model = document["models"][OURS]
    assert len(model["cases"]) == 3 and [len(cases) for cases in model["repeats"]] == [1]
    assert all(region["seed_sd"] is None for region in model["dice"].values()), "no second mean over all cases"
    assert json.loads((out / "settings.json").read_text()) == json.loads((whole / "settings.json").read_text())


def test_other_grids_and_dropped_sequences_are_settings(heads, ours, training, whole, tmp_path):
    if not whole.exists():
        compare(heads, "brats2015", whole, ours)
    shutil.copytree(whole, tmp_path / "out")
    for changed, named in (
        ({"resample": True}, "resample"),
        ({"register": True}, "register"),
        ({"drop_sequences": 0.5}, "recipe"),
    ):
        with pytest.raises(OutputError, match=f"holds a comparison with other {named}; continue it with"):
            compare(heads, "brats2015", tmp_path / "out", replace(ours, training=replace(training, **changed)))


def test_labels_and_regions_are_settings_save_where_they_were_not_written_down(heads, ours, whole, tmp_path):
    if not whole.exists():
        compare(heads, "brats2015", whole, ours)
    shutil.copytree(whole, tmp_path / "out")
    other = BRATS2015.model_copy(update={"regions": {"all": (1, 2, 3, 4)}})
    with pytest.raises(OutputError, match="holds a comparison with other regions; continue it with"):
        compare(heads, other, tmp_path / "out", ours)
    path = tmp_path / "out" / "settings.json"
    former = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in former.items() if name not in ("labels", "regions")}))
    compare(heads, BRATS2015, tmp_path / "out", ours)
    assert json.loads(path.read_text()) == former


def test_another_grid_is_refused_or_resampled(heads, ours, training, tmp_path):
    shutil.copytree(heads, tmp_path / "data")
    path = find_cases([tmp_path / "data"])[1].images["t2"]
    t2 = read_image(path)
    write_image(Volume(t2.array[:, :, ::2].copy(), t2.affine @ np.diag([1, 1, 2, 1.0])), path)
    with pytest.raises(BrainSegNetError, match=r"case phantom0001: t2 is \(24, 32, 16\) but flair is .*--resample"):
        compare(tmp_path / "data", "brats2015", tmp_path / "out", ours)
    allowed = replace(ours, training=replace(training, resample=True))
    assert len(compare(tmp_path / "data", "brats2015", tmp_path / "out", allowed).entries[OURS].scores) == 3


def test_there_is_at_least_one_seed():
    with pytest.raises(TaskError, match="seeds must be 1 or more, not 0"):
        CompareOptions(seeds=0)
