"""Laws of `evaluate`: predictions meet their truths in one convention, and the tables hold the scores as they are."""

import csv
import io
import json
import shutil
import statistics
from typing import Any

import nibabel
import numpy as np
import pytest
from rich.console import Console

from brainsegnet.errors import DatasetError, GridMismatch, LabelError, OutputError, TaskError
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.lesion_matching import BRATS2023_GLIOMA
from brainsegnet.metrics.pairs import label_files
from brainsegnet.metrics.score_file import to_json
from brainsegnet.metrics.score_tables import console_table, describe_unpredicted, full_table, reading_tables
from brainsegnet.metrics.scores import METRICS, RegionScore, ScoreRules, score_case
from brainsegnet.pipeline.segment import segment
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023, ISLES2017, Task
from brainsegnet.volume import LabelMap


@pytest.fixture
def truths(phantoms, tmp_path):
    """A folder of label maps named after their cases: what `segment` would write if it were always right."""
    folder = tmp_path / "truths"
    folder.mkdir()
    for case in find_cases([phantoms]):
        write_image(read_labels(case.lesion), folder / f"{case.name}.nii.gz")
    return folder


def relabelled(path, table):
    labels = read_labels(path)
    return LabelMap(np.array(table, np.uint8)[labels.array], labels.affine)


def dices(evaluation):
    return [score.dice for scores in evaluation.scores.values() for score in scores.values()]


def test_a_perfect_prediction_scores_one_everywhere_however_the_truth_is_named(phantoms, truths):
    one, other = truths / "phantom0000.nii.gz", truths / "phantom0001.nii.gz"
    for predicted, truth, count in [
        (one, one, 1),
        (truths, truths, 3),
        (truths, phantoms, 3),
        (one, phantoms / "phantom0000", 1),
        (truths, [phantoms / f"phantom000{number}" for number in range(3)], 3),
    ]:
        evaluation = evaluate(predicted, truth, "brats2015")
        assert len(evaluation.scores) == count and dices(evaluation) == [1.0] * 3 * count
        assert all(score.hd95_mm == 0 for scores in evaluation.scores.values() for score in scores.values())
    assert max(dices(evaluate(one, other, "brats2015"))) < 1


def test_a_table_of_cases_holds_truths_too(phantoms, truths, tmp_path):
    rows = []
    for case in find_cases([phantoms]):
        rows += [f"{case.name},flair,{case.images['flair']}", f"{case.name},lesion,{case.lesion}"]
    (tmp_path / "cases.csv").write_text("\n".join(["case,sequence,path", *rows]))
    assert dices(evaluate(truths, tmp_path / "cases.csv", "brats2015")) == [1.0] * 9


def test_truths_are_brought_to_the_convention_of_the_task(phantoms, truths, tmp_path):
    data, predicted = tmp_path / "brats2023", tmp_path / "predicted"
    predicted.mkdir()
    for number, path in enumerate(sorted(truths.iterdir())):
        case = f"BraTS-GLI-{number:05d}-000"
        (data / case).mkdir(parents=True)
        write_image(relabelled(path, [0, 1, 2, 1, 3]), data / case / f"{case}-seg.nii.gz")
        write_image(read_labels(path), data / case / f"{case}-t1c.nii.gz")
        write_image(relabelled(path, [0, 1, 2, 1, 4]), predicted / f"{case}.nii.gz")
    assert evaluate(predicted, data, "brats2021").task == BRATS2021
    assert dices(evaluate(predicted, data, "brats2021")) == [1.0] * 9
    with pytest.raises(LabelError, match=r"label values \[4\] are outside task brats2023"):
        evaluate(predicted, data, BRATS2023)


def note(folder, name, task):
    """The JSON beside a label map, so far as it tells the convention."""
    told = {"task": task.name, "convention": {str(value): tissue for value, tissue in task.labels.items()}}
    (folder / f"{name}.json").write_text(json.dumps(told))


def test_predictions_are_brought_to_the_convention_of_the_task_where_their_json_tells_another(phantoms, truths):
    for path in sorted(truths.glob("*.nii.gz")):
        write_image(relabelled(path, [0, 1, 2, 1, 4]), path)
    for path in sorted(truths.glob("*.nii.gz")):
        as_2021 = read_labels(path)
        write_image(relabelled(path, [0, 1, 2, 0, 3]), path)
        note(truths, path.name.removesuffix(".nii.gz"), BRATS2023)
        assert (read_labels(path).array == 3).sum() == (as_2021.array == 4).sum() > 0
    scores = evaluate(truths, phantoms, BRATS2021)
    assert dices(scores) == [1.0] * 9, "labels 3 of BraTS 2023 are enhancing, as 4 is in BraTS 2021"
    with pytest.raises(
        LabelError, match=r"non-enhancing \(label 1 of brats2023\) has no counterpart in task brats2015"
    ):
        evaluate(truths, phantoms, BRATS2015)


def test_a_json_of_something_else_beside_a_prediction_changes_nothing(phantoms, truths):
    for content in ("[]", "no JSON", '{"convention": {"x": "y"}, "task": 1}', '{"convention": [], "probabilities": 3}'):
        (truths / "phantom0000.json").write_text(content)
        assert dices(evaluate(truths, phantoms, "brats2015")) == [1.0] * 9


def test_what_segment_writes_can_be_evaluated_with_whatever_maps(phantoms, trained, tmp_path):
    options = SegmentOptions(probabilities=True, uncertainty=True, device="cpu", threads=1)
    segment(phantoms / "phantom0002", trained, tmp_path / "out", options)
    assert (tmp_path / "out" / "phantom0002_entropy.nii.gz").exists()
    evaluation = evaluate(tmp_path / "out", phantoms, "brats2015")
    assert list(evaluation.scores) == ["phantom0002"] and not evaluation.failures


def test_scores_are_written_as_csv_json_and_markdown(truths, phantoms, tmp_path):
    evaluation = evaluate(truths, phantoms, "brats2015", tmp_path / "a" / "scores")
    out = tmp_path / "a" / "scores"
    assert sorted(path.name for path in out.iterdir()) == ["scores.csv", "scores.json", "scores.md"]
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert {(row["case"], row["region"]) for row in rows} >= {
        (c, r) for c in evaluation.scores for r in BRATS2015.regions
    }
    assert {row["dice"] for row in rows if row["case"] == "mean"} == {"1.0"}
    assert json.loads((out / "scores.json").read_text())["mean"]["whole"]["dice"] == 1
    assert "phantom0001" in (out / "scores.md").read_text()


def test_a_prediction_without_a_truth_is_refused(phantoms, truths, tmp_path):
    shutil.copy(truths / "phantom0000.nii.gz", truths / "patient.nii.gz")
    with pytest.raises(DatasetError, match=r"prediction patient has no truth in .*phantoms, which holds phantom0000, "):
        evaluate(truths, phantoms, "brats2015", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_bad_prediction_among_many_is_told_and_the_others_are_scored(phantoms, truths, tmp_path):
    (truths / "phantom0001.nii.gz").write_bytes(b"no image")
    evaluation = evaluate(truths, phantoms, "brats2015", tmp_path / "out")
    assert list(evaluation.scores) == ["phantom0000", "phantom0002"]
    assert list(evaluation.failures) == ["phantom0001"] and "is no image" in evaluation.failures["phantom0001"]
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["cases"].keys() == evaluation.scores.keys()


def test_hidden_files_among_predictions_and_truths_are_passed_over(phantoms, truths):
    before = dices(evaluate(truths, phantoms, "brats2015"))
    for name in ("._phantom0000.nii.gz", ".x.nii.gz"):
        (truths / name).write_bytes(b"\0\5\26\7Mac OS X")
    (truths / "._phantom0000.json").write_bytes(b"\0\5\26\7Mac OS X")
    assert dices(evaluate(truths, phantoms, "brats2015")) == dices(evaluate(truths, truths, "brats2015")) == before


@pytest.mark.parametrize("where", ["predictions", "truths"])
def test_two_label_maps_of_one_case_are_a_failure_and_the_others_are_scored(phantoms, truths, tmp_path, where):
    twice = tmp_path / "twice"
    shutil.copytree(truths, twice)
    write_image(read_labels(truths / "phantom0001.nii.gz"), twice / "phantom0001.mha")
    evaluation = evaluate(*((twice, truths) if where == "predictions" else (truths, twice)), "brats2015")
    assert set(evaluation.scores) == {"phantom0000", "phantom0002"} and not evaluation.unpredicted
    assert list(evaluation.failures) == ["phantom0001"]
    assert "has two label maps, " in evaluation.failures["phantom0001"]
    assert "phantom0001.mha and phantom0001.nii.gz; remove one" in evaluation.failures["phantom0001"]
    with pytest.raises(DatasetError, match="case phantom0001 has two label maps"):
        label_files(twice)


def test_an_ambiguous_case_of_the_truth_is_a_failure_where_it_was_predicted(phantoms, truths, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    lesion = next(case.lesion for case in find_cases([data]) if case.name == "phantom0001")
    shutil.copy(lesion, lesion.with_suffix(".nrrd"))
    evaluation = evaluate(truths, data, "brats2015")
    assert list(evaluation.failures) == ["phantom0001"] and len(evaluation.scores) == 2
    assert "has two files for lesion" in evaluation.failures["phantom0001"]
    (truths / "phantom0001.nii.gz").unlink()
    assert not evaluate(truths, data, "brats2015").failures


def test_a_pair_of_header_and_voxels_is_one_label_map(truths, tmp_path):
    labels = nibabel.nifti1.load(truths / "phantom0000.nii.gz")
    nibabel.Nifti1Pair(np.asanyarray(labels.dataobj), labels.affine).to_filename(tmp_path / "pairs.img")
    (tmp_path / "pairs").mkdir()
    for kind in ("img", "hdr"):
        (tmp_path / f"pairs.{kind}").rename(tmp_path / "pairs" / f"phantom0000.{kind}")
    assert dices(evaluate(tmp_path / "pairs", truths, "brats2015")) == [1.0] * 3


def test_truths_without_a_prediction_are_named_and_cost_nothing(phantoms, truths, tmp_path):
    (truths / "phantom0001.nii.gz").unlink()
    evaluation = evaluate(truths, phantoms, "brats2015", tmp_path / "out")
    assert evaluation.unpredicted == ["phantom0001"] and not evaluation.failures
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["unpredicted"] == ["phantom0001"]
    assert "- 1 case of the truth has no prediction" in (tmp_path / "out" / "scores.md").read_text()
    one = evaluate(truths / "phantom0000.nii.gz", phantoms, "brats2015")
    assert not one.unpredicted, "whoever names one file means that one"


def test_another_grid_is_refused(truths, tmp_path):
    path = truths / "phantom0000.nii.gz"
    labels = read_labels(path)
    write_image(LabelMap(labels.array[1:], labels.affine), tmp_path / "phantom0000.nii.gz")
    with pytest.raises(GridMismatch, match=r"case phantom0000: the prediction is \(23, 40, 40\)"):
        raise_failure(tmp_path / "phantom0000.nii.gz", path)
    with pytest.raises(GridMismatch, match=r"bring the prediction onto the truth's grid$"):
        evaluate(tmp_path / "phantom0000.nii.gz", path, "brats2015")


def raise_failure(predicted, truth):
    """Of a single pair, the failure is the end of it: its sentence is the error's."""
    try:
        evaluate(predicted, truth, "brats2015")
    except DatasetError as error:
        raise GridMismatch(str(error)) from error


def test_scans_are_not_taken_for_the_truth(phantoms, truths, tmp_path):
    shutil.copytree(phantoms, tmp_path / "scans")
    for case in find_cases([tmp_path / "scans"]):
        case.lesion.unlink()
    with pytest.raises(DatasetError, match=r"case phantom0000 has no label map in .*scans; name what it is to be sco"):
        evaluate(truths, tmp_path / "scans", "brats2015")
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(next(phantoms.rglob("*Flair*.mha")), flat / "pat_flair.mha")
    with pytest.raises(DatasetError, match=r"case .* has no label map in .*flat"):
        evaluate(truths / "phantom0000.nii.gz", flat, "brats2015")


def test_nothing_to_score_is_refused(phantoms, truths, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty holds no label map"):
        evaluate(tmp_path / "empty", phantoms, "brats2015")
    with pytest.raises(DatasetError, match="empty holds no case"):
        evaluate(truths, tmp_path / "empty", "brats2015")
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        evaluate(truths, tmp_path / "nowhere", "brats2015")
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        evaluate(tmp_path / "nowhere", truths, "brats2015")


def test_an_unknown_task_and_an_output_below_a_file_are_refused(truths, tmp_path):
    with pytest.raises(TaskError, match="unknown task 'brats1999'"):
        evaluate(truths, truths, "brats1999")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        evaluate(truths, truths, "brats2015", tmp_path / "file" / "scores")


def scored(task: Task, names: tuple[str, ...]) -> dict[str, dict[str, RegionScore]]:
    values = np.array(task.label_values)
    maps = np.random.default_rng(3).choice(values, size=(len(names), 2, 4, 9, 9))
    return {name: score_case(p, t, task, (1.5, 0.7, 0.7)) for name, (p, t) in zip(names, maps, strict=True)}


def in_csv(cases: dict[str, dict[str, RegionScore]]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(full_table(Evaluation(BRATS2023, cases)).to_csv())))


def in_json(cases: dict[str, dict[str, RegionScore]], rules: ScoreRules | None = None) -> dict[str, Any]:
    return json.loads(to_json(Evaluation(BRATS2023, cases, rules=rules or ScoreRules())))


def in_markdown(cases: dict[str, dict[str, RegionScore]], task: Task = BRATS2023) -> str:
    return "\n".join(table.to_markdown() for table in reading_tables(Evaluation(task, cases)))


@pytest.fixture
def cases() -> dict[str, dict[str, RegionScore]]:
    cases = scored(BRATS2023, ("pat, one", "pat|two", "pat[three]"))
    empty = RegionScore(0, 0, 1, 0, 373.1287, 0, 1.25, -1.25, -1, 373.1287, 0, 0, 0, 0, 2, 0, "prediction")
    return cases | {"missed": {**cases["pat|two"], "enhancing": empty}}


def printed(table: object, width: int = 80) -> str:
    out = io.StringIO()
    Console(width=width, file=out, color_system=None).print(table)
    return out.getvalue()


def test_csv_holds_every_score_in_full_precision(cases):
    rows = in_csv(cases)
    assert len(rows) == 4 * 3 + 4 * 3
    for row in rows[:12]:
        score = cases[row["case"]][row["region"]]
        assert [float(row[metric]) for metric in METRICS] == [getattr(score, metric) for metric in METRICS]
        assert row["empty"] == (score.empty or "")
    assert {(row["region"], row["labels"]) for row in rows} == {("whole", "1+2+3"), ("core", "1+3"), ("enhancing", "3")}


def test_csv_ends_with_mean_and_sd_over_all_cases(cases):
    rows = in_csv(cases)
    dice = [scores["enhancing"].dice for scores in cases.values()]
    mean, sd, low, high = rows[-4:]
    assert [row["case"] for row in rows[-4:]] == ["mean", "sd", "ci95_low", "ci95_high"]
    assert {row["region"] for row in rows[-4:]} == {"enhancing"}
    assert min(dice) <= float(low["dice"]) <= float(mean["dice"]) <= float(high["dice"]) <= max(dice)
    assert float(mean["dice"]) == pytest.approx(statistics.mean(dice))
    assert float(sd["dice"]) == pytest.approx(statistics.stdev(dice))
    assert mean["empty"] == "both 0, prediction 1, truth 0"


def test_json_gives_back_the_scores(cases):
    document = in_json(cases)
    assert document["task"] == "brats2023"
    assert document["convention"] == {"1": "necrosis + non-enhancing", "2": "oedema", "3": "enhancing"}
    assert document["regions"] == {"whole": [1, 2, 3], "core": [1, 3], "enhancing": [3]}
    assert {n: {r: RegionScore(**s) for r, s in scores.items()} for n, scores in document["cases"].items()} == cases
    assert document["empty"]["enhancing"] == {"both": 0, "prediction": 1, "truth": 0}
    hd95 = [scores["core"].hd95_mm for scores in cases.values()]
    assert document["mean"]["core"]["hd95_mm"] == pytest.approx(statistics.mean(hd95))
    assert document["sd"]["core"]["hd95_mm"] == pytest.approx(statistics.stdev(hd95))


def test_json_says_by_which_rules_and_how_surely(cases):
    rules = ScoreRules(2.5, BRATS2023_GLIOMA)
    document = in_json(cases, rules)
    lesions = {"dilation": 3, "smallest_mm3": 50.0, "one_to_one": False}
    assert document["rules"] == {"tolerance_mm": 2.5, "lesions": lesions, "hd95": "max"}
    assert "within 2.5 mm" in document["surface_rule"] and "BraTS 2023" in document["lesion_rule"]
    assert document["lesions"]["enhancing"]["lesions_missed"] == sum(
        s["enhancing"].lesions_missed for s in cases.values()
    )
    for region, interval in document["interval"].items():
        for metric, (low, high) in interval.items():
            assert low <= document["mean"][region][metric] <= high
    two = dict(list(cases.items())[:2])
    assert in_json(two)["interval"] == {}


def test_json_refuses_what_is_no_number():
    nan = RegionScore(float("nan"), 1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0)
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(Evaluation(ISLES2017, {"a": {"lesion": nan}}))


def test_the_same_label_means_what_the_convention_says():
    a, b = (in_markdown(scored(task, ("a",)), task) for task in (BRATS2021, BRATS2023))
    assert "Labels of brats2021: 1 necrosis + non-enhancing, 2 oedema, 4 enhancing. Regions: whole = 1 + 2 + 4;" in a
    assert "Labels of brats2023: 1 necrosis + non-enhancing, 2 oedema, 3 enhancing. Regions: whole = 1 + 2 + 3;" in b


def test_markdown_has_a_row_for_each_region_and_case_in_equal_columns(cases):
    text = in_markdown(cases)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 + 2 + 3 + 2 + 12
    assert {len(row) for row in rows[:5]} == {len(rows[0])}
    assert {row.replace(r"\|", "").count("|") for row in rows[10:]} == {18}
    dice = [scores["whole"].dice for scores in cases.values()]
    assert f"| {statistics.mean(dice):.3f} ± {statistics.stdev(dice):.3f} |" in text
    assert "373.13" in text and "Intervals of means: 95 % percentile bootstrap" in text
    assert "within 1 mm of the other surface" in text and "as in ISLES 2022" in text
    assert "Empty masks: whole: both 0, prediction 0, truth 0;" in text
    assert "enhancing: both 0, prediction 1, truth 0." in text


def test_console_table_fits_80_columns_and_names_cases_as_they_are(cases):
    text = printed(console_table(Evaluation(BRATS2023, cases)).to_rich())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("pat[three]", "373.13", "Mean of 4 cases", "Standard deviation", "Mean, 95 % to"):
        assert expected in text
    assert f"{cases['pat, one']['core'].dice:.3f}" in text


def test_console_table_can_show_means_alone(cases):
    text = printed(console_table(Evaluation(BRATS2023, cases), per_case=False).to_rich())
    assert "pat|two" not in text
    assert "Mean of 4 cases" in text


@pytest.mark.parametrize("table", [full_table, to_json, reading_tables, console_table])
def test_no_table_without_a_case(table):
    with pytest.raises(DatasetError, match="no scores"):
        table(Evaluation(ISLES2017, {}))


def test_a_sentence_names_no_more_than_twenty_missing_cases():
    assert describe_unpredicted([]) == []
    (sentence,) = describe_unpredicted([f"pat{n}" for n in range(23)])
    assert sentence.startswith("23 cases of the truth have no prediction") and sentence.endswith("pat19 and 3 more.")
