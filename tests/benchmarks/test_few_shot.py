"""The few-shot measurement, on phantoms and for a step."""

import json

import pytest

from brainsegnet.model.card import ComponentFilter, Data
from brainsegnet.model.store import open_model, save_model


@pytest.fixture(scope="module")
def few_shot(benchmark_called):
    return benchmark_called("few_shot")


@pytest.fixture(scope="module")
def simulated(trained, tmp_path_factory):
    """A model that has seen none of the phantoms, by its card."""
    model = open_model(trained)
    note = model.card.training.model_copy(update={"data": Data(), "held_out": ()})
    card = model.card.model_copy(update={"name": "simulated", "training": note})
    return save_model(tmp_path_factory.mktemp("models") / "simulated", card, model.tensors()).folder


def test_fewer_cases_are_part_of_more_and_the_order_of_the_names_does_not_matter(few_shot):
    pool = [f"BraTS-GLI-{patient:05}-{scan:03}" for patient in range(5) for scan in range(2)]
    ordered = few_shot.order(pool, seed=4)
    assert sorted(ordered) == pool and few_shot.order(pool[::-1], seed=4) == ordered
    assert all(a[:15] == b[:15] for a, b in zip(ordered[::2], ordered[1::2], strict=True))
    assert len({tuple(few_shot.order(pool, seed)) for seed in range(8)}) > 1


def test_every_training_is_tested_on_the_same_unseen_cases_and_none_is_repeated(
    few_shot, simulated, phantoms, tmp_path, capsys
):
    out = tmp_path / "few.json"
    given = [
        str(phantoms),
        "--task",
        "brats2015",
        "--from",
        str(simulated),
        "--steps",
        "1",
        "--tested",
        "1",
        "--folds",
        "1",
    ]
    given += ["--threads", "1", "--out", str(out), "--parts", "flair", "t1+t2", "--cases", "1"]
    few_shot.main(given)
    first = json.loads(out.read_text())
    few_shot.main([*given, "all"])
    second = json.loads(out.read_text())
    assert second["runs"][:3] == first["runs"] and capsys.readouterr().out.count("\n") == 5
    assert [(r["origin"], r["cases"], len(r["trained"]), r["interpolated"]) for r in second["runs"]] == [
        ("simulated alone", 0, 0, 0), ("real alone", 1, 1, 0), ("simulated, then real", 1, 1, 0.5),
        ("real alone", "all", 2, 0), ("simulated, then real", "all", 2, 0.5),
    ]  # fmt: skip
    tested = {tuple(run["scores"]) for run in second["runs"]}
    assert tested == {tuple(second["settings"]["folds"][0])} and len(tested) == 1
    assert all(not set(run["trained"]) & set(run["scores"]) for run in second["runs"])
    assert {"date", "machine", "versions"} <= second.keys() and not list((tmp_path / "few").iterdir())
    assert all(set(run["parts"]) == {"flair", "t1+t2"} for run in second["runs"])
    assert all(scores.keys() == run["scores"].keys() for run in second["runs"] for scores in run["parts"].values())
    assert any(run["parts"]["flair"] != run["scores"] for run in second["runs"])
    table = out.with_suffix(".md").read_text()
    assert table.count("simulated, then real") == 6 and table.count(" t1+t2 |") == 5
    few_shot.main([*given[:-3], "--out", str(tmp_path / "real.json"), "--cases", "1", "--origins", "nothing"])
    alone = json.loads((tmp_path / "real.json").read_text())["runs"]
    assert [run["origin"] for run in alone] == ["simulated alone", "real alone"]
    with pytest.raises(SystemExit, match="was measured with other arguments"):
        few_shot.main([*given, "--seed", "1"])


def test_no_island_is_dropped_whatever_the_card_of_the_model_says(few_shot, simulated, phantoms, tmp_path, monkeypatch):
    model = open_model(simulated)
    card = model.card.model_copy(update={"components": ComponentFilter(confidence_margin=0.02)})
    dropping = save_model(tmp_path / "dropping", card, model.tensors()).folder
    kept, segment = [], few_shot.brainsegnet.segment

    def watched(cases, model, out, options, **more):
        kept.append(options.keep_all_components)
        return segment(cases, model, out, options, **more)

    monkeypatch.setattr(few_shot.brainsegnet, "segment", watched)
    given = [str(phantoms), "--task", "brats2015", "--from", str(dropping), "--steps", "1", "--tested", "1"]
    few_shot.main([*given, "--folds", "1", "--threads", "1", "--cases", "9", "--out", str(tmp_path / "few.json")])
    assert kept == [True]


def test_a_way_that_was_not_tested_on_all_cases_is_no_row_of_a_card(few_shot):
    def run(fold, origin):
        return {"fold": fold, "origin": origin, "cases": 1, "parts": {}, "scores": {fold: {"whole": {"dice": 0.5}}}}

    runs = [run("a", "real alone"), run("b", "real alone"), run("a", "simulated, then real")]
    document = {"settings": {"folds": [["a"], ["b"]], "budget": {"minutes": 2}, "parts": []}, "runs": runs}
    assert [row.origin for row in few_shot.compare(document, ["flair"])] == ["real alone"]


def test_the_card_of_a_model_with_the_same_unseen_cases_gets_the_means(few_shot, simulated, phantoms, tmp_path):
    names = tuple(sorted(folder.name for folder in phantoms.iterdir()))
    started = open_model(simulated)
    dice = dict.fromkeys(started.card.task.regions, 0.5)
    subsets = {"+".join(started.card.sequences): dice, "flair+t1c": dice}
    note = started.card.training.model_copy(update={"held_out": names, "subsets": subsets})
    model = save_model(tmp_path / "model", started.card.model_copy(update={"training": note}), started.tensors())
    few_shot.main(
        [
            str(phantoms),
            *("--task", "brats2015", "--from", str(simulated), "--steps", "1", "--tested", "1", "--threads", "1"),
            *("--cases", "all", "--origins", "nothing", "--parts", "t1c+flair"),
            *("--out", str(tmp_path / "few.json"), "--card", str(model.folder)),
        ]
    )
    simulated_alone, real_alone = open_model(model.folder).card.training.comparisons
    assert (simulated_alone.origin, simulated_alone.real_cases, simulated_alone.budget) == ("simulated alone", 0, {})
    assert (real_alone.origin, real_alone.real_cases, real_alone.budget) == ("real alone", None, {"steps": 1})
    assert list(real_alone.subsets) == list(subsets)
    runs = [run for run in json.loads((tmp_path / "few.json").read_text())["runs"] if run["origin"] == "real alone"]
    scores = [case["whole"]["dice"] for run in runs for case in run["parts"]["t1c+flair"].values()]
    assert real_alone.subsets["flair+t1c"]["whole"] == pytest.approx(sum(scores) / len(names)) and len(scores) == 3
