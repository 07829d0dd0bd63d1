import csv
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brainsegnet.errors import BrainSegNetError, DatasetError, ModelError, OutputError, TaskError
from brainsegnet.inference.postprocessing import filter_components
from brainsegnet.inference.tiling import TiledPredictor
from brainsegnet.inference.torch_backend import TorchBackend
from brainsegnet.model.store import open_model
from brainsegnet.task import BRATS2015
from brainsegnet.training import TrainOptions, loop
from brainsegnet.training import train as training_run
from brainsegnet.training.sampler import Scan
from brainsegnet.training.train import STATE, score, train


@pytest.fixture
def options(tiny):
    return TrainOptions(tiny, steps=2, hold_out=("phantom0002",))


def rows(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_where_no_tensorboard_is_installed_the_log_is_a_table(phantoms, options, tmp_path, monkeypatch):
    monkeypatch.setattr("brainsegnet.training.log.BOARDS", ("no_such_board",))
    train(phantoms, "brats2015", tmp_path / "run", options)
    assert {"log.csv", "log.json"} < set(left(tmp_path / "run")) and not (tmp_path / "run" / "tensorboard").exists()


def test_the_network_fits_the_number_of_cases(phantoms, tiny, tmp_path):
    """One case to train on is fewer than two, and two are not."""
    wide = tiny.model_copy(update={"narrow_below": 2})
    for held, widths in ((("phantom0002",), (4, 4, 8, 8)), (("phantom0001", "phantom0002"), (2, 2, 4, 4))):
        options = TrainOptions(wide, steps=1, hold_out=held, validations=0)
        card = open_model(train(phantoms, "brats2015", tmp_path / f"{len(held)}", options)).card
        assert card.network.widths == widths and tuple(card.training.recipe["widths"]) == widths


def test_the_first_message_names_sequences_cases_and_who_is_held_out(phantoms, options, recorder, tmp_path):
    heard = recorder()
    home = train(phantoms, "brats2015", tmp_path / "run", options, heard)
    assert home == tmp_path / "run" / "best"
    assert heard.messages[0].startswith(
        "task brats2015, sequences flair, t1, t1c, t2; 2 training cases, held out: phantom0002; recipe quick, 2 steps, "
    )
    assert ", 4 to 8 channels, 1 x cpu" in heard.messages[0]
    assert [event.step for event in heard.events if not event.dice] == [1, 2]


def test_a_run_keeps_best_last_logs_and_state(trained):
    assert {path.name for path in trained.iterdir()} == {
        "best", "last", "log.csv", "log.json", "tensorboard", STATE
    }  # fmt: skip
    assert open_model(trained / "best").folder != open_model(trained / "last").folder
    assert [row["step"] for row in rows(trained) if not row["dice_whole"]] == ["1", "2", "3"]
    log = json.loads((trained / "log.json").read_text())
    assert log["recipe"]["name"] == "quick" and log["budget"]["steps"] == 3 and log["seed"] == 0
    assert log["validations"][-1]["step"] == 3 and 0 <= log["validations"][-1]["dice_whole"] <= 1
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(("mm", "said"), [((1, 1, 1), 1.0), ((2, 2.1, 1.95), 2.0), ((5, 1, 1), None)])
def test_the_card_says_the_voxel_size_of_the_training_cases(options, phantoms, tmp_path, monkeypatch, mm, said):
    of = Scan.of
    monkeypatch.setattr(Scan, "of", lambda *given: replace(of(*given), spacing_mm=mm))
    card = open_model(train(phantoms, "brats2015", tmp_path / "run", replace(options, steps=1, validations=0))).card
    assert card.input.spacing_mm == said


def test_the_card_says_where_the_model_comes_from(trained):
    card = open_model(trained / "last").card
    note = card.training
    assert note.recipe["name"] == "quick" and note.recipe["widths"] == [4, 4, 8, 8]
    assert note.budget == {"steps": 3} and note.seed == 0
    assert note.data.cases == ("phantom0000", "phantom0001") and note.data.count == 2
    assert note.held_out == ("phantom0002",) and set(note.scores) == set(BRATS2015.regions)
    assert {"python", "torch", "brainsegnet", "numpy"} <= set(card.versions)
    assert card.task == BRATS2015 and card.input.any_subset and card.weights.bytes > 0 and card.licence


def test_sequences_name_the_channels_and_one_alone_is_never_dropped(phantoms, options, tiny, tmp_path):
    dropping = tiny.model_copy(update={"drop_sequences": 0.5})
    two = replace(options, recipe=dropping, sequences=("t1c", "flair"), licence="CC0")
    card = open_model(train(phantoms, "brats2015", tmp_path / "two", two)).card
    assert card.sequences == ("flair", "t1c") and card.input.any_subset and card.licence == "CC0"
    asked = replace(two, recipe=tiny, drop_sequences=0.25)
    card = open_model(train(phantoms, "brats2015", tmp_path / "asked", asked)).card
    assert card.training.recipe["drop_sequences"] == 0.25 and card.input.any_subset
    one = replace(two, sequences=("t2",), hold_out=())
    home = train(phantoms, "brats2015", tmp_path / "one", one)
    assert home == tmp_path / "one" / "last" and not (tmp_path / "one" / "best").exists()
    assert not open_model(home).card.input.any_subset


def test_a_finished_training_is_lengthened_by_resuming_it(phantoms, trained, tiny, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    recipe = tiny.model_copy(update={"drop_sequences": 0.5})
    longer = TrainOptions(recipe, steps=5, hold_out=("phantom0002",), resume=True)
    train(phantoms, "brats2015", tmp_path / "run", longer)
    assert [row["step"] for row in rows(tmp_path / "run") if not row["dice_whole"]] == ["1", "2", "3", "4", "5"]
    assert open_model(tmp_path / "run" / "last").card.training.budget == {"steps": 5}


def test_a_folder_whose_name_is_not_utf_8_is_refused_at_the_start(phantoms, tmp_path, options):
    with pytest.raises(OutputError, match="has a name that is not UTF-8, which the log of a training cannot have"):
        train(phantoms, "brats2015", tmp_path / "run\udcff", options)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_trained_over(phantoms, trained, options):
    before = {path: (trained / path).read_bytes() for path in left(trained)}
    with pytest.raises(OutputError, match="already holds a training; continue it with --resume"):
        train(phantoms, "brats2015", trained, options)
    assert {path: (trained / path).read_bytes() for path in left(trained)} == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hold_out": ()}, "with other training cases"),
        ({"sequences": ("flair", "t1")}, "with other sequences"),
        ({"seed": 1}, "is of a training with another recipe"),
        ({}, "is of a training with another recipe"),
    ],
)
def test_another_training_than_the_one_that_is_there_is_not_resumed(phantoms, trained, options, change, sentence):
    log = (trained / "log.csv").read_bytes()
    with pytest.raises(ModelError, match=sentence):
        train(phantoms, "brats2015", trained, replace(options, resume=True, **change))
    assert (trained / "log.csv").read_bytes() == log


def test_where_there_is_no_training_none_is_resumed(phantoms, options, tmp_path):
    with pytest.raises(OutputError, match="holds no state of a training to resume"):
        train(phantoms, "brats2015", tmp_path / "run", replace(options, resume=True))
    assert not left(tmp_path)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"devices": 0}, "devices must be 1 or more, not 0"),
        ({"nodes": -2}, "nodes must be 1 or more, not -2"),
        ({"validation": -1}, "validation must be 0 or more, not -1"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"drop_sequences": 1.5}, "the share of samples that lose sequences lies from 0 to 1, not at 1.5"),
        ({"accelerator": "tpu"}, "unknown accelerator 'tpu'; choose one of auto, cpu, cuda"),
        ({"steps": 3, "minutes": 2}, "a budget is one of epochs, steps and minutes, not 2 of them"),
        ({"hold_out": ("a",), "exclude": ("b", "a")}, "case a is to be held out and excluded at once"),
    ],
)
def test_options_out_of_their_range_are_refused(option, sentence):
    with pytest.raises(TaskError, match=sentence):
        TrainOptions(**option)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"devices": 3}, "a batch of 2 cannot be shared evenly by 3 devices"),
        (
            {"recipe": "fast"},
            "unknown recipe 'fast'; choose one of paper, quick, thorough, small-lesions, ",
        ),
        ({"seed": 2**63}, r"a seed lies between 0 and 2\^63 - 1"),
        ({"validation": 3, "hold_out": ()}, "no case is left to train on"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_is_written(
    phantoms, options, tmp_path, option, sentence
):
    with pytest.raises(BrainSegNetError, match=sentence):
        train(phantoms, "brats2015", tmp_path / "run", replace(options, **option))
    assert not left(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(phantoms, options, tmp_path):
    with pytest.raises(TaskError, match="no GPU that CUDA can use is here"):
        train(phantoms, "brats2015", tmp_path / "run", replace(options, accelerator="cuda"))
    assert not left(tmp_path)


def test_no_cases_and_an_output_below_a_file_are_refused(phantoms, options, tmp_path):
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        train(tmp_path / "nowhere", "brats2015", tmp_path / "run", options)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        train(phantoms, "brats2015", tmp_path / "file" / "run", options)
    assert left(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_a_scan_is_not_scored_that_is_trained_on_under_another_name(phantoms, options, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(phantoms, data)
    shutil.copytree(phantoms / "phantom0000", data / "copy")
    with pytest.raises(DatasetError, match="cases copy and phantom0000 hold the same scan"):
        train(data, "brats2015", tmp_path / "run", replace(options, hold_out=("copy",)))
    assert left(tmp_path / "run") == []


@pytest.mark.parametrize("held_out", [(), ("phantom0002",)])
def test_all_processes_validate_or_none_does_and_the_first_alone_has_a_log(
    phantoms, options, tmp_path, monkeypatch, held_out
):
    seen, launch = [], training_run.launch
    monkeypatch.setattr(loop, "fit", lambda scans, plan, fabric, monitoring, **more: seen.append(monitoring))
    for first in (True, False):
        process = SimpleNamespace(is_global_zero=first, world_size=1)
        monkeypatch.setattr(training_run, "launch", lambda *given: launch(*given) if first else process)  # noqa: B023
        out = tmp_path / f"{first}"
        train(phantoms, "brats2015", out, replace(options, hold_out=held_out, validation=0))
        assert (seen[-1].validate is not None) == bool(held_out) and bool(seen[-1].callbacks) == first
        assert (out / "log.csv").is_file() == first


def test_each_scan_is_scored_by_its_dice(trained, rng):
    net = open_model(trained).build()
    image = rng.normal(size=(4, 8, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        found = net(torch.from_numpy(image)[None])[0].argmax(0).numpy().astype(np.uint8)
    perfect, empty = Scan(image, found, 8, 0), Scan(image, np.zeros_like(found), 8, 0)
    predictor = TiledPredictor(TorchBackend.of(net))
    assert score(predictor, [perfect], BRATS2015) == {"whole": 1, "core": 1, "enhancing": 1}
    assert score(predictor, [perfect, empty], BRATS2015)["whole"].tolist() == [1, not found.any()]


def test_held_out_cases_are_scored_without_the_components_that_the_model_drops(noisy_predictor):
    predictor, image = noisy_predictor(BRATS2015.classes), np.zeros((4, 12, 20, 20), np.float32)
    classes, confidence = predictor.classify_with_confidence(image)
    left = filter_components(classes, confidence, 0.05)
    assert left.dropped_components
    scan = SimpleNamespace(image=image, classes=left.classes)
    assert score(predictor, [scan], BRATS2015, 0.05) == {"whole": 1, "core": 1, "enhancing": 1}
    assert score(predictor, [scan], BRATS2015)["whole"] < 1
