"""`table`, `figure` and `report` on a small cohort: what they write, what they say of it, and what they refuse."""

import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, DatasetError, GridMismatch, OutputError, TaskError
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.segment import segment
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.lesions import BRATS2023_GLIOMA
from brainsegnet.metrics.scores import USUAL_RULES, ScoreRules
from brainsegnet.model.card import Parent
from brainsegnet.model.store import open_model, save_model
from brainsegnet.paper.figure_cases import FigureOptions, figure
from brainsegnet.paper.tables import table
from brainsegnet.reporting.report import report
from brainsegnet.training.finetune import adopt
from brainsegnet.training.recipes import QUICK
from brainsegnet.volume import LabelMap


@pytest.fixture(scope="module")
def segmented(phantoms, trained, tmp_path_factory):
    """What `segment --probabilities` writes of all phantoms."""
    folder = tmp_path_factory.mktemp("results") / "model"
    segment([phantoms], trained, folder, SegmentOptions(probabilities=True, threads=1))
    return folder


@pytest.fixture(scope="module")
def shifted(phantoms, tmp_path_factory):
    """Truths moved sideways by one, two and three voxels: phantom0002 is the worst."""
    folder = tmp_path_factory.mktemp("results") / "shifted"
    folder.mkdir()
    for number, case in enumerate(find_cases([phantoms])):
        truth = read_labels(case.lesion)
        write_image(LabelMap(np.roll(truth.array, number + 1, 2), truth.affine), folder / f"{case.name}.nii.gz")
    return folder


def parse(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    return ET.fromstring(text.split("\n", 1)[1]), text


def headings(root):
    return [e.text for e in root.iter("h2")]


def test_a_table_in_three_formats_from_a_folder_of_scores(phantoms, shifted, tmp_path):
    evaluate(shifted, phantoms, "brats2015", tmp_path / "mine")
    outs = [tmp_path / f"table{suffix}" for suffix in (".md", ".csv", ".tex")]
    text = table([tmp_path / "mine", tmp_path / "mine" / "scores.json"], 1, outs, ["a", "b"])
    assert outs[0].read_text() == text and all(path.stat().st_size > 500 for path in outs)
    assert "over 3 cases of task brats2015" in text and "phantom0000, phantom0001, phantom0002" in text
    assert "| mine | ours |" in " ".join(table([tmp_path / "mine"], 1).split())


def test_tables_that_cannot_be_made_leave_nothing(phantoms, shifted, tmp_path):
    evaluate(shifted, phantoms, "brats2015", tmp_path / "mine")
    out = tmp_path / "out" / "t.md"
    for arguments, words in [
        (([tmp_path / "none"], 1, out), "none cannot be read: No such file"),
        (([tmp_path / "mine"], 2, out), "choose --paper 1"),
        (([tmp_path / "mine"] * 2, 1, out), "two of the scores are called mine; tell them apart with --labels"),
        (([tmp_path / "mine"], 1, out, ["a", "b"]), "2 labels are given for 1 scores"),
        (([tmp_path / "mine" / "scores.csv"], 1, out), "is no JSON"),
        (([tmp_path / "mine"], 3, out), "Table 1 and a Table 2, not 3"),
        (([tmp_path / "mine"], 1, tmp_path / "t.docx"), r"must end in one of \.md, \.csv, \.tex"),
    ]:
        with pytest.raises(BrainSegNetError, match=words):
            table(*arguments)
    (tmp_path / "mine" / "scores.json").write_text("[]")
    with pytest.raises(DatasetError, match="holds no scores"):
        table([tmp_path / "mine"], 1, out)
    assert not out.exists()


def test_figure_4_of_two_models(phantoms, segmented, shifted, tmp_path):
    outs = [tmp_path / "four.png", tmp_path / "four.svg"]
    strips = figure([phantoms], [segmented, shifted], "brats2015", outs)
    assert [s.case for s in strips] == ["phantom0000", "phantom0001", "phantom0002"]
    assert {s.why for s in strips} == {"with most lesion in the truth"}
    assert list(strips[0].layers) == ["model", "shifted", "truth"]
    for strip in strips:
        truth = read_labels(next(c.lesion for c in find_cases([phantoms]) if c.name == strip.case)).array
        counts = (truth > 0).sum((1, 2))
        assert counts[strip.index] == counts.max()
    assert outs[0].read_bytes().startswith(b"\x89PNG") and ET.parse(outs[1]).getroot().tag.endswith("svg")


def test_figure_5_shows_the_sum_of_the_tissues(phantoms, segmented, tmp_path):
    options = FigureOptions(slices=("phantom0001:12", "phantom0001:11"))
    strips = figure([phantoms], [segmented], "brats2015", tmp_path / "five.png", 5, options)
    assert [(s.case, s.index, s.why) for s in strips] == [("phantom0001", n, "as named") for n in (12, 11)]
    background = read_image(segmented / "phantom0001_background.nii.gz").array
    shown = strips[0].layers["prediction"]
    assert shown.max() == pytest.approx(1 - background[12].min(), abs=0.02)


def test_figures_that_cannot_be_drawn_are_refused(phantoms, segmented, shifted, tmp_path):
    out = tmp_path / "f.png"
    for predictions, paper, options, words in [
        ([segmented, shifted], 5, None, "Figure 5 shows one model, not 2"),
        ([shifted], 5, None, "no probability map of case phantom0000; segment it with --probabilities"),
        ([shifted], 4, FigureOptions(slices=("phantom0000",)), "not of the form case:index, as in phantom0000:40"),
        ([shifted], 4, FigureOptions(slices=("pat9:3",)), "there is no case pat9; choose from phantom0000"),
        ([shifted], 4, FigureOptions(slices=("phantom0000:77",)), "slice 77 shows no brain"),
        ([shifted, shifted], 4, None, "two of the predictions are called shifted"),
        ([tmp_path], 4, None, "no case has a prediction"),
        ([shifted], 6, None, "figures 4 and 5 of the paper can be drawn, not 6"),
    ]:
        with pytest.raises(BrainSegNetError, match=words):
            figure([phantoms], predictions, "brats2015", out, paper, options)
    for most in (0, -1):
        with pytest.raises(DatasetError, match=f"a figure shows at least one case, not {most}"):
            FigureOptions(most=most)
    with pytest.raises(OutputError, match=r"\.png, \.svg"):
        figure([phantoms], [shifted], "brats2015", tmp_path / "f.jpg")
    other = tmp_path / "other"
    shutil.copytree(shifted, other)
    labels = read_labels(other / "phantom0000.nii.gz")
    write_image(LabelMap(labels.array, labels.affine @ np.diag([1, 1, 2, 1.0])), other / "phantom0000.nii.gz")
    with pytest.raises(GridMismatch, match="case phantom0000: "):
        figure([phantoms], [other], "brats2015", out)
    assert not out.exists()


def test_a_report_on_a_training_shows_card_curves_and_how_to_repeat(trained, tmp_path):
    report(trained, tmp_path / "run.html")
    root, text = parse(tmp_path / "run.html")
    assert headings(root) == ["Validation", "Training", "Model card", "How to repeat"]
    card = json.loads((trained / "best" / "card.json").read_text())
    assert card["weights"]["sha256"] in text and "data:image/svg+xml;base64," in text
    command = next(e.text for e in root.iter("pre"))
    assert "--task brats2015" in command and "--hold-out phantom0002" in command and "--steps 3" in command
    assert "are not those of --recipe quick" in text, "the recipe of the tests is smaller than quick"
    for region, score in card["training"]["scores"].items():
        assert region in text and f"{score:.3f}" in text


def test_what_a_card_knows_of_its_training_stands_in_the_command(trained, tmp_path):
    """Of a model started from another, by a recipe of ours, that dropped sequences and held nothing out."""
    model = open_model(trained)
    recipe = adopt(QUICK, model.card, dropping=0.25)
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
            "2 cases, each scored by a model trained alike without it: phantom0000, ",
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
    assert len(list(root.iter("circle"))) % 9 == 0


def test_a_report_scores_by_the_rules_of_evaluate_and_tells_them(phantoms, shifted, tmp_path):
    rules = ScoreRules(8.0, BRATS2023_GLIOMA)
    report(shifted, tmp_path / "r.html", [phantoms], "brats2015", worst=0, rules=rules)
    text = parse(tmp_path / "r.html")[1]
    assert "within 8 mm" in text and "--task brats2015 --tolerance-mm 8 --lesions brats2023" in text
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
