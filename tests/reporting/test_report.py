"""`report` on a training and on predictions: what the page shows, what the verb says of it, and what it refuses."""

import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from brainsegnet.errors import DatasetError, OutputError, TaskError
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.lesion_matching import BRATS2023_GLIOMA
from brainsegnet.metrics.scores import USUAL_RULES, ScoreRules
from brainsegnet.model.card import Parent
from brainsegnet.model.store import open_model, save_model
from brainsegnet.reporting.report import report
from brainsegnet.training.finetune import adopt
from brainsegnet.training.recipes import QUICK


def parse(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\((?!#)", text)
    return ET.fromstring(text.split("\n", 1)[1]), text


def headings(root):
    return [e.text for e in root.iter("h2")]


def test_a_report_on_a_training_shows_card_curves_and_how_to_repeat(trained, tmp_path):
    report(trained, tmp_path / "run.html")
    root, text = parse(tmp_path / "run.html")
    assert headings(root) == ["Validation", "Training", "Model card", "How to repeat"]
    card = json.loads((trained / "best" / "card.json").read_text())
    (curve,) = root.iter("svg")
    assert card["weights"]["sha256"] in text and curve.get("aria-label") == "Loss and validation Dice over the steps"
    command = next(e.text for e in root.iter("pre"))
    assert "--task brats2015" in command and "--hold-out phantom0002" in command and "--steps 3" in command
    assert "are not those of --recipe quick" in text, "the recipe of the tests is smaller than quick"
    for region, score in card["training"]["scores"].items():
        assert region in text and f"{score:.3f}" in text


def test_a_report_on_a_model_shows_how_far_its_probabilities_are_to_be_trusted(trained, calibration, tmp_path):
    model = open_model(trained)
    card = model.card.model_copy(update={"calibration": {"whole": calibration, "<core>": calibration}})
    save_model(tmp_path / "model", card, model.tensors())
    report(tmp_path / "model", tmp_path / "model.html")
    root, text = parse(tmp_path / "model.html")
    assert headings(root) == ["Validation", "Calibration of probabilities", "Model card", "How to repeat"]
    (diagram,) = root.iter("svg")
    assert diagram.get("aria-label").startswith("Share of true voxels")
    assert "whole, error 0.100" in "".join(diagram.itertext()) and "&lt;core&gt;" in text and "Guo et al. 2017" in text
    cells = [[cell.text for cell in row] for row in root.iter("tr")]
    assert ["whole", "0.100", "0.120", "0.009", "0.011", "0.100"] in cells


def test_what_a_card_knows_of_its_training_stands_in_the_command(trained, tmp_path):
    """Of a model started from another, by a built-in recipe, that dropped sequences and held nothing out."""
    model = open_model(trained)
    recipe = adopt(QUICK, model.card, drop_sequences=0.25)
    note = {
        "recipe": recipe.model_dump(mode="json"),
        "started_from": Parent(name="a model"),
        "held_out": (),
        "scores": {},
    }
    card = model.card.model_copy(update={"training": model.card.training.model_copy(update=note)})
    save_model(tmp_path / "simulated", card, model.tensors())
    report(tmp_path / "simulated", tmp_path / "simulated.html")
    root, text = parse(tmp_path / "simulated.html")
    command = next(e.text for e in root.iter("pre"))
    assert "--from 'a model'" in command and "--drop-sequences 0.25" in command and "--validation 0" in command
    assert "--hold-out" not in command and "Validation" not in headings(root)
    assert "are not those of --recipe" not in text, "these flags give this recipe"
    assert "does not hold which cases were left out by --exclude" in text


@pytest.mark.parametrize(
    ("note", "sentence"),
    [
        (
            {"held_out": ("phantom0000", "phantom0001")},
            "2 cases, each scored by a model trained in the same way without it: phantom0000, ",
        ),
        (
            {"held_out": ("strange0001",), "held_out_sources": "another generator"},
            "1 case (another generator): strange0001",
        ),
    ],
    ids=["folds", "elsewhere"],
)
def test_a_model_that_is_scored_otherwise_held_nothing_of_its_data_out(trained, tmp_path, note, sentence):
    model = open_model(trained)
    card = model.card.model_copy(update={"training": model.card.training.model_copy(update=note)})
    save_model(tmp_path / "released", card, model.tensors())
    report(tmp_path / "released", tmp_path / "released.html")
    root, text = parse(tmp_path / "released.html")
    assert f"Dice on unseen cases ({sentence}" in text
    assert "--validation 0" in next(e.text for e in root.iter("pre"))


def test_a_report_on_predictions_draws_the_worst_and_finds_the_model(phantoms, segmented, tmp_path):
    report(segmented, tmp_path / "r.html", [phantoms], "brats2015", worst=2)
    root, text = parse(tmp_path / "r.html")
    wanted = ["Dice at a glance", "Scores", "Distributions", "Worst cases", "Case by case"]
    assert headings(root) == [*wanted, "Training", "Model card", "How to repeat"]
    assert text.count("data:image/png;base64,") == 2
    evaluation = evaluate(segmented, phantoms, "brats2015")
    for scores in evaluation.scores.values():
        for score in scores.values():
            assert f"<td>{score.dice:.3f}</td>" in text and f"<td>{score.hd95_mm:.2f}</td>" in text
    titles = [e.text for e in root.iter("title")]
    count = {name: sum(title.startswith(f"{name}: ") for title in titles) for name in evaluation.scores}
    assert count["phantom0002"] == 7 * 3, "a dot in each of seven charts of three regions"
    assert count["phantom0001"] == 0 and "Training cases of the model are not drawn." in text


def test_the_worst_cases_can_be_scrolled_through_on_request(phantoms, segmented, tmp_path):
    report(segmented, tmp_path / "r.html", [phantoms], "brats2015", worst=2, viewer=True)
    root, _ = parse(tmp_path / "r.html")
    frames = list(root.iter("iframe"))
    ranked = [element.text.removeprefix("Scroll through ") for element in root.iter("summary")]
    assert len(frames) == 2 and all(frame.get("sandbox") == "allow-scripts allow-downloads" for frame in frames)
    for name, frame in zip(ranked, frames, strict=True):
        assert f"<h1>{name}</h1>" in frame.get("srcdoc") and 'id="truth"' in frame.get("srcdoc")


def test_a_report_scores_by_the_rules_of_evaluate_and_tells_them(phantoms, shifted, tmp_path):
    rules = ScoreRules(8.0, BRATS2023_GLIOMA, "pooled")
    report(shifted, tmp_path / "r.html", [phantoms], "brats2015", worst=0, rules=rules)
    text = parse(tmp_path / "r.html")[1]
    assert "within 8 mm" in text and "in both directions together (pooled" in text
    assert "--task brats2015 --tolerance-mm 8 --hd95 pooled --lesions brats2023" in text
    strict, loose = (evaluate(shifted, phantoms, "brats2015", rules=r).scores for r in (USUAL_RULES, rules))
    strictly, loosely = (np.mean([case["whole"].surface_dice for case in r.values()]) for r in (strict, loose))
    assert loosely > strictly and f"{loosely:.3f}" in text and f"{strictly:.3f}" not in text


def test_a_report_without_scans_says_so_and_ranks_all_the_same(phantoms, shifted, tmp_path):
    truths = tmp_path / "truths"
    truths.mkdir()
    for case in find_cases([phantoms]):
        write_image(read_labels(case.lesion), truths / f"{case.name}.nii.gz")
    report(shifted, tmp_path / "r.html", [truths], "brats2015")
    root, text = parse(tmp_path / "r.html")
    assert "Pictures need the scans" in text and not list(root.iter("img")) and "Model card" not in headings(root)
    worst = evaluate(shifted, truths, "brats2015").scores
    means = {name: sum(s.dice for s in scores.values()) for name, scores in worst.items()}
    order = re.findall(r"<b>(phantom\d+)</b>: mean Dice", text)
    assert order == sorted(means, key=means.get)


def test_a_case_that_cannot_be_scored_is_told_and_the_others_reported(phantoms, shifted, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(shifted, mixed)
    (mixed / "phantom0001.nii.gz").write_bytes(b"cut short")
    failures = report(mixed, tmp_path / "r.html", [phantoms], "brats2015")
    root, _ = parse(tmp_path / "r.html")
    assert list(failures) == ["phantom0001"] and "Cases that could not be scored" in headings(root)
    assert failures["phantom0001"] in [e.text for e in root.iter("td")]


def test_reports_that_cannot_be_made_are_refused(phantoms, shifted, trained, tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(DatasetError, match="holds no model; to report on predictions, name their truth too"):
        report(shifted, out)
    with pytest.raises(DatasetError, match="is a model, which is reported without a truth"):
        report(trained, out, [phantoms])
    with pytest.raises(OutputError, match=r"must end in one of \.html"):
        report(trained, tmp_path / "r.pdf")
    with pytest.raises(TaskError, match="unknown task"):
        report(shifted, out, [phantoms], "brats1999")
    assert not out.exists()
