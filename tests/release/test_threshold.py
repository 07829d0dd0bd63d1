"""Models that call a voxel lesion from another probability on than the one they were trained to."""

import pytest
import torch

from brainsegnet.errors import ModelError
from brainsegnet.model.card import ComponentFilter, IntervalNote
from brainsegnet.model.store import open_model, save_model
from brainsegnet.reporting.inspect import card_rows
from release.threshold import shift_threshold


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.8])
def test_the_arg_max_decides_at_the_threshold(trained, tmp_path, threshold):
    before, after = open_model(trained / "last"), shift_threshold(trained / "last", tmp_path, threshold)
    torch.manual_seed(0)
    image = 3 * torch.randn(1, len(before.card.sequences), 8, 32, 32)
    with torch.no_grad():
        logits, shifted = (model.build().eval()(image) for model in (before, after))
    assert torch.equal(shifted[:, 1:], logits[:, 1:])
    probability = torch.sigmoid(logits[:, 1:].max(1).values - logits[:, 0])
    clear = (probability - threshold).abs() > 1e-4
    assert clear.float().mean() > 0.9
    assert torch.equal((shifted.argmax(1) > 0)[clear], (probability > threshold)[clear])
    assert torch.allclose(
        (shifted - logits)[:, 0], torch.logit(torch.tensor(threshold)).expand_as(probability), atol=1e-4
    )


def test_the_threshold_is_that_of_the_model_as_trained_however_often_it_is_moved(trained, tmp_path):
    first = shift_threshold(trained / "last", tmp_path / "a", 0.2)
    once = shift_threshold(trained / "last", tmp_path / "b", 0.4).tensors()
    again = shift_threshold(first.folder, tmp_path / "c", 0.4)
    back = shift_threshold(first.folder, tmp_path / "d", 0.5).tensors()
    original = open_model(trained / "last").tensors()
    assert again.card.threshold == 0.4
    assert all(torch.allclose(again.tensors()[name], tensor, atol=1e-5) for name, tensor in once.items())
    assert all(torch.allclose(back[name], tensor, atol=1e-5) for name, tensor in original.items())


def test_what_was_measured_at_another_threshold_is_not_claimed(trained, tmp_path):
    opened = open_model(trained / "last")
    intervals = {"whole": IntervalNote(alpha=0.2, coverage=0.8, cases=5)}
    scored = opened.card.model_copy(
        update={"intervals": intervals, "components": ComponentFilter(confidence_margin=0.1)}
    )
    save_model(tmp_path / "scored", scored, opened.tensors())
    card = shift_threshold(tmp_path / "scored", tmp_path, 0.3).card
    assert not card.training.scores and not card.training.subsets and not card.intervals and not card.exports
    assert card.components == ComponentFilter()
    told = dict(card_rows(open_model(tmp_path).card))
    assert told["decision"] == "lesion where its probability is at least 0.3"
    assert dict(card_rows(open_model(trained / "last").card))["decision"] == "most probable class"


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.2, 7.0])
def test_what_is_no_probability_is_refused(trained, tmp_path, threshold):
    with pytest.raises(ModelError, match=f"between 0 and 1, not {threshold:g}"):
        shift_threshold(trained / "last", tmp_path / "out", threshold)
    assert not (tmp_path / "out").exists()
