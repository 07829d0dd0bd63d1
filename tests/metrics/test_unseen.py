"""Training cases among those that are scored are recognised by their images, then by their names, and stand apart."""

import json
import shutil

import pytest

from brainsegnet.io.cases import find_cases
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.score_file import read_scores
from brainsegnet.metrics.score_tables import console_table, full_table, reading_tables
from brainsegnet.metrics.unseen import find_seen, is_trained_on
from brainsegnet.model.card import HASH_DIGITS, Data, Parent
from brainsegnet.model.store import hash_file, open_model
from brainsegnet.paper.tables import TABLES, make_row
from brainsegnet.pipeline.segment import segment
from brainsegnet.reporting.report import report

NAMES = ("phantom0000", "phantom0001", "phantom0002")


@pytest.fixture(scope="module")
def predicted(phantoms, trained, tmp_path_factory):
    """The predictions of a model for its two training cases and the one that was held out."""
    folder = tmp_path_factory.mktemp("unseen") / "predictions"
    segment(phantoms, trained, folder)
    return folder


@pytest.fixture
def editable(predicted, tmp_path):
    return shutil.copytree(predicted, tmp_path / "predictions")


def edit(folder, name, **changes):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def keep(folder, *names):
    for path in folder.iterdir():
        if path.name.split(".")[0] not in names:
            path.unlink()


def hashed(case):
    return {name: {"sha256": hash_file(path)} for name, path in case.images.items()}


def test_the_headline_is_the_mean_of_unseen_cases_and_the_mean_of_all_stands_beside_it(predicted, phantoms, tmp_path):
    found = evaluate(predicted, phantoms, "brats2015", tmp_path / "scores")
    assert found.familiarity.seen == NAMES[:2] and list(found.headline) == ["phantom0002"]
    unseen = found.scores["phantom0002"]["whole"].dice
    every = sum(found.scores[name]["whole"].dice for name in NAMES) / 3
    table = console_table(found)
    rows = {(row[0], row[1]): row[2] for row in table.rows}
    assert rows["Mean of 1 unseen case", "whole"] == pytest.approx(unseen)
    assert rows["Mean of all 3 cases", "whole"] == pytest.approx(every) != pytest.approx(unseen)
    assert ("phantom0000 (training)", "whole") in rows and ("phantom0002", "whole") in rows
    first = "was trained on 2 of the 3 cases: phantom0000, phantom0001. The headline is the mean of the other case."
    assert first in table.notes[0] and "chose the best weights: phantom0002" in table.notes[1]
    titles = [table.title for table in reading_tables(found)]
    assert titles[0] == "Mean ± standard deviation over 1 unseen case"
    assert "Mean ± standard deviation over all 3 cases, 2 of them training cases" in titles
    content = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert content["mean_of"] == ["phantom0002"] and content["trained_on"] == list(NAMES[:2])
    assert content["mean"]["whole"]["dice"] == pytest.approx(unseen)
    assert content["mean_all"]["whole"]["dice"] == pytest.approx(every)
    lines = {(row[0], row[2]): row for row in full_table(found).rows}
    assert [lines[name, "whole"][-1] for name in NAMES] == ["yes", "yes", None]
    assert lines["mean", "whole"][4] == pytest.approx(unseen) and lines["mean_all", "whole"][4] == pytest.approx(every)
    row = make_row("ours", read_scores(tmp_path / "scores" / "scores.json"), TABLES[1])
    assert row.cases == ["phantom0002"], "the number of cases belongs to the mean"


def test_the_report_shows_the_mean_of_unseen_cases_in_its_tiles(predicted, phantoms, tmp_path):
    found = evaluate(predicted, phantoms, "brats2015")
    report(predicted, tmp_path / "report.html", [phantoms], "brats2015", worst=1)
    text = (tmp_path / "report.html").read_text()
    assert f"{found.scores['phantom0002']['whole'].dice:.3f}" in text
    assert "Mean Dice ± standard deviation over 1 unseen case." in text
    assert "over all 3 cases, 2 of them training cases: whole" in text and "phantom0001 (training)" in text


def test_where_all_cases_are_training_cases_it_is_said_plainly(editable, phantoms):
    keep(editable, *NAMES[:2])
    found = evaluate(editable, phantoms, "brats2015")
    assert list(found.headline) == list(NAMES[:2]) and not found.is_mixed
    table = console_table(found)
    assert "was trained on all 2 cases. These scores do not show how good it is on other cases." in table.notes[0]
    assert any(row[0] == "Mean of 2 training cases" for row in table.rows)


def test_a_training_case_under_another_name_is_recognised_by_its_images(editable, phantoms):
    case = find_cases([phantoms])[0]
    for path in list(editable.glob("phantom0000.*")):
        path.rename(editable / path.name.replace("phantom0000", "other"))
    edit(editable, "other", inputs={})
    assert find_seen(editable, ["other"]).seen == ()
    edit(editable, "other", inputs=hashed(case))
    assert find_seen(editable, ["other"]).seen == ("other",)


def test_another_case_with_the_name_of_a_training_case_counts_as_unseen_and_is_named(editable):
    edit(editable, "phantom0000", inputs={"flair": {"sha256": "0" * 64}})
    found = find_seen(editable, NAMES)
    assert found.seen == ("phantom0001",)
    assert any("with other images, so counted as unseen: phantom0000." in remark for remark in found.remarks)


def test_the_card_of_a_training_holds_the_hashes_of_its_images(trained, phantoms):
    card = open_model(trained).card
    cases = {case.name: case for case in find_cases([phantoms])}
    assert set(card.training.data.hashes) == set(NAMES[:2])
    for name, digests in card.training.data.hashes.items():
        assert digests == tuple(hash_file(cases[name].images[s])[:HASH_DIGITS] for s in card.sequences)
    parent = card.as_parent()
    assert parent.hashes == card.training.data.hashes and not parent.data.hashes


def test_cases_of_ancestors_and_other_scans_of_a_patient_count_as_seen(trained):
    card = open_model(trained).card
    old = Parent(name="old", data=Data(), seen=("BraTS2021_00006",), hashes={"BraTS2021_00006": ("a" * HASH_DIGITS,)})
    card = card.model_copy(update={"training": card.training.model_copy(update={"started_from": old})})
    assert is_trained_on(card, "BraTS-GLI-00006-001", ())
    assert is_trained_on(card, "anything", {"a" * HASH_DIGITS})
    assert not is_trained_on(card, "BraTS-GLI-00007-001", ())


def test_what_is_not_known_of_the_model_is_said(editable):
    edit(editable, "phantom0000", model={"name": "gone", "folder": "nowhere", "sha256": "0" * 64})
    (editable / "phantom0001.json").unlink()
    remarks = " ".join(find_seen(editable, NAMES).remarks)
    assert "Model gone is not found" in remarks and "No JSON of segment is beside phantom0001" in remarks
    for name in ("phantom0000", "phantom0002"):
        (editable / f"{name}.json").unlink()
    assert "No JSON of segment is beside the predictions" in find_seen(editable, NAMES).remarks[0]
