"""Cases simulated into memory are those that `simulate` writes, and a training on them needs no file."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brainsegnet.errors import BrainSegNetError, DatasetError, Interrupted, MissingSequence, TaskError
from brainsegnet.model.network import read_tensors
from brainsegnet.model.store import open_model
from brainsegnet.reporting.inspect import card_rows
from brainsegnet.simulation.simulate import SimulateOptions, simulate
from brainsegnet.task import BRATS2015, BRATS2021, ISLES2017, ISLES2022, TASKS, WHITE_MATTER_LESIONS
from brainsegnet.training import TrainOptions
from brainsegnet.training.simulated import SEED_STEP, open_buffer, plan_simulation
from brainsegnet.training.split import load_scans, split_cases
from brainsegnet.training.train import train

SHAPE, CPU = (30, 40, 34), torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def options(tiny):
    return TrainOptions(tiny, steps=4, simulated=1, refresh_every=2, anatomy="procedural", shape=SHAPE)


@pytest.mark.parametrize("task", [BRATS2015, BRATS2021, WHITE_MATTER_LESIONS])
def test_a_case_in_memory_is_the_one_that_simulate_writes_and_train_reads(options, tmp_path, task):
    options = replace(options, sequences=("flair", "t1c"), validation=0)
    simulated, held = plan_simulation(options, task, options.sequences), {}
    open_buffer(simulated, options, task, options.sequences, CPU).fill(4, held.__setitem__)
    lesion = "white-matter" if task is WHITE_MATTER_LESIONS else "glioma"
    assert simulated.generator == ("white-matter" if task is WHITE_MATTER_LESIONS else "realistic")
    simulate(
        tmp_path, SimulateOptions(1, simulated.seed + 2, SHAPE, realistic=True, lesion=lesion, anatomy="procedural")
    )
    split = split_cases(
        [tmp_path], task, replace(options, simulated=None, refresh_every=None, anatomy=None, shape=None)
    )
    (written,) = load_scans(split.training, split).values()
    assert np.array_equal(held[0].image, written.image) and np.array_equal(held[0].classes, written.classes)
    assert (held[0].depth, held[0].first) == (written.depth, written.first) and written.classes.max() == len(
        task.labels
    )
    assert held[0].spacing_mm == pytest.approx(written.spacing_mm)
    assert np.array_equal(held[0].outside.places, written.outside.places)


@pytest.mark.parametrize("task", [ISLES2022, ISLES2017])
def test_a_stroke_in_memory_is_the_one_that_simulate_writes_and_train_reads(tiny, tmp_path, task):
    sequences = task.sequences[:2]
    options = TrainOptions(tiny, steps=4, simulated=1, sequences=sequences, validation=0)
    simulated, held = plan_simulation(options, task, sequences), {}
    assert (simulated.generator, simulated.anatomy, simulated.kind) == (task.name, "", "strokes")
    open_buffer(simulated, options, task, sequences, CPU).fill(0, held.__setitem__)
    simulate(tmp_path, SimulateOptions(1, simulated.seed, stroke=task.name))
    split = split_cases([tmp_path], task, replace(options, simulated=None))
    (written,) = load_scans(split.training, split).values()
    assert written.classes.any() and np.array_equal(held[0].classes, written.classes)
    np.testing.assert_allclose(held[0].image, written.image, atol=1e-5)


def test_a_model_of_white_matter_lesions_trains_on_cases_that_nobody_wrote(options, recorder, tmp_path):
    heard = recorder()
    home = train([], "white-matter-lesions", tmp_path / "run", options, heard)
    expected = (
        f"1 simulated white-matter case in memory, one new every 2 steps; anatomy procedural, seeds from {SEED_STEP}"
    )
    assert heard.messages[1] == expected
    card = open_model(home).card
    assert (card.training.simulated.generator, card.task) == ("white-matter", WHITE_MATTER_LESIONS)
    row = dict(card_rows(card))["trained on"]
    assert row.startswith("0 cases; 2 white-matter cases simulated meanwhile (white-matter, anatomy procedural")


def test_the_tissues_of_a_task_decide_between_tumours_and_white_matter_lesions(options):
    lesions = WHITE_MATTER_LESIONS.model_copy(update={"name": "ms", "sequences": ("t1", "flair")})
    for task, generator in ((lesions, "white-matter"), (BRATS2021, "realistic")):
        assert plan_simulation(options, task, ("t1", "flair")).generator == generator


@pytest.mark.parametrize(("task", "generator"), [(ISLES2017, "isles2017"), (ISLES2022, "isles2022")])
def test_what_two_kinds_of_stroke_have_is_simulated_as_the_task_has_it(task, generator):
    assert plan_simulation(TrainOptions(simulated=1), task, ("adc",)).generator == generator


def test_a_stroke_model_trains_on_strokes_that_nobody_wrote(tiny, recorder, tmp_path):
    heard, options = recorder(), TrainOptions(tiny, steps=2, simulated=1, validation=0)
    home = train([], "isles2022", tmp_path / "run", options, heard)
    expected = f"1 simulated stroke in memory, one new every 40 steps; anatomy procedural, seeds from {SEED_STEP}"
    assert heard.messages[1] == expected
    row = dict(card_rows(open_model(home).card))["trained on"]
    assert row.startswith("0 cases; 1 strokes simulated meanwhile (isles2022, anatomy procedural, seeds from 1")


def test_a_training_needs_no_file_and_resumes_as_if_it_had_never_stopped(options, recorder, tmp_path):
    heard = recorder()
    homes = train([], "brats2021", tmp_path / "whole", options, heard), tmp_path / "part" / "last"
    stop = recorder(lambda event: os.kill(os.getpid(), signal.SIGINT) if event.step == 2 else None)
    with pytest.raises(Interrupted):
        train([], "brats2021", tmp_path / "part", options, stop)
    train([], "brats2021", tmp_path / "part", replace(options, resume=True))
    whole, part = (read_tensors(home / "weights.safetensors")[0] for home in homes)
    assert all(torch.equal(tensor, part[name]) for name, tensor in whole.items())
    assert "no training case on disk, held out: none" in heard.messages[0]
    expected = f"1 simulated glioma in memory, one new every 2 steps; anatomy procedural, seeds from {SEED_STEP}"
    assert heard.messages[1] == expected
    note = open_model(homes[0]).card.training
    assert open_model(homes[1]).card.training.simulated == note.simulated and not note.data.cases
    assert (note.simulated.size, note.simulated.refresh_every, note.simulated.seen, note.simulated.seed) == (
        1,
        2,
        2,
        SEED_STEP,
    )
    assert (note.simulated.generator, note.simulated.anatomy, note.simulated.shape) == (
        "realistic",
        "procedural",
        SHAPE,
    )
    assert (
        "0 cases; 2 gliomas simulated meanwhile (realistic, anatomy procedural"
        in dict(card_rows(open_model(homes[0]).card))["trained on"]
    )
    with pytest.raises(BrainSegNetError, match="of a training with another recipe, task, seed or data"):
        train([], "brats2021", tmp_path / "part", replace(options, refresh_every=3, resume=True))


def test_simulated_cases_may_be_all_that_is_trained_on_where_real_ones_are_held_out(phantoms, options):
    names = tuple(f"phantom000{k}" for k in range(3))
    split = split_cases([phantoms], BRATS2015, replace(options, hold_out=names))
    assert not split.training and len(split.validation) == 3 and split.sequences == BRATS2015.sequences
    with pytest.raises(DatasetError, match="no case is left to train on"):
        split_cases([phantoms], BRATS2015, TrainOptions(hold_out=names))


def test_no_two_trainings_simulate_the_same_and_none_what_simulate_writes(options):
    seeds = [plan_simulation(replace(options, seed=seed), BRATS2021, ("t1",)).seed for seed in (0, 1, 2**63 - 1)]
    assert seeds[0] == SEED_STEP and seeds[1] - seeds[0] == SEED_STEP and len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"simulated": 0}, "simulated must be 1 or more, not 0"),
        ({"simulated": 2, "refresh_every": 0}, "refresh_every must be 1 or more, not 0"),
        (
            {"refresh_every": 9},
            "refresh_every 9 is for simulated cases, and none are asked for; say how many with --simulated",
        ),
        ({"anatomy": "icbm152"}, "anatomy icbm152 is for simulated cases"),
    ],
)
def test_options_that_make_no_sense_are_refused(chosen, sentence):
    with pytest.raises(TaskError, match=sentence):
        TrainOptions(**chosen)


CYST = TASKS["brats2015"].model_copy(update={"name": "cyst", "labels": {1: "cyst"}, "regions": {"all": (1,)}})
CT = BRATS2015.model_copy(update={"name": "ct", "sequences": ("ct",)})
ODD = BRATS2015.model_copy(update={"name": "odd", "sequences": ("t1", "pet")})


@pytest.mark.parametrize(
    ("task", "chosen", "kind", "sentence"),
    [
        (
            ODD,
            {},
            TaskError,
            "task odd is trained on t1, pet; what can be simulated is gliomas with flair, t1, t1c, t2; str",
        ),
        (
            ODD,
            {},
            TaskError,
            "rcbv, tmax, ttp; white matter lesions with flair, t1, t1c, t2; name those of one of them with --seq",
        ),
        (CT, {}, TaskError, "white matter lesions with flair, t1, t1c, t2; leave out --simulated"),
        (
            ISLES2022,
            {},
            TaskError,
            r"\(30, 40, 34\) is for simulated gliomas \(--shape\), and task isles2022 gets strokes",
        ),
        (
            BRATS2021,
            {"shapes": Path("s")},
            TaskError,
            r"s is for simulated strokes \(--shapes\), and task brats2021 gets g",
        ),
        (ISLES2022, {"shape": None, "shapes": Path("nowhere")}, DatasetError, "nowhere holds no lesion masks"),
        (CYST, {}, TaskError, "task cyst knows cyst, and simulated gliomas consist of necrosis, oedema"),
        (BRATS2021, {"sequences": ("pet",)}, MissingSequence, "task brats2021 has no sequence pet"),
        (BRATS2021, {"shape": None, "anatomy": "nowhere"}, DatasetError, "nowhere holds no label maps"),
        (BRATS2021, {"shape": SHAPE, "anatomy": "nowhere"}, TaskError, "the anatomy nowhere keeps its grid"),
        (BRATS2021, {"simulated": None}, DatasetError, "nothing to train on; name folders of cases, or simulate cases"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_written(
    options, tmp_path, task, chosen, kind, sentence
):
    if "simulated" in chosen:
        options = replace(options, refresh_every=None, anatomy=None, shape=None, **chosen)
    else:
        options = replace(options, **chosen)
    with pytest.raises(kind, match=sentence) as caught:
        train([], task, tmp_path / "out", options)
    assert "\n" not in str(caught.value) and not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_part_of_the_sequences_can_be_simulated(options):
    assert split_cases([], ODD, replace(options, sequences=("t1",))).sequences == ("t1",)


def test_procedural_anatomies_need_no_library_for_images():
    program = f"""
import sys
sys.modules["SimpleITK"] = None
import torch
from brainsegnet.training.simulated import open_buffer, plan_simulation
from brainsegnet.training import TrainOptions
from brainsegnet.task import BRATS2021
options = TrainOptions(simulated=1, anatomy="procedural", shape={SHAPE})
scans = []
buffer = open_buffer(plan_simulation(options, BRATS2021, ("t2",)), options, BRATS2021, ("t2",), torch.device("cpu"))
buffer.fill(0, lambda place, scan: scans.append(scan))
print(scans[0].image.shape[0], scans[0].classes.max())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "3"], done.stderr
