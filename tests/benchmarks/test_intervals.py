"""How often intervals hold, and how wide they are, on phantoms."""

import json
from shutil import copytree

import pytest

from brainsegnet.api.validation import calibrate, find_tails, other_scans
from brainsegnet.errors import ModelError
from brainsegnet.inference.model import change_card, open_model
from brainsegnet.inference.origin import Data


@pytest.fixture(scope="module")
def intervals(benchmark_called):
    return benchmark_called("intervals")


@pytest.fixture
def stranger(trained, tmp_path):
    """The trained model with a card that knows none of the phantoms."""
    return rewrite(trained, tmp_path / "stranger", data=Data(), held_out=())


def rewrite(trained, folder, **changes):
    model = open_model(copytree(trained / "last", folder))
    return change_card(model, training=model.card.training.model_copy(update=changes)).folder


def test_each_case_has_the_interval_that_the_others_ask_for(intervals, stranger, trained, phantoms, capsys):
    intervals.main([str(stranger), "--data", str(phantoms)])
    report = json.loads(capsys.readouterr().out)
    assert len(report["ml"]) == 3 and set(report["regions"]) == {"whole", "core", "enhancing"}
    scans = other_scans(open_model(stranger), [phantoms])
    tails = find_tails(open_model(stranger), scans)
    assert {region: note["held"] for region, note in report["regions"].items()} == {
        region: note.coverage for region, note in calibrate(tails).items()
    }
    with pytest.raises(SystemExit):
        intervals.main([str(trained / "last"), "--data", str(phantoms)])
    assert "one case alone has no others" in capsys.readouterr().err


def test_summary_counts_what_is_held_and_leaves_out_small_volumes_of_the_widths(intervals):
    def case(true, least, most):
        return {"lesion": {"true": true, "found": true + 2, "least": least, "most": most}}

    spans = {"a": case(10, 5, 15), "b": case(20, 25, 30), "c": case(0.5, 0, 0), "d": case(40, 30, 38)}
    assert intervals.summarise(spans) == {"lesion": {"held": 0.5, "width": 0.25, "error": 0.1}}
    assert intervals.summarise({"c": case(0.5, 0, 0)}) == {"lesion": {"held": 1.0, "width": None, "error": None}}


def test_they_go_onto_the_card_of_the_model_that_was_scored_on_the_same_cases(
    intervals, stranger, trained, phantoms, tmp_path, capsys
):
    names = ("phantom0000", "phantom0001", "phantom0002")
    shipped, other = (rewrite(trained, tmp_path / str(n), held_out=names[:n]) for n in (3, 2))
    old, given = open_model(shipped).card, [str(stranger), "--data", str(phantoms), "--coverage", "0.5", "--card"]
    intervals.main([*given, str(shipped)])
    report, new = json.loads(capsys.readouterr().out), open_model(shipped).card
    assert {region: round(note.tail, 4) for region, note in new.intervals.items()} == report["tails"]
    assert new.model_copy(update={"intervals": old.intervals}) == old
    with pytest.raises(ModelError, match="have other cases: phantom0002"):
        intervals.main([*given, str(other)])
