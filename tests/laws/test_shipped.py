"""The models inside the package: complete, small, with origin and scores on their cards, and useful."""

from pathlib import Path

import numpy as np
import pytest

import brainsegnet
from brainsegnet.errors import BrainSegNetError
from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.openvino_backend import shared_core
from brainsegnet.model.brain_card import BRAIN_HOME, read_brain_card
from brainsegnet.model.store import BRAIN_CARD_FILE, HOME, shipped_models
from release.validation import parts_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "glioma"
MODELS = sorted(shipped_models())


def test_together_they_are_small():
    assert sum(path.stat().st_size for path in HOME.rglob("*") if path.is_file()) <= 60e6


def test_there_is_one_for_tumours_and_one_for_each_kind_of_stroke_scan():
    assert {"tumour", "stroke", "perfusion"} <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_card_names_origin_licence_and_scores(name):
    card = shipped_models()[name].card
    assert card.name == name and "not stated" not in card.licence + card.training.data.sources
    assert set(card.training.subsets) == {"+".join(part) for part in parts_of(card.sequences)}
    assert set(card.intervals) == set(card.task.regions) and card.profile is not None
    assert bool(card.training.comparisons) == bool(card.training.folds), "other ways with the same real cases"
    assert not [case for case in card.training.data.cases if case.startswith("brats_2013")]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["fp16", "int8"])
def test_exports_are_those_of_the_weights(name, form):
    assert shipped_models()[name].exported(form).is_file()


@pytest.mark.parametrize("name", MODELS)
def test_eight_bits_overflow_on_no_processor(name):
    """Without VNNI two products of an activation up to 255 and a weight have to fit into 16 bits."""
    network = shared_core().read_model(shipped_models()[name].exported("int8"))
    constants = [op.data for op in network.get_ops() if op.get_type_name() == "Constant"]
    kernels = [array for array in constants if array.dtype == np.int8 and array.ndim == 5]
    assert len(kernels) == 24
    assert max(2 * 255 * int(np.abs(kernel.astype(int)).max()) for kernel in kernels) < 2**15


def test_the_model_of_brains_is_small_whole_and_says_where_it_comes_from():
    card = read_brain_card()
    files = {path.name: path.stat().st_size for path in BRAIN_HOME.iterdir()}
    assert set(files) == {BRAIN_CARD_FILE, *card.files} and sum(files[name] for name in card.files) <= 1e6
    assert "no scan of a patient" in card.data and card.licence == "Apache-2.0"
    assert card.scores["dice"] > 0.9 and card.scores["lesion kept"] > 0.9


def test_eight_bits_of_the_model_of_brains_overflow_on_no_processor():
    network = shared_core().read_model(BRAIN_HOME / next(iter(read_brain_card().files)))
    constants = [op.data for op in network.get_ops() if op.get_type_name() == "Constant"]
    kernels = [array for array in constants if array.dtype == np.int8 and array.ndim == 5]
    assert len(kernels) > 15
    assert max(2 * 255 * int(np.abs(kernel.astype(int)).max()) for kernel in kernels) < 2**15


def test_the_default_model_finds_the_example(tmp_path):
    done = brainsegnet.segment(EXAMPLE, None, tmp_path)
    report = done.done[0].report
    assert report["model"]["name"] == "tumour" and not report["warnings"]
    scores = brainsegnet.evaluate(tmp_path, EXAMPLE, report["task"]).scores["glioma"]
    assert scores["whole"].dice > 0.75


def test_fewer_sequences_suffice_and_the_report_says_what_they_cost(tmp_path):
    done = brainsegnet.segment({"flair": EXAMPLE / "flair.nii.gz"}, None, tmp_path / "out.nii.gz")
    validation = done.done[0].report["validation"]
    assert set(validation) == {"all sequences", "those used"}


def test_insufficient_sequences_are_refused_and_if_allowed_give_a_warning(tmp_path):
    case, out = {"t1": EXAMPLE / "t1.nii.gz"}, tmp_path / "out.nii.gz"
    poor = "with t1 alone the model found hardly anything on unseen cases"
    with pytest.raises(BrainSegNetError, match=f"{poor}.*--allow-poor"):
        brainsegnet.segment(case, None, out)
    assert not [*tmp_path.iterdir()]
    done = brainsegnet.segment(case, None, out, SegmentOptions(allow_poor=True))
    assert any(warning.startswith(poor) for warning in done.done[0].report["warnings"])
