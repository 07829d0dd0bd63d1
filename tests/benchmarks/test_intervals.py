"""How often intervals hold, and how wide they are, on phantoms."""

import json
from shutil import copytree

import numpy as np
import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.io.cases import find_cases, load_case
from brainsegnet.model.card import Data, IntervalNote, SubsetInterval
from brainsegnet.model.store import open_model, replace_card
from brainsegnet.task import BRATS2015
from release.validation import calibrate, find_alphas, held_out_scans


@pytest.fixture(scope="module")
def intervals(benchmark_called):
    return benchmark_called("intervals")


NAMES = ("phantom0000", "phantom0001", "phantom0002")


def rewrite(trained, folder, intervals=None, **changes):
    """The trained model with a card that says otherwise."""
    model = open_model(copytree(trained / "last", folder))
    note = model.card.training.model_copy(update=changes)
    return replace_card(model, model.card.model_copy(update={"training": note, "intervals": intervals or {}})).folder


@pytest.fixture
def fold(trained, tmp_path):
    """As if it had held out all phantoms."""
    return rewrite(trained, tmp_path / "fold", data=Data(), held_out=NAMES)


def test_each_case_has_the_interval_that_the_others_ask_for(intervals, fold, phantoms, capsys):
    intervals.main([str(fold), "--data", str(phantoms)])
    report = json.loads(capsys.readouterr().out)
    assert len(report["ml"]) == 3 and set(report["regions"]) == {"whole", "core", "enhancing"}
    notes = calibrate(find_alphas(open_model(fold), held_out_scans(open_model(fold), [phantoms])))
    assert {region: row["held"] for region, row in report["regions"].items()} == {
        region: note.coverage for region, note in notes.items()
    }
    assert len(report["subsets"]) == 14 and len(report["alphas"]) == 15
    for part, regions in report["subsets"].items():
        assert {region: row["held"] for region, row in regions.items()} == {
            region: note.subsets[part].coverage for region, note in notes.items()
        }


def test_a_model_with_intervals_is_tested_as_users_get_them(intervals, trained, phantoms, tmp_path, capsys):
    notes = {"whole": IntervalNote(alpha=0.45), "core": IntervalNote(alpha=0.2), "enhancing": IntervalNote(alpha=0.001)}
    shipped = rewrite(trained, tmp_path / "shipped", notes, data=Data(), held_out=())
    intervals.main([str(shipped), "--data", str(phantoms)])
    report = json.loads(capsys.readouterr().out)
    alphas = {region: note.alpha for region, note in notes.items()}
    assert report["alphas"] == {"flair+t1+t1c+t2": alphas} and len(report["ml"]) == 3
    whole = report["calibration"]["whole"]
    assert whole["cases"] == 3 and sum(one["voxels"] for one in (whole["below"], *whole["bins"])) > 1000
    assert all(case[r]["least"] <= case[r]["most"] for case in report["ml"].values() for r in notes)
    truth = open_truth(phantoms, "phantom0001")
    assert report["ml"]["phantom0001"]["whole"]["true"] == pytest.approx(truth, abs=0.01)
    with pytest.raises(DatasetError, match="was trained on this patient"):
        intervals.main([str(rewrite(trained, tmp_path / "knowing", notes)), "--data", str(phantoms)])


def open_truth(phantoms, name):
    """Millilitres of all tissues."""
    files = next(case for case in find_cases([phantoms]) if case.name == name)
    labels = load_case(files, ("t1",), BRATS2015, lesion=True).lesion
    return np.count_nonzero(labels.array) * labels.voxel_ml


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["one"], "nobody to ask for an interval"),
        (["known", "fold"], "has intervals already; name it alone"),
        (["fold", "--card", "known"], "other cases than those that"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    intervals, fold, trained, phantoms, tmp_path, capsys, given, reason
):
    note = {region: IntervalNote() for region in BRATS2015.regions}
    rewrite(trained, tmp_path / "one", held_out=("phantom0002",))
    rewrite(trained, tmp_path / "known", note, held_out=("phantom0002",))
    with pytest.raises(SystemExit):
        paths = [name if name.startswith("--") else str(tmp_path / name) for name in given]
        intervals.main([*paths, "--data", str(phantoms)])
    assert reason in capsys.readouterr().err


def test_summary_counts_what_is_held_and_leaves_out_small_volumes_of_the_widths(intervals):
    def case(true, least, most):
        return {"lesion": {"true": true, "found": true + 2, "least": least, "most": most}}

    spans = {"a": case(10, 5, 15), "b": case(20, 25, 30), "c": case(0.5, 0, 0), "d": case(40, 30, 38)}
    assert intervals.summarise(spans) == {"lesion": {"held": 0.5, "width": 0.25, "error": 0.1}}
    assert intervals.summarise({"c": case(0.5, 0, 0)}) == {"lesion": {"held": 1.0, "width": None, "error": None}}


def test_they_go_onto_the_card_of_the_model_that_was_scored_on_the_same_cases(
    intervals, fold, trained, phantoms, tmp_path, capsys
):
    shipped = rewrite(trained, tmp_path / "shipped", held_out=NAMES)
    old = open_model(shipped).card
    intervals.main([str(fold), "--data", str(phantoms), "--card", str(shipped)])
    report, new = json.loads(capsys.readouterr().out), open_model(shipped).card
    assert intervals.list_alphas(new.intervals, "flair+t1+t1c+t2") == {
        part: pytest.approx(alphas, abs=1e-7) for part, alphas in report["alphas"].items()
    }
    assert {r: note.model_dump(mode="json") for r, note in new.calibration.items()} == report["calibration"]
    assert new.model_copy(update={"intervals": old.intervals, "calibration": {}}) == old


def test_a_model_without_folds_keeps_its_intervals_and_gets_a_calibration(
    intervals, trained, phantoms, tmp_path, capsys
):
    notes = {region: IntervalNote(alpha=0.2) for region in BRATS2015.regions}
    shipped = rewrite(trained, tmp_path / "shipped", notes, data=Data(), held_out=NAMES)
    old = open_model(shipped).card
    intervals.main([str(shipped), "--data", str(phantoms), "--card", str(shipped)])
    report, new = json.loads(capsys.readouterr().out), open_model(shipped).card
    assert {r: note.model_dump(mode="json") for r, note in new.calibration.items()} == report["calibration"]
    assert new.intervals == notes and new.model_copy(update={"calibration": {}}) == old


def test_folds_that_were_trained_in_another_way_change_no_card(intervals, fold, trained, phantoms, tmp_path, capsys):
    shipped = rewrite(trained, tmp_path / "shipped", held_out=NAMES)
    model = open_model(shipped)
    replace_card(model, model.card.model_copy(update={"threshold": 0.3}))
    with pytest.raises(SystemExit):
        intervals.main([str(fold), "--data", str(phantoms), "--card", str(shipped)])
    assert "another start, recipe or threshold" in capsys.readouterr().err
    assert not open_model(shipped).card.calibration


def test_a_case_with_fewer_sequences_is_tested_with_the_alpha_of_these(intervals, trained, phantoms, tmp_path, capsys):
    subsets = {"flair+t1c": SubsetInterval(alpha=0.003)}
    notes = {region: IntervalNote(alpha=0.4, subsets=subsets) for region in BRATS2015.regions}
    shipped = rewrite(trained, tmp_path / "shipped", notes, data=Data(), held_out=())
    for image in [*copytree(phantoms, tmp_path / "fewer").rglob("*.mha")]:
        if any(f".{name}." in image.name for name in ("MR_T1", "MR_T2")):
            image.unlink()
    intervals.main([str(shipped), "--data", str(tmp_path / "fewer")])
    report = json.loads(capsys.readouterr().out)
    assert report["alphas"] == {"flair+t1c": dict.fromkeys(BRATS2015.regions, 0.003)}
