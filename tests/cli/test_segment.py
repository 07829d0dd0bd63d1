import json
import re
import shutil
from dataclasses import fields

import numpy as np
import pytest

from brainsegnet.cli.segment import NamedFiles
from brainsegnet.inference import predict
from brainsegnet.inference.postprocessing import FilteredLabels
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, read_labels, write_image
from brainsegnet.model import store as shipped
from brainsegnet.model.card import ComponentFilter
from brainsegnet.model.store import open_model, save_model
from brainsegnet.task import TASKS

TRAIN = ("--task", "brats2015", "--steps", 1)
CPU = ("--device", "cpu", "--threads", 1)


def test_segment_takes_named_files_in_any_order(run, phantoms, strict, tmp_path):
    images = find_cases([phantoms])[0].images
    first = [part for name in images for part in (f"--{name}", images[name])]
    second = [part for name in reversed(images) for part in (f"--{name}", images[name])]
    for name, flags in (("a", first), ("b", second)):
        assert run("segment", *flags, "--model", strict, "--out", tmp_path / f"{name}.nii.gz", *CPU).code == 0
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_segment_tells_each_case_with_its_volumes_and_what_was_absent(run, phantoms, trained, tmp_path):
    out = tmp_path / "out"
    ended = run("segment", phantoms / "phantom0000", phantoms / "phantom0001", "--model", trained, "--out", out, *CPU)
    lines = ended.out.splitlines()
    assert ended.code == 0 and not ended.err and len(lines) == 2
    volume = json.loads((out / "phantom0001.json").read_text())["volumes_ml"]["regions"]["whole"]
    assert lines[1].startswith(f"phantom0001: whole {volume:.1f} ml, core ")
    assert lines[1].endswith(f" s; {out / 'phantom0001.nii.gz'}")
    flair = find_cases([phantoms])[0].images["flair"]
    ended = run("segment", "--flair", flair, "--model", trained, "--out", out, *CPU)
    assert ended.code == 0 and "; without t1, t1c, t2; " in ended.out


def test_segment_names_the_model_that_it_chose(run, phantoms, trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "best", tmp_path / "models" / "ours")
    monkeypatch.setattr(shipped, "HOME", tmp_path / "models")
    ended = run("segment", phantoms / "phantom0000", "--out", tmp_path / "a.nii.gz", *CPU)
    name = open_model(trained).card.name
    reason = "because the layout (BRATS 2015) means tumour; --model names another"
    assert ended.code == 0 and ended.out.splitlines()[0] == f"model {name}, {reason}"


def test_segment_passes_its_flags_on(run, phantoms, trained, tmp_path):
    out = tmp_path / "a.mha"
    flags = ("--probabilities", "--slabs", 31, "--picture")
    assert run("segment", phantoms / "phantom0002", "--model", trained, "--out", out, *flags, *CPU).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.json", "a.mha", "a.png", "a_background.nii.gz", "a_enhancing.nii.gz", "a_necrosis.nii.gz",
        "a_non-enhancing.nii.gz", "a_oedema.nii.gz",
    ]  # fmt: skip
    assert read_labels(out).on_grid_of(read_image(find_cases([phantoms])[2].images["flair"]))


def test_segment_says_what_it_dropped_and_keeps_it_on_request(run, phantoms, trained, tmp_path, monkeypatch):
    model = open_model(trained)
    card = model.card.model_copy(update={"components": ComponentFilter(confidence_margin=0.1)})
    folder = save_model(tmp_path / "dropping", card, model.tensors()).folder

    def find(predictor, image, margin, slabs):
        """Two components wherever components are to be dropped: phantoms have too few that a tiny model finds."""
        classes = predictor.classify(image, slabs)
        return FilteredLabels(classes, 0, 0) if margin is None else FilteredLabels(classes, 2, 1500)

    monkeypatch.setattr(predict, "segment_filtered", find)
    common = ("segment", phantoms / "phantom0002", "--model", folder, "--out", tmp_path / "a.nii.gz", *CPU)
    ended, report = run(*common), json.loads((tmp_path / "a.json").read_text())
    ml = 1500 * read_labels(tmp_path / "a.nii.gz").voxel_ml
    said = f"dropped 2 components of {ml:.1f} ml in all, of lower confidence; --keep-all-components keeps them"
    assert ended.code == 0 and said in ended.out
    assert report["dropped"] == {"confidence_margin": 0.1, "components": 2, "ml": pytest.approx(ml)}
    ended, report = run(*common, "--keep-all-components", "--overwrite"), json.loads((tmp_path / "a.json").read_text())
    assert ended.code == 0 and "dropped" not in ended.out
    assert report["dropped"] == {"confidence_margin": None, "components": 0, "ml": 0}


def test_segment_takes_the_mean_over_mirror_images_on_request(run, phantoms, trained, tmp_path):
    labels, reports = [], []
    for name, flags in (("one", ()), ("four", ("--tta",))):
        out = tmp_path / f"{name}.nii.gz"
        assert run("segment", phantoms / "phantom0002", "--model", trained, "--out", out, *flags, *CPU).code == 0
        labels.append(read_labels(out).array)
        reports.append(json.loads((tmp_path / f"{name}.json").read_text()))
    assert [report["test_time_augmentation"] for report in reports] == [False, True]
    assert np.any(labels[0] != labels[1])
    assert len(list(tmp_path.iterdir())) == 4, "no map is written that was not asked for"


def test_segment_needs_no_name_for_its_result_and_writes_over_none(run, phantoms, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flair = find_cases([phantoms])[0].images["flair"]
    files = [argument for name, path in find_cases([phantoms])[0].images.items() for argument in (f"--{name}", path)]
    for given, result in ((files, "segmented.nii.gz"), ([phantoms / "phantom0000"], "segmented/phantom0000.nii.gz")):
        command = ("segment", *given, "--model", trained, *CPU)
        assert run(*command).code == 0
        assert read_labels(tmp_path / result).on_grid_of(read_image(flair))
        before = (tmp_path / result).read_bytes()
        again = run(*command)
        assert again.code == 1 and "is there already, perhaps of another scan; name where to write" in again.sentence
        assert (tmp_path / result).read_bytes() == before


def test_segment_names_and_counts_what_it_left_out_and_what_failed(run, phantoms, strict, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantoms / "phantom0000", data / "phantom0000")
    for number in (1, 2):
        (data / f"odd{number}").mkdir()
        shutil.copy(find_cases([phantoms])[0].images["t1"], data / f"odd{number}" / "x_0000.mha")
    ended = run("segment", data, "--model", strict, "--out", tmp_path / "a", *CPU)
    assert ended.code == 0 and (tmp_path / "a" / "phantom0000.json").is_file()
    lines = ended.err.splitlines()
    for number in (1, 2):
        assert f"odd{number} is left out: its image x_0000.mha" in lines[number - 1]
    assert lines[2:] == ["brainsegnet: 2 folders are left out, beside the cases that were found"]
    shutil.copytree(data / "phantom0000", data / "odd1" / "phantom0000")
    shutil.copytree(phantoms / "phantom0001", data / "phantom0001")
    ended = run("segment", data, "--model", strict, "--out", tmp_path / "b", *CPU)
    assert ended.code == 1 and ended.err.endswith("1 of 2 cases could not be done; 1 could\n")
    assert f"found twice, in {data}/odd1/phantom0000 and in {data}/phantom0000" in ended.err


def test_segment_resamples_on_request(run, phantoms, strict, tmp_path):
    shutil.copytree(phantoms / "phantom0000", tmp_path / "case")
    path = find_cases([tmp_path])[0].images["t2"]
    volume = read_image(path)
    write_image(type(volume)(volume.array[:, :, ::2], volume.affine @ np.diag([1, 1, 2, 1.0])), path)
    common = ("segment", tmp_path / "case", "--model", strict, "--out", tmp_path / "a.nii.gz", *CPU)
    assert "resample" in run(*common, "--no-register").sentence
    assert run(*common, "--resample").code == 0 and (tmp_path / "a.nii.gz").is_file()


def test_segment_and_train_register_on_request(run, quick, phantoms, strict, tmp_path):
    shutil.copytree(phantoms / "phantom0000", tmp_path / "data" / "case")
    path = find_cases([tmp_path])[0].images["t2"]
    volume = read_image(path)
    affine = volume.affine.copy()
    affine[:3, 3] += (0, 40, 0)
    write_image(type(volume)(volume.array, affine), path)
    out = tmp_path / "a.nii.gz"
    ended = run("segment", tmp_path / "data", "--model", strict, "--out", out, "--register", *CPU)
    assert ended.code == 0 and read_labels(out).on_grid_of(read_image(find_cases([tmp_path])[0].images["flair"]))
    assert "case: on the grid of flair: t2 moved by 40.0 mm" in ended.out
    assert "case: warning: t2: registration moved it by 4" in ended.err
    assert "more than a patient is likely to move" in ended.err
    told = json.loads((tmp_path / "a.json").read_text())["geometry"]
    assert told["moved"]["t2"]["translation_mm"] == pytest.approx(40, abs=2.5)

    flags = ("--task", "brats2015", "--out", tmp_path / "run", "--steps", 1)
    assert "t2 and flair have the same shape" in run("train", tmp_path / "data", *flags).sentence
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    ended = run("train", tmp_path / "data", *flags, "--register")
    assert ended.code == 0 and "case case: t2: registration moved it by 4" in ended.out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "name either studies and folders of cases, or the files of one case"),
        (("CASE", "--no-register", "--register"), "--register"),
        (("--flair", "FLAIR"), "has no t1, t1c, t2, only flair"),
        (("CASE", "--slabs", 0), "a slab has at least one slice, not 0"),
        (("CASE", "--threads", 0), "threads must be 1 or more, not 0"),
        (("CASE", "--threads", -1), "threads must be 1 or more, not -1"),
    ],
)
def test_segment_refuses_flags_that_cannot_be_meant(run, left, phantoms, strict, tmp_path, flags, sentence):
    names = {"CASE": phantoms / "phantom0000", "FLAIR": find_cases([phantoms])[0].images["flair"]}
    ended = run("segment", *(names.get(flag, flag) for flag in flags), "--model", strict, "--out", tmp_path / "a.mha")
    assert (
        ended.code == (1 if flags == ("--flair", "FLAIR") else 2) and sentence in ended.sentence and not left(tmp_path)
    )


def test_evaluate_shows_scores_and_writes_them(run, phantoms, tmp_path):
    lesion = find_cases([phantoms])[0].lesion
    ended = run("evaluate", lesion, phantoms / "phantom0000", "--task", "brats2015", "--out", tmp_path / "scores")
    assert ended.code == 0 and not ended.err
    assert "phantom0000" in ended.out and "enhancing         1.000" in ended.out and "4 enhancing" in ended.out
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert scores["cases"]["phantom0000"]["core"]["dice"] == 1 and scores["task"] == "brats2015"


def test_evaluate_names_the_truths_that_have_no_prediction(run, phantoms, tmp_path):
    first = next(iter(find_cases([phantoms])))
    write_image(read_labels(first.lesion), tmp_path / "phantom0000.nii.gz")
    done = run("evaluate", tmp_path, phantoms, "--task", "brats2015")
    assert done.code == 0
    assert done.only_line == (
        "2 cases of the truth have no prediction and are not in these scores: phantom0001, phantom0002."
    )


def test_inspect_shows_models_runs_cases_folders_and_images(run, phantoms, trained):
    image = find_cases([phantoms])[0].images["t1"]
    for thing, expected in [
        (trained, "whole 0."),
        (trained / "last", "brats2015"),
        (phantoms, "phantom0002"),
        (phantoms / "phantom0000", "24 x 40 x 40"),
        (image, "int16"),
        (None, "models in the package"),
    ]:
        ended = run("inspect", *([thing] if thing else []))
        assert ended.code == 0 and expected in ended.out and not ended.err


def test_inspect_says_what_is_incomplete_and_train_refuses_it_at_the_start(run, left, phantoms, tmp_path):
    shutil.copytree(phantoms, tmp_path / "data")
    find_cases([tmp_path / "data"])[2].images["t1"].write_bytes(b"")
    ended = run("inspect", tmp_path / "data")
    assert ended.code == 1 and "layout: BRATS 2015 (3 cases)" in ended.out
    assert ended.err == "brainsegnet: 1 case cannot be segmented, see above\n"
    assert ended.out.endswith("incomplete: 1 of 3: phantom0002\n")
    ended = run("train", tmp_path / "data", "--task", "brats2015", "--out", tmp_path / "run")
    assert ended.code == 1 and "case phantom0002: " in ended.sentence and "is empty (0 bytes)" in ended.sentence
    assert not left(tmp_path / "run")


def test_inspect_exits_with_1_where_segment_could_not_use_a_case(run, phantoms, tmp_path):
    image = read_image(find_cases([phantoms])[0].images["flair"])
    for name in ("x_FLAIR_tra", "x_T2_first", "x_T2_second"):
        write_image(image, tmp_path / "p1" / f"{name}.nii.gz")
    ended = run("inspect", tmp_path / "p1")
    assert ended.code == 1 and ended.err == "brainsegnet: 1 case cannot be segmented, see above\n"
    assert "two series may be t2, x_T2_first.nii.gz and x_T2_second.nii.gz" in ended.out and "85%" in ended.out
    (tmp_path / "p1" / "x_T2_second.nii.gz").unlink()
    assert run("inspect", tmp_path / "p1").code == 0


def test_inspect_refuses_what_it_does_not_know(run, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    for thing, sentence in [
        ("nowhere", "nowhere does not exist"),
        ("nowhere.mha", "nowhere.mha does not exist"),
        ("notes.txt", "notes.txt is neither a folder nor a .csv or .yaml table"),
        ("empty", "empty holds no case of a known layout"),
    ]:
        ended = run("inspect", tmp_path / thing)
        assert ended.code == 1 and sentence in ended.sentence


def test_every_sequence_of_every_built_in_task_has_a_flag():
    known = {sequence for task in TASKS.values() for sequence in task.sequences}
    assert known == {field.name for field in fields(NamedFiles)}


def test_segment_says_that_nothing_was_found_and_the_time_from_files_to_files(run, phantoms, trained, tmp_path):
    model, out = open_model(trained), tmp_path / "a.nii.gz"
    weights = {name: tensor.clone() for name, tensor in model.tensors().items()}
    bias = next(name for name in reversed(weights) if name.endswith("bias") and len(weights[name]) == 5)
    weights[bias][0] += 1e4
    empty = save_model(tmp_path / "empty", model.card, weights).folder
    ended = run("segment", phantoms / "phantom0000", "--model", empty, "--out", out, *CPU)
    seconds = re.fullmatch(rf"phantom0000: nothing found; (\d+\.\d) s; {out}", ended.out.splitlines()[0])
    assert ended.code == 0 and seconds
    stages = json.loads((tmp_path / "a.json").read_text())["seconds"]
    assert float(seconds[1]) >= round(sum(stages.values()), 1) - 0.05


def test_segment_says_once_that_a_model_is_hardly_trained(run, phantoms, trained, tmp_path):
    model = open_model(trained)
    note = model.card.training.model_copy(update={"steps": 4})
    few = save_model(tmp_path / "few", model.card.model_copy(update={"training": note}), model.tensors()).folder
    ended = run("segment", phantoms, "--model", few, "--out", tmp_path / "out", *CPU)
    sentence = f"model {model.card.name} was trained for 4 steps only, so its labels mean little; train it for longer"
    assert ended.code == 0 and ended.err.count(sentence) == 1
    for case in find_cases([phantoms]):
        assert sentence in json.loads((tmp_path / "out" / f"{case.name}.json").read_text())["warnings"]


def test_segment_refuses_a_disease_without_a_model_though_a_model_takes_its_sequences(run, phantoms, left, tmp_path):
    image = read_image(find_cases([phantoms])[0].images["flair"])
    for name in ("FLAIR_N4_noneck", "T1_N4_noneck"):
        (tmp_path / "data" / "patient07").mkdir(parents=True, exist_ok=True)
        write_image(image, tmp_path / "data" / "patient07" / f"{name}.nii.gz")
    ended = run("segment", tmp_path / "data", "--out", tmp_path / "out", *CPU)
    assert ended.code == 1 and not left(tmp_path / "out")
    assert "case patient07: the layout (MS, Lesjak 2017) means multiple sclerosis, for which" in ended.sentence
    assert ended.sentence.endswith("name a model folder with --model")
