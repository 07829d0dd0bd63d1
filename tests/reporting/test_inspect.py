import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from brainsegnet.errors import DatasetError, ImageError, ModelError
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.model.card import Comparison, ComponentFilter, IntervalNote, Parent, SubsetInterval
from brainsegnet.model.store import HOME, open_model, shipped_models
from brainsegnet.reporting.inspect import card_rows, inspect
from brainsegnet.volume import Forms, Volume


def test_a_run_and_its_model_folder_tell_the_same(trained):
    of_run, of_model = inspect(trained), inspect(trained / "best")
    assert of_run == of_model and of_run.title == f"model {trained / 'best'}"
    rows = dict(of_run.rows)
    assert rows["sequences"] == "flair, t1, t1c, t2 (any subset)"
    assert rows["recipe"] == "quick, 3 steps, seed 0"
    assert rows["trained on"] == "2 cases: phantom0000, phantom0001" and rows["started from"] == "nothing"
    assert re.fullmatch(r"whole 0\.\d+, core .*, enhancing .* \(1 case: phantom0002\)", rows["Dice on unseen cases"])
    assert rows["stride"] == "1 x 2 x 2" and rows["sources"] == rows["Dice by sequences"].replace("measured", "stated")
    assert rows["labels"].startswith("1 necrosis, 2 oedema")
    assert open_model(trained).card.weights.sha256[:16] in rows["weights"] and "torch" in rows["versions"]


def released(card):
    """What the card of a model says whose scores are those of its folds."""
    cases = (*card.training.data.cases, *card.training.held_out)
    note = {
        "data": card.training.data.model_copy(update={"cases": cases, "count": 3}),
        "held_out": cases,
        "started_from": Parent(name="glioma", seen=("a", "b")),
        "subsets": {"flair+t1c": {"whole": 0.8, "core": 0.75}, "t2": {"whole": 0.6, "core": 0.5}},
    }
    intervals = {"whole": IntervalNote(alpha=0.05, coverage=0.9, cases=20), "core": IntervalNote()}
    return card.model_copy(update={"training": card.training.model_copy(update=note), "intervals": intervals})


def test_a_required_sequence_is_named(trained):
    card = open_model(trained).card
    told = card.model_copy(update={"task": card.task.model_copy(update={"required": ("flair",)})})
    assert dict(card_rows(told))["sequences"] == "flair, t1, t1c, t2 (any subset with flair)"


def test_a_released_card_says_who_scored_its_cases_and_what_parts_of_the_sequences_reach(trained):
    rows = dict(card_rows(released(open_model(trained).card)))
    everyone = "phantom0000, phantom0001, phantom0002"
    assert (
        f"(3 cases, each scored by a model trained in the same way without it: {everyone})"
        in rows["Dice on unseen cases"]
    )
    assert rows["Dice by sequences"] == "flair+t1c: whole 0.800, core 0.750; t2: whole 0.600, core 0.500"
    assert rows["volume intervals"] == (
        "whole: alpha 0.05, contained 90% of the volumes of 20 cases, each left out in turn; "
        "core: alpha 0.1, not measured"
    )
    assert rows["started from"].startswith("glioma, trained on 2 cases")


def test_a_card_tells_intervals_of_subsets_and_how_far_probabilities_are_to_be_trusted(trained, calibration):
    card = released(open_model(trained).card)
    assert dict(card_rows(card))["calibration"] == "not measured"
    subsets = {"flair": SubsetInterval(alpha=0.02, coverage=0.75), "t1": SubsetInterval(alpha=0.001)}
    note = card.intervals["whole"].model_copy(update={"subsets": subsets})
    rows = dict(
        card_rows(card.model_copy(update={"intervals": {"whole": note}, "calibration": {"whole": calibration}}))
    )
    assert rows["intervals by sequences"] == "flair: whole alpha 0.02 (75%); t1: whole alpha 0.001"
    assert rows["calibration"] == (
        "expected calibration error above 0.01, 4 cases: whole 0.100 (mean over cases 0.120, whole brain 0.0090, "
        "true voxels missed 0.100)"
    )


def test_of_hundreds_of_cases_the_first_are_named_and_the_others_counted(trained):
    card = open_model(trained / "last").card
    names = tuple(f"case{number:03d}" for number in range(560))
    data = card.training.data.model_copy(update={"cases": names, "count": 560})
    rows = dict(card_rows(card.model_copy(update={"training": card.training.model_copy(update={"data": data})})))
    assert rows["trained on"].startswith("560 cases: case000, case001, ")
    assert rows["trained on"].endswith(", case011 and 548 others")


def test_a_card_tells_what_is_dropped_and_what_other_ways_reach(trained):
    card = released(open_model(trained).card)
    assert dict(card_rows(card))["connected components"] == "all kept"
    assert dict(card_rows(card))["other ways of training"] == "not measured"
    few = Comparison(
        origin="real alone",
        real_cases=2,
        budget={"minutes": 1},
        subsets={"flair": {"whole": 0.5}, "flair+t1c": {"whole": 0.7}},
    )
    every = Comparison(origin="real alone", budget={"minutes": 55.0}, subsets={"flair": {"whole": 0.6}})
    none, one = (Comparison(origin="simulated", real_cases=n, subsets={"flair": {"whole": 0.4}}) for n in (0, 1))
    note = card.training.model_copy(update={"comparisons": (few, every, none, one)})
    kept = {"flair+t1+t1c+t2": {"whole": 0.75, "core": 0.5}, "flair": {"whole": 0.6, "core": 0.4}}
    components = ComponentFilter(confidence_margin=0.12, kept=kept)
    rows = dict(card_rows(card.model_copy(update={"training": note, "components": components})))
    dropped = "dropped if their lesion probability is more than 0.12 below the highest"
    assert rows["connected components"] == f"{dropped}; Dice if all are kept: whole 0.750, core 0.500"
    assert rows["other ways of training"].split("; ") == [
        "real alone (2 real cases, 1 minute): whole 0.700", "real alone (all real cases, 55 minutes): whole 0.600",
        "simulated (no real case): whole 0.400", "simulated (1 real case): whole 0.400",
    ]  # fmt: skip
    heir = card.model_copy(update={"components": ComponentFilter(confidence_margin=0.12)})
    assert dict(card_rows(heir))["connected components"] == f"{dropped}, as in the model that it started from"


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_is_shown_by_its_name_as_by_its_folder(name, tmp_path, monkeypatch):
    assert inspect(Path(name)) == inspect(HOME / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match="holds no case of a known layout"):
        inspect(Path(name))


def test_without_an_argument_the_shipped_models_are_listed():
    inventory, shipped = inspect(), shipped_models()
    assert inventory.title == f"{len(shipped)} models in the package" and [c.heading for c in inventory.columns] == [
        "",
        *shipped,
    ]
    rows = {kind: dict(zip(shipped, values, strict=True)) for kind, *values in inventory.rows}
    for name, model in shipped.items():
        card = model.card
        assert rows["SHA-256"][name] == card.weights.sha256 and rows["trained on"][name] == card.training.data.sources
        assert all(sequence in rows["takes"][name] for sequence in card.sequences)
        assert all(tissue in rows["finds"][name] for tissue in card.task.labels.values())
    assert (
        rows["takes"]["tumour"].startswith("any of flair") and "(mean over " in rows["Dice on unseen cases"]["tumour"]
    )


def test_the_model_of_brains_is_shown_apart():
    assert [note for note in inspect().notes if note.startswith("brain: the brain in scans with the skull on")]
    rows = dict(inspect(Path("brain")).rows)
    assert rows["name"] == "brain" and "100 ml" in rows["refuses"] and len(rows["SHA-256 of brain.bin"]) == 64


def test_a_model_that_needs_all_sequences_says_so(strict):
    assert dict(inspect(strict).rows)["sequences"] == "flair, t1, t1c, t2 (all needed)"


def test_a_folder_of_cases_is_listed(phantoms):
    inventory = inspect(phantoms)
    assert inventory.title == f"3 cases in {phantoms}"
    assert inventory.rows[0] == ("phantom0000", "flair, t1, t1c, t2", "yes", "brats2015", "")
    assert list(inventory.notes) == [
        "layout: BRATS 2015 (3 cases)",
        "sequences: flair, t1, t1c, t2; label maps: 3 of 3",
        "every file is there and whole",
    ]


def test_an_incomplete_download_is_shown_case_by_case(phantoms, tmp_path):
    shutil.copytree(phantoms, tmp_path / "data")
    first, second, _ = find_cases([tmp_path / "data"])
    first.images["t2"].write_bytes(first.images["t2"].read_bytes()[:-99])
    second.lesion.unlink()
    second.images["flair"].unlink()
    inventory = inspect(tmp_path / "data")
    assert "cut short" in inventory.rows[0][-1] and inventory.rows[1][-1] == "no flair; no label map"
    assert not inventory.rows[2][-1]
    assert list(inventory.notes[1:]) == [
        "sequences: flair (2), t1, t1c, t2; label maps: 2 of 3",
        "incomplete: 2 of 3: phantom0000, phantom0001",
    ]


def test_what_segment_would_refuse_or_leave_out_is_said(phantoms, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    shutil.copytree(phantoms / "phantom0001", data / "again" / "phantom0001")
    (data / "odd").mkdir()
    shutil.copy(find_cases([phantoms])[0].images["t1"], data / "odd" / "odd_0000.mha")
    inventory = inspect(data)
    assert [row[0] for row in inventory.rows] == ["phantom0000", "phantom0002"]
    twice, odd = inventory.notes[-2:]
    assert twice.startswith("case phantom0001 is found twice, in") and odd.startswith(f"{data / 'odd'} is left out")
    assert "every file is there and whole" not in inventory.notes


def test_what_segment_would_refuse_in_a_case_or_an_image_is_said(phantoms, tmp_path):
    for name, path in find_cases([phantoms])[0].images.items():
        write_image(read_image(path), tmp_path / "a" / f"{name}.nii.gz")
    lesion = read_labels(find_cases([phantoms])[0].lesion)
    assert inspect(tmp_path / "a").notes == ["layout: <case>/<sequence>.nii.gz"]
    write_image(lesion, tmp_path / "a" / "t1.nii.gz")
    (said,) = inspect(tmp_path / "a").notes[1:]
    assert said.startswith("case a: t1 holds only 5 values (0, 1, 2, 3, 4), as a label map does")
    flair = read_image(tmp_path / "a" / "flair.nii.gz")
    moved = np.eye(4)
    moved[0, 3] = 12
    write_image(replace(flair, forms=Forms(1, 2, moved)), tmp_path / "a" / "t1.nii.gz")
    write_image(Volume(lesion.array / np.float32(2), lesion.affine), tmp_path / "a" / "lesion.nii.gz")
    notes = inspect(tmp_path / "a").notes[1:]
    assert notes[0].startswith("t1: its sform and qform place it 12 mm apart")
    assert "fractions such as" in notes[1] and len(notes) == 2
    assert inspect(tmp_path / "a" / "t1.nii.gz").notes == (notes[0].removeprefix("t1: "),)
    write_image(Volume(flair.array[1:], flair.affine), tmp_path / "a" / "t2.nii.gz")
    assert any("t2 is (23, 40, 40) but flair is (24, 40, 40)" in note for note in inspect(tmp_path / "a").notes)


def test_a_file_of_several_images_is_shown(tmp_path):
    array = np.arange(5 * 2 * 3 * 4, dtype=np.int16).reshape(5, 2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "a.nii.gz"))
    (row,) = inspect(tmp_path / "a.nii.gz").rows
    assert row == ("a.nii.gz", "5 images of 2 x 3 x 4", "1 x 1 x 1", "int16", "0", "119")


def test_a_case_shows_its_images_and_labels(phantoms):
    inventory = inspect(phantoms / "phantom0001")
    assert inventory.title == "case phantom0001"
    assert [row[0] for row in inventory.rows] == ["flair", "t1", "t1c", "t2", "lesion"]
    assert inventory.rows[-1][1:] == ("24 x 40 x 40", "6.42 x 4.9 x 4.9", "uint8", "0", "4")


def test_an_image_is_shown_by_itself(phantoms):
    path = find_cases([phantoms])[0].images["t1c"]
    (row,) = inspect(path).rows
    assert row[:2] == (path.name, "24 x 40 x 40") and row[3] == "int16"


def test_what_is_nothing_of_these_is_refused(trained, tmp_path):
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(ImageError, match=r"nowhere\.nii\.gz does not exist"):
        inspect(tmp_path / "nowhere.nii.gz")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DatasetError, match=r"notes\.txt is neither a folder nor"):
        inspect(tmp_path / "notes.txt")
    shutil.copytree(trained / "best", tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"others")
    with pytest.raises(ModelError, match="SHA-256 differs"):
        inspect(tmp_path / "model")
