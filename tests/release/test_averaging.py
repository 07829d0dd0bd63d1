"""The mean of models that started from the same one, and what its card says."""

import pytest
import torch

from brainsegnet.errors import ModelError
from brainsegnet.model.card import ComponentFilter, Data
from brainsegnet.model.store import open_model, save_model
from brainsegnet.reporting.inspect import card_rows
from release.averaging import average


@pytest.fixture
def models(trained, tmp_path):
    """A start, two models that went on from it, and what makes another such one."""
    start = open_model(trained / "last")

    def go_on(name, step, cases, **changes):
        note = start.card.training.model_copy(
            update={
                "started_from": start.card.as_parent(),
                "data": Data(cases=cases, count=len(cases), sources=f"sources of {name}"),
                "scores": {"whole": 0.5},
                "held_out": ("x", name),
            }
            | changes
        )
        moved = {key: t + step if t.is_floating_point() else t + int(step) for key, t in start.tensors().items()}
        card = start.card.model_copy(
            update={"name": name, "training": note, "components": ComponentFilter(confidence_margin=0.1)}
        )
        return save_model(tmp_path / name, card, moved).folder

    return start, go_on("a", 1.0, ("p", "q")), go_on("b", 3.0, ("q", "r")), go_on


def test_every_weight_is_the_mean_and_counts_are_the_first_ones(models, tmp_path):
    start, a, b, _ = models
    mean = average([a, b], tmp_path / "mean").tensors()
    first = open_model(a).tensors()
    assert any(not tensor.is_floating_point() for tensor in mean.values())
    for name, tensor in start.tensors().items():
        wanted = tensor + 2 if tensor.is_floating_point() else first[name]
        assert torch.allclose(mean[name], wanted, atol=1e-5)


def test_the_card_has_the_cases_of_all_and_no_score(models, tmp_path):
    start, a, b, _ = models
    card = average([b, a], tmp_path / "mean", sources="all").card
    note = card.training
    assert card.name == "b" and note.data == Data(cases=("q", "r", "p"), count=3, sources="all")
    assert note.started_from == start.card.as_parent() and note.trainings == 2 and note.interpolated == 0
    assert (
        not note.scores and not card.exports and card.components.confidence_margin is None and note.held_out == ("x",)
    )
    assert average([a, b], tmp_path / "other").card.training.data.sources == "sources of a; sources of b"
    assert dict(card_rows(card))["mean of"] == "2 trainings"


def test_the_start_and_what_a_training_kept_of_it_are_the_share_of_the_start(models, tmp_path):
    start, a, b, go_on = models
    with_start = average([start.folder, a, b], tmp_path / "mean", name="new")
    assert with_start.card.name == "new" and with_start.card.training.interpolated == pytest.approx(1 / 3)
    assert "start" not in with_start.card.training.data.sources
    half = go_on("half", 2.0, ("s",), interpolated=0.5)
    assert average([a, half], tmp_path / "two").card.training.interpolated == 0.25


def test_sixteen_bits_if_so_asked(models, tmp_path):
    _, a, b, _ = models
    exact, half = (average([a, b], tmp_path / str(h), half=h).tensors() for h in (False, True))
    floats = [name for name, tensor in exact.items() if tensor.is_floating_point()]
    assert all(half[name].dtype == torch.float16 and torch.equal(half[name], exact[name].half()) for name in floats)
    assert all(exact[name].dtype == torch.float32 for name in floats)


def test_what_has_no_mean_is_refused(models, trained, tmp_path):
    start, a, b, go_on = models
    out = tmp_path / "mean"
    with pytest.raises(ModelError, match="two models or more, not 1"):
        average([a], out)
    elsewhere = go_on("c", 5.0, ("p",), started_from=start.card.as_parent().model_copy(update={"sha256": "0" * 64}))
    anew = go_on("d", 7.0, ("p",), started_from=None)
    for other in (elsewhere, anew):
        with pytest.raises(ModelError, match="did not start from one model"):
            average([a, other], out)
    opened = open_model(b)
    save_model(tmp_path / "e", opened.card.model_copy(update={"threshold": 0.3}), opened.tensors())
    with pytest.raises(ModelError, match="models a and b differ in threshold"):
        average([a, tmp_path / "e"], out)
    needing = opened.card.input.model_copy(update={"any_subset": not opened.card.input.any_subset})
    save_model(tmp_path / "f", opened.card.model_copy(update={"input": needing}), opened.tensors())
    with pytest.raises(ModelError, match="models a and b differ in input"):
        average([a, tmp_path / "f"], out)
    save_model(tmp_path / "g", opened.card.model_copy(update={"licence": "other terms"}), opened.tensors())
    with pytest.raises(ModelError, match="models a and b differ in licence"):
        average([a, tmp_path / "g"], out)
    assert not out.exists()
