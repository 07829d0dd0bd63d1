"""Models made ready to be shipped, and scored on what they have not seen."""

from itertools import pairwise
from shutil import copytree

import numpy as np
import pytest
import torch

from brainsegnet.errors import DatasetError, ModelError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.segmentation import expected_dice
from brainsegnet.inference.uncertainty import volume_interval
from brainsegnet.model.card import Comparison, IntervalNote, Parent
from brainsegnet.model.store import Candidate, choose_model, open_model, resolve_model, save_model, shipped_models
from brainsegnet.pipeline.segment import segment
from brainsegnet.reporting.inspect import describe_unseen
from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.task import BRATS2015, BRATS2021, ISLES2017, ISLES2022
from brainsegnet.training import TrainOptions
from brainsegnet.training.train import train
from release.calibration import ALPHAS, MARGINS, choose_alpha, largest_alpha
from release.release import Unseen, bound_with, compare_with, release
from release.reliability import describe_reliability, find_tallies
from release.validation import (
    calibrate,
    choose_alphas,
    choose_margins,
    find_alphas,
    held_out_scans,
    other_scans,
    parts_of,
    score_parts,
    try_margins,
)


@pytest.fixture(scope="module")
def runs(phantoms, tiny, tmp_path_factory):
    """A model of all phantoms, and two folds that each leave some out."""
    folder, recipe = tmp_path_factory.mktemp("runs"), tiny.model_copy(update={"drop_sequences": 0.5})
    for name, held in {"whole": (), "one": ("phantom0000", "phantom0001"), "two": ("phantom0002",)}.items():
        options = TrainOptions(recipe, steps=2, hold_out=held, validation=0, validations=0)
        train(phantoms, "brats2015", folder / name, options)
    return folder


@pytest.fixture(scope="module")
def home(runs, phantoms, tmp_path_factory):
    """A folder with one shipped model, `tiny`."""
    folder = tmp_path_factory.mktemp("package") / "models"
    release(runs / "whole", [runs / "one", runs / "two"], [phantoms], folder / "tiny")
    return folder


def test_the_weights_are_halved_and_run_where_torch_is_not_installed(home, runs):
    model = shipped_models(home)["tiny"]
    half, whole = model.tensors(), open_model(runs / "whole").tensors()
    assert {t.dtype for t in half.values() if t.is_floating_point()} == {torch.float16}
    assert all(torch.allclose(half[name].float(), whole[name].float(), rtol=1e-3, atol=1e-4) for name in whole)
    assert set(model.card.exports) == {"fp16", "int8"} and model.build()


def test_the_card_tells_what_every_part_of_the_sequences_reaches(home):
    card = shipped_models(home)["tiny"].card
    assert set(card.training.subsets) == {"+".join(part) for part in parts_of(card.sequences)}
    assert len(card.training.subsets) == 15 and set(card.intervals) == set(card.task.regions)
    for note in card.intervals.values():
        assert set(note.subsets) == set(card.training.subsets) - {"+".join(card.sequences)}


def test_the_card_tells_how_far_probabilities_are_to_be_trusted(home, runs, phantoms):
    card = shipped_models(home)["tiny"].card
    tallies = {}
    for fold in ("one", "two"):
        model = open_model(runs / fold / "last")
        tallies |= find_tallies(model, held_out_scans(model, [phantoms]))
    assert len(tallies) == 3 and card.calibration == describe_reliability(tallies)
    assert set(card.calibration) == set(card.task.regions)
    scans = [scan for fold in ("one", "two") for scan in held_out_of(runs / fold, phantoms)]
    for region, classes in zip(card.task.regions, card.task.region_classes, strict=True):
        bins = (card.calibration[region].below, *card.calibration[region].bins)
        assert sum(one.voxels for one in bins) == sum(int((scan.image != 0).any(0).sum()) for scan in scans)
        true = sum(np.isin(scan.classes[(scan.image != 0).any(0)], classes).sum() for scan in scans)
        assert sum((one.share or 0) * one.voxels for one in bins) == pytest.approx(true, rel=1e-3)


def held_out_of(fold, phantoms):
    """The scans that a fold has not seen."""
    return held_out_scans(open_model(fold / "last"), [phantoms]).values()


def test_a_case_with_less_gets_the_dice_of_what_it_has(home, phantoms, tmp_path):
    model = shipped_models(home)["tiny"]
    files = {"t1c": next(phantoms.rglob("*T1c*.mha"))}
    report = (
        segment(files, model.folder, tmp_path / "out.nii.gz", SegmentOptions(uncertainty=True, allow_poor=True))
        .done[0]
        .report
    )
    assert report["validation"] == expected_dice(model.card, ["t1c"]) and len(report["validation"]) == 2
    for region, interval in report["uncertainty"]["volume_intervals"].items():
        assert interval["least_ml"] <= interval["most_ml"] and region in model.card.task.regions
        subset = model.card.intervals[region].subsets["t1c"]
        assert interval["sequences"] == ["t1c"] and interval["alpha"] == pytest.approx(subset.alpha, rel=1e-3)
        assert (interval["coverage"], interval["cases"]) == (subset.coverage, 3)
    assert (tmp_path / report["uncertainty"]["entropy"]).is_file()


def test_scores_with_all_sequences_are_those_of_the_whole_scan(trained, phantoms):
    model = open_model(trained / "last")
    scans = held_out_scans(model, [phantoms])
    assert list(scans) == ["phantom0002"]
    whole = score_parts(model, scans)[0]["phantom0002"]
    assert all(0 <= value <= 1 for regions in whole.values() for value in regions.values())


def test_an_interval_may_miss_by_a_volume_that_does_not_matter(trained, phantoms, monkeypatch):
    model = open_model(trained / "last")
    scans = held_out_scans(model, [phantoms])
    monkeypatch.setattr("release.validation.SLACK_ML", 0.0)
    strict = find_alphas(model, scans)["phantom0002"]["flair+t1+t1c+t2"]
    monkeypatch.setattr("release.validation.SLACK_ML", 1e6)
    loose = find_alphas(model, scans)["phantom0002"]
    assert len(loose) == 15 and all(set(one.values()) == {ALPHAS[0]} for one in loose.values())
    assert min(strict.values()) < ALPHAS[0]


GOOD, BAD = {"lesion": 0.8}, {"lesion": 0.5}


def test_each_case_is_scored_with_the_margin_that_other_patients_ask_for():
    trials = {name: {None: BAD, 0.1: GOOD, 0.2: BAD} for name in "abcdef"} | {"g": {None: BAD, 0.1: BAD, 0.2: GOOD}}
    margin, margins = choose_margins(trials)
    assert margin == 0.1 and margins == dict.fromkeys("abcdefg", 0.1)
    few, none = choose_margins({name: trials[name] for name in "abcde"})
    assert few is None and none == dict.fromkeys("abcde")


def test_scans_of_one_patient_do_not_choose_each_others_margin():
    scans = [f"BraTS-GLI-00001-00{k}" for k in range(5)]
    trials = {name: {None: BAD, 0.1: {"lesion": 0.99}, 0.2: GOOD} for name in scans}
    trials |= {f"BraTS-GLI-0000{k}-000": {None: BAD, 0.1: {"lesion": 0.7}, 0.2: GOOD} for k in (2, 3)}
    assert choose_margins(trials)[1][scans[0]] == 0.2 and choose_margins(trials)[0] == 0.1


def test_no_margin_is_shipped_that_does_not_help_cases_left_out_or_that_costs_a_region():
    assert choose_margins({name: {None: GOOD, 0.1: BAD} for name in "abcdefg"}) == (None, dict.fromkeys("abcdefg"))
    streams = {name: {None: BAD, 0.1: GOOD if name == "a" else {"lesion": 0.47}} for name in "abcdef"}
    assert np.mean([trial[0.1]["lesion"] for trial in streams.values()]) > 0.52, "in the mean it helps"
    assert choose_margins(streams) == (None, dict.fromkeys("abcdef"))
    uneven = {name: {None: {"whole": 0.5, "core": 0.5}, 0.1: {"whole": 0.7, "core": 0.49}} for name in "abcdefg"}
    assert choose_margins(uneven) == (None, dict.fromkeys("abcdefg"))


def test_scores_and_tails_are_those_of_what_is_left(trained, phantoms, noisy_predictor, monkeypatch):
    model = open_model(trained / "last")
    scans = held_out_scans(model, [phantoms])
    (name,), full = scans, "+".join(model.card.sequences)
    monkeypatch.setattr("release.validation.open_engine", lambda *_: noisy_predictor(model.card.task.classes))
    trials = try_margins(model, scans)[name]
    assert list(trials) == [None, *MARGINS] and trials[None] != trials[0.02]
    for margin in (None, 0.02):
        left, kept = score_parts(model, scans, margins={name: margin})
        assert left[name][full] == pytest.approx(trials[margin], abs=1e-4)
        assert kept[name][full] == pytest.approx(trials[None], abs=1e-4) and kept == score_parts(model, scans)[0]
    assert (
        find_alphas(model, scans, {name: None}) == find_alphas(model, scans) != find_alphas(model, scans, {name: 0.02})
    )


def test_the_card_has_the_margin_and_both_kinds_of_scores(runs, phantoms, noisy_predictor, tmp_path, monkeypatch):
    monkeypatch.setattr("release.validation.open_engine", lambda model, _: noisy_predictor(model.card.task.classes))
    chosen = 0.02, dict.fromkeys((f"phantom000{k}" for k in range(3)), 0.02)
    monkeypatch.setattr("release.release.choose_margins", lambda trials: chosen)
    card = release(runs / "whole", [runs / "one", runs / "two"], [phantoms], tmp_path / "tiny").card
    assert card.components.confidence_margin == 0.02 and set(card.components.kept) == set(card.training.subsets)
    assert card.components.kept != card.training.subsets
    kept = []
    for fold in ("one", "two"):
        model = open_model(runs / fold / "last")
        kept += score_parts(model, held_out_scans(model, [phantoms]))[1].values()
    full = "+".join(model.card.sequences)
    whole = [scores[full]["whole"] for scores in kept]
    assert card.components.kept[full]["whole"] == pytest.approx(np.mean(whole), abs=1e-4)


def test_the_card_says_that_each_score_is_of_an_unseen_case(home):
    training = shipped_models(home)["tiny"].card.training
    assert training.folds == 2 and set(training.held_out) == set(training.data.cases) and len(training.held_out) == 3


@pytest.mark.parametrize(
    ("folds", "sentence"),
    [(["one", "one"], "phantom0002 is held out by no fold"), (["one", "two", "two"], "held out by two folds")],
)
def test_folds_that_do_not_leave_each_case_out_once_are_refused(runs, phantoms, tmp_path, folds, sentence):
    with pytest.raises(DatasetError, match=sentence):
        release(runs / "whole", [runs / fold for fold in folds], [phantoms], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_what_was_trained_on_besides_needs_no_fold(runs, phantoms, tmp_path):
    """Simulated cases beside real ones are no patients: they are named on the card, and not scored."""
    scored = [folder for folder in sorted(phantoms.iterdir()) if folder.name != "phantom0002"]
    card = release(runs / "whole", [runs / "one"], scored, tmp_path / "model").card
    assert card.training.held_out == ("phantom0000", "phantom0001") and "phantom0002" in card.training.data.cases


def test_a_fold_whose_parent_knew_the_case_is_refused(runs, phantoms, tmp_path):
    two = open_model(runs / "two" / "last")
    started = two.card.training.model_copy(update={"started_from": Parent(name="elder", seen=("phantom0002",))})
    save_model(tmp_path / "two" / "last", two.card.model_copy(update={"training": started}), two.tensors())
    with pytest.raises(DatasetError, match="phantom0002 is held out, but model elder was trained on this patient"):
        release(runs / "whole", [runs / "one", tmp_path / "two"], [phantoms], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_fold_that_started_from_other_weights_is_refused(runs, phantoms, tmp_path):
    two = open_model(runs / "two" / "last")
    started = two.card.training.model_copy(update={"started_from": Parent(name="other", sha256="0" * 64)})
    save_model(tmp_path / "two" / "last", two.card.model_copy(update={"training": started}), two.tensors())
    with pytest.raises(DatasetError, match="two/last started from other weights than"):
        release(runs / "whole", [runs / "one", tmp_path / "two"], [phantoms], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def row(model, origin, value, **others):
    """Of other models on the same cases: the same Dice everywhere."""
    dice = dict.fromkeys(model.card.task.regions, value)
    return Comparison(**{"origin": origin, "subsets": {"t1c": dice, "flair+t1c": dice}, **others})


def test_a_card_tells_what_other_ways_to_make_the_model_reach(home, tmp_path):
    model = open_model(copytree(home / "tiny", tmp_path / "tiny"))
    tested = model.card.training.held_out
    alone, few, more = (row(model, "real alone", value, real_cases=n) for value, n in ((0.3, None), (0.1, 1), (0.2, 2)))
    compare_with(model.folder, [alone, few], tested)
    again = row(model, "real alone", 0.4, real_cases=1, budget={"minutes": 5})
    compare_with(model.folder, [more, again], tested)
    card = open_model(model.folder).card
    assert card.training.comparisons == (alone, more, again)
    assert card == model.card.model_copy(update={"training": card.training})
    assert card.training.model_copy(update={"comparisons": ()}) == model.card.training
    assert open_model(model.folder).exported("int8").is_file()


def test_what_was_scored_otherwise_is_not_set_beside_a_model(home, tmp_path):
    model = open_model(copytree(home / "tiny", tmp_path / "tiny"))
    tested, dice = model.card.training.held_out, dict.fromkeys(model.card.task.regions, 0.5)
    with pytest.raises(ModelError, match="are of other cases than these: phantom0002 is"):
        compare_with(model.folder, [row(model, "real alone", 0.3)], tested[:2])
    for subsets in ({"dwi": dice}, {"flair": {"whole": 0.5}}):
        with pytest.raises(ModelError, match=f"no scores to compare with those of another way, {next(iter(subsets))}"):
            compare_with(model.folder, [row(model, "another way", 0.3, subsets=subsets)], tested)
    assert open_model(model.folder).card == model.card


def test_intervals_of_the_same_cases_replace_those_on_the_card(home, tmp_path):
    model = open_model(copytree(home / "tiny", tmp_path / "tiny"))
    tested, regions = model.card.training.held_out, model.card.task.regions
    notes = {region: IntervalNote(alpha=0.02, coverage=0.9, cases=len(tested)) for region in regions}
    bound_with(model.folder, notes, tested)
    card = open_model(model.folder).card
    assert card.intervals == notes and card == model.card.model_copy(update={"intervals": notes})
    assert open_model(model.folder).exported("int8").is_file()
    with pytest.raises(ModelError, match="are of other cases than these: phantom0002 is"):
        bound_with(model.folder, notes, tested[:2])
    with pytest.raises(ModelError, match="has the regions whole, core, enhancing"):
        bound_with(model.folder, {"whole": IntervalNote()}, tested)
    assert open_model(model.folder).card == card
    other = {region: card.calibration["core"] for region in regions}
    assert bound_with(model.folder, notes, tested, other).card.calibration == other


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A case that none of the runs has seen."""
    (folder,) = simulate(tmp_path_factory.mktemp("elsewhere"), SimulateOptions(1, 500, (24, 40, 40)))
    return folder.parent


def test_a_model_of_simulated_cases_is_scored_on_cases_from_elsewhere(runs, phantoms, elsewhere, tmp_path):
    unseen = Unseen([elsewhere], "simulated in another way")
    card = release(runs / "whole", [], [phantoms], tmp_path / "simulated", unseen=unseen).card
    assert card.training.held_out == ("phantom0500",) and card.training.folds == 0
    scans = other_scans(open_model(runs / "whole" / "last"), [elsewhere])
    expected = score_parts(open_model(runs / "whole" / "last"), scans)[0]["phantom0500"]
    assert card.training.subsets == expected
    assert describe_unseen(card) == "1 case (simulated in another way): phantom0500"
    files = {"t1c": next(elsewhere.rglob("*T1c*.mha"))}
    allowed = SegmentOptions(allow_poor=True)
    report = segment(files, tmp_path / "simulated", tmp_path / "out.nii.gz", allowed).done[0].report
    assert report["validated_on"] == "simulated in another way" and len(report["validation"]) == 2


def test_a_model_is_not_scored_on_what_it_has_seen_nor_in_two_ways(runs, phantoms, elsewhere, tmp_path):
    with pytest.raises(DatasetError, match=r"phantom0000 is held out, but model .* was trained on this patient"):
        release(runs / "whole", [], [phantoms], tmp_path / "wrong", unseen=Unseen([phantoms], "the same"))
    with pytest.raises(DatasetError, match="those of folds or of unseen cases, not of both"):
        release(runs / "whole", [runs / "one"], [phantoms], tmp_path / "wrong", unseen=Unseen([elsewhere], "others"))
    assert not (tmp_path / "wrong").exists()


def test_models_are_found_by_name_and_by_what_they_take(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_model(home / "tiny").folder == resolve_model(type(home)("tiny"), home).folder
    assert choose_model({"a": Candidate(["flair"])}, home).model.card.name == "tiny"
    with pytest.raises(Exception, match="takes dwi"):
        choose_model({"a": Candidate(["dwi"])}, home)


def ship(home, folder, **models):
    """A folder of models by name: their task and their sequences."""
    tiny = open_model(home / "tiny")
    for name, (task, sequences) in models.items():
        given = tiny.card.input.model_copy(update={"sequences": sequences})
        card = tiny.card.model_copy(update={"name": name, "task": task, "input": given})
        save_model(folder / name, card, tiny.tensors())
    return folder


def choose(folder, *sequences, disease="", source="it"):
    return choose_model({"a": Candidate(sequences, disease, source)}, folder)


def test_cases_that_call_for_different_models_are_refused_and_the_remedy_named(home, tmp_path):
    glioma, stroke = (BRATS2015, ("flair", "t1", "t1c")), (ISLES2022, ("dwi", "adc", "tmax", "mtt"))
    folder = ship(home, tmp_path, glioma=glioma, stroke=stroke)
    pet, scans = Candidate(["pet"]), Candidate(["flair", "t1"])
    assert choose_model({"a": scans, "b": Candidate(["t1c"]), "c": pet}, folder).model.folder.name == "glioma"
    assert choose_model({"c": pet, "a": Candidate(["flair", "dwi", "adc"])}, folder).model.folder.name == "stroke"
    with pytest.raises(
        ModelError,
        match=r"case a calls for model glioma \(there is no DWI or ADC\), case b for model stroke "
        r"\(DWI and ADC mean stroke\); name one with --model",
    ):
        choose_model({"a": scans, "b": Candidate(["dwi", "adc"])}, folder)


def test_of_models_for_a_disease_that_use_as_much_the_one_that_lacks_least_is_chosen(home, tmp_path):
    wide, stroke = (ISLES2017, ("adc", "mtt", "rcbf", "tmax")), (ISLES2022, ("dwi", "adc"))
    ship(home, tmp_path, **{"a-wide": wide, "stroke": stroke})
    assert choose(tmp_path, "adc").model.card.name == "stroke"
    assert choose(tmp_path, "adc", "dwi", "mtt").model.card.name == "stroke"
    assert choose(tmp_path, "adc", "mtt", "tmax").model.card.name == "a-wide"


def test_the_default_model_follows_the_disease_and_says_why(home, tmp_path):
    tumour, stroke = (BRATS2021, ("flair", "t1", "t1c", "t2")), (ISLES2022, ("dwi", "adc"))
    ship(home, tmp_path, tumour=tumour, stroke=stroke, perfusion=(ISLES2017, ("adc", "mtt", "tmax")))
    tumours = ("flair", "t1", "t1c", "t2")
    assert choose(tmp_path, *tumours)[1] == "there is no DWI or ADC"
    model, reason = choose(tmp_path, *tumours, "adc")
    assert (model.card.name, reason) == ("stroke", "ADC means stroke")
    model, reason = choose(tmp_path, *tumours, "dwi", disease="tumour", source="the layout (X)")
    assert (model.card.name, reason) == ("tumour", "the layout (X) means tumour")
    model, reason = choose(tmp_path, "mtt", "tmax")
    assert (model.card.name, reason) == ("perfusion", "it alone takes mtt, tmax")
    with pytest.raises(ModelError, match="no model of the package for stroke takes flair"):
        choose(tmp_path, "flair", disease="stroke")


@pytest.mark.parametrize("disease", ["multiple sclerosis", "hippocampus"])
def test_a_disease_without_a_model_is_refused_though_a_model_takes_the_sequences(home, tmp_path, disease):
    ship(home, tmp_path, tumour=(BRATS2021, ("flair", "t1")))
    with pytest.raises(ModelError, match=rf"case a: it means {disease}, for which the package has no model .*--model"):
        choose(tmp_path, "flair", "t1", disease=disease)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_the_tail_of_eleven_cases_holds_the_twelfth_as_often_as_is_asked(coverage):
    """Whatever they are: as often as the cases are exchangeable. The share of the eleven themselves would not do."""
    rng = np.random.default_rng(0)
    cases = [{str(i): {"t1": {"lesion": t}} for i, t in enumerate(rng.lognormal(-3, 1, 12))} for _ in range(400)]
    held = np.mean([calibrate(alphas, coverage)["lesion"].coverage for alphas in cases])
    assert coverage - 0.02 < held < coverage + 1 / 11


def test_more_coverage_needs_a_smaller_tail():
    rng = np.random.default_rng(1)
    alphas = {str(i): {"t1": {"lesion": float(t)}} for i, t in enumerate(rng.uniform(0.001, 0.49, 20))}
    chosen = [calibrate(alphas, coverage)["lesion"].alpha for coverage in (0.5, 0.8, 0.9, 1.0)]
    assert all(a >= b for a, b in pairwise(chosen))
    assert np.mean([t["t1"]["lesion"] >= chosen[1] for t in alphas.values()]) >= 0.8


def soft_lesion(rng, spread):
    """A probability of a lesion (n,), and its true number of voxels, which the probability misjudges by a spread."""
    probability = rng.uniform(0, 1, 4000).astype(np.float32) ** 3
    return probability, int(np.clip(probability.sum() * (1 + spread * rng.normal()), 50, 3950))


def test_the_alpha_of_a_subset_holds_at_least_the_coverage_of_the_cases_that_chose_it():
    """Whatever the other subsets ask for, by the intervals themselves."""
    rng, spreads = np.random.default_rng(2), {"flair+t1c": 0.02, "flair": 0.1, "t1c": 0.3}
    for _ in range(20):
        cases = {str(i): {part: soft_lesion(rng, spread) for part, spread in spreads.items()} for i in range(11)}
        alphas = {n: {p: {"lesion": largest_alpha(*one)} for p, one in case.items()} for n, case in cases.items()}
        note = calibrate(alphas)["lesion"]
        assert list(note.subsets) == ["flair", "t1c"] and note.cases == 11
        for part, alpha in {"flair+t1c": note.alpha, **{p: one.alpha for p, one in note.subsets.items()}}.items():
            ends = {name: volume_interval(case[part][0], 1.0, alpha) for name, case in cases.items()}
            held = [low <= cases[name][part][1] <= high for name, (low, high) in ends.items()]
            assert np.mean(held) >= 0.8
        assert note.alpha > note.subsets["t1c"].alpha, "worse sequences need wider intervals"


def test_fewer_sequences_never_have_a_larger_alpha():
    """Those of eleven cases scatter: chosen alone, a part would often get a narrower interval than all sequences."""
    rng, parts = np.random.default_rng(3), ("flair+t1+t1c", "flair+t1", "t1+t1c", "t1c")
    inside = [("flair+t1", "flair+t1+t1c"), ("t1+t1c", "flair+t1+t1c"), ("t1c", "t1+t1c"), ("t1c", "flair+t1+t1c")]
    narrower = 0
    for _ in range(20):
        needed = [{part: {"lesion": float(rng.uniform(0, 0.5))} for part in parts} for _ in range(11)]
        chosen = choose_alphas(needed, "lesion")
        alone = {part: choose_alpha([case[part]["lesion"] for case in needed]) for part in parts}
        assert all(chosen[small] <= chosen[large] for small, large in inside)
        assert all(chosen[part] <= alone[part] for part in parts) and chosen[parts[0]] == alone[parts[0]]
        assert set(chosen.values()) <= set(alone.values())
        narrower += any(alone[small] > alone[large] for small, large in inside)
    assert narrower > 10


def test_what_no_interval_holds_does_not_count_as_held():
    missed = {"t1": {"lesion": largest_alpha(np.zeros(10, np.float32), 5)}}
    note = calibrate({name: missed for name in "abcdef"})["lesion"]
    assert note.coverage == 0 and note.alpha == ALPHAS[-1]
    half = {name: missed for name in "abc"} | {name: {"t1": {"lesion": 0.1}} for name in "defghi"}
    assert calibrate(half)["lesion"].coverage == pytest.approx(6 / 9, abs=1e-3)
