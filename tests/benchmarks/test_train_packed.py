"""Training on a pack: where no image can be read, from a model or from nothing, with the card that `train` writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from brainsegnet.errors import DatasetError, ModelError, OutputError
from brainsegnet.model.store import open_model
from brainsegnet.task import BRATS2015
from brainsegnet.training import TrainOptions
from brainsegnet.training.split import load_scans, split_cases
from release.packed import Pack, read_pack, write_pack

ABSENT = ("SimpleITK", "openvino", "nncf", "monai", "cyclopts")
WITHOUT = f"""
import runpy, sys
sys.modules |= dict.fromkeys({ABSENT!r})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script where these cannot be imported."""
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_packed.py"
MOMENT = ["--steps", "1", "--seed", "3"]


@pytest.fixture(scope="module")
def packed(phantoms, tmp_path_factory):
    split = split_cases([phantoms], BRATS2015, TrainOptions(validation=0))
    path = tmp_path_factory.mktemp("packed") / "phantoms.npz"
    write_pack(Pack("brats2015", split.sequences, load_scans(split.training, split)), path)
    return path


@pytest.fixture(scope="module")
def train_packed(benchmark_called):
    return benchmark_called("train_packed")


def test_it_trains_from_a_model_where_no_library_for_images_is_installed(packed, trained, tmp_path):
    given = [str(packed), "--from", str(trained / "last"), "--hold-out", "phantom0002", "--out", str(tmp_path / "run")]
    told = ["--licence", "CC0-1.0", "--sources", "simulated phantoms", *MOMENT]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(SCRIPT), *given, *told], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "recipe finetune, 1 steps" in done.stdout and "held out: phantom0002" in done.stdout
    card, parent = open_model(tmp_path / "run" / "last").card, open_model(trained / "last").card
    note = card.training
    assert (card.licence, note.data.sources) == ("CC0-1.0", "simulated phantoms")
    assert note.data.cases == ("phantom0000", "phantom0001") and note.held_out == ("phantom0002",)
    assert note.started_from.sha256 == parent.weights.sha256 and note.interpolated == 0.5
    assert card.network == parent.network and set(note.scores) == set(BRATS2015.regions)


def steps(run):
    """Steps of which the log of a training tells, and the scores on its last card."""
    rows = (run / "log.csv").read_text().splitlines()[1:]
    return sorted({int(row.split(",")[0]) for row in rows}), open_model(run / "last").card.training.scores


def test_a_training_is_resumed_and_neither_overwritten_nor_continued_with_others(train_packed, packed, tmp_path):
    run = tmp_path / "run"
    given = [str(packed), "--recipe", "quick", "--seed", "3", "--out", str(run), "--hold-out"]
    train_packed.main([*given, "phantom0001", "--steps", "2"])
    first, scores = steps(run)
    assert first == [1, 2] and set(scores) == set(BRATS2015.regions)
    with pytest.raises(OutputError, match="already holds a training"):
        train_packed.main([*given, "phantom0001", "--steps", "2"])
    with pytest.raises(ModelError, match=r"holds a training with other .* cases \(phantom0001, phantom0002 differ\)"):
        train_packed.main([*given, "phantom0002", "--steps", "4", "--resume"])
    train_packed.main([*given, "phantom0001", "--steps", "2", "--resume"])
    assert steps(run) == (first, scores)
    train_packed.main([*given, "phantom0001", "--steps", "4", "--resume"])
    assert steps(run)[0] == [1, 2, 3, 4]


def test_cases_may_be_simulated_alone(train_packed, tmp_path, capsys):
    run = tmp_path / "run"
    alone = ["--task", "isles2022", "--recipe", "quick", "--out", str(run), *MOMENT]
    with pytest.raises(SystemExit):
        train_packed.main(alone)
    assert "name a pack to train on, or a task and how many cases to simulate" in capsys.readouterr().err
    train_packed.main([*alone, "--simulated", "1"])
    card = open_model(run / "last").card
    assert (card.training.simulated.generator, card.training.simulated.seen, card.training.data.count) == (
        "isles2022",
        1,
        0,
    )


def test_cases_of_one_patient_stay_on_one_side_and_unknown_ones_are_refused(train_packed, packed):
    pack = read_pack(packed)
    scan = pack.scans["phantom0000"]
    twice = Pack(pack.task, pack.sequences, {"BraTS-GLI-00005-000": scan, "BraTS-GLI-00005-001": scan})
    with pytest.raises(
        DatasetError, match="BraTS-GLI-00005-000 is held out, but BraTS-GLI-00005-001 of the same patient"
    ):
        train_packed.split_cases(twice, TrainOptions(hold_out=("BraTS-GLI-00005-000",)))
    with pytest.raises(DatasetError, match="the pack has no case nobody; it has phantom0000, phantom0001, phantom0002"):
        train_packed.split_cases(pack, TrainOptions(hold_out=("nobody",)))
    with pytest.raises(DatasetError, match="no case is left to train on; hold out fewer"):
        train_packed.split_cases(pack, TrainOptions(hold_out=tuple(pack.scans)))
    split = train_packed.split_cases(pack, TrainOptions(hold_out=("phantom0001",)))
    assert [case.name for case in split.training] == ["phantom0000", "phantom0002"]
