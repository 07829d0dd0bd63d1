import csv
import json
import shutil

import numpy as np
import pytest

from brainsegnet.errors import DatasetError, GridMismatch, LabelError, OutputError, TaskError
from brainsegnet.inference.options import SegmentOptions
from brainsegnet.inference.segment import segment
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_labels, write_image
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.task import BRATS2015, BRATS2021, BRATS2023
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
