"""The training of brain extraction: resumed equals uninterrupted, and a voxel that is not seen teaches nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from brainsegnet.anatomy.heads import from_synthseg
from brainsegnet.model.network import read_tensors
from brainsegnet.simulation.head import HeadSample
from release import brain
from release.brain import BEST, LAST, LOG, VALIDATION, BrainTraining, Trainer, make_sample, measure_loss, stack

SHAPE = (32, 32, 32)
OPTIONS = BrainTraining(steps=4, batch=2, shape=SHAPE, warmup=1, validate_every=2, validation_scans=2)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(brain, "HEAD_SHAPE", SHAPE)


@pytest.fixture(scope="module")
def heads(onion):
    return [from_synthseg(onion())] * (max(VALIDATION) + 1)


def test_a_resumed_training_equals_an_uninterrupted_one(heads, tmp_path):
    whole, first = Trainer(OPTIONS, heads, tmp_path / "whole"), Trainer(OPTIONS, heads, tmp_path / "parts")
    whole.folder.mkdir()
    first.folder.mkdir()
    whole.run()
    first.train_step()
    first.stopped = True
    first.run()
    second = Trainer(OPTIONS, heads, tmp_path / "parts")
    assert second.step == 1
    second.run()
    one, other = (read_tensors(folder / LAST)[0] for folder in (whole.folder, second.folder))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_log_tells_every_validation_and_the_best_is_kept(heads, tmp_path):
    trainer = Trainer(OPTIONS, heads, tmp_path)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert trainer.best == max(line["dice"] for line in lines)
    assert (tmp_path / BEST).exists() == (trainer.best > 0)


def test_a_sample_follows_from_its_numbers(heads):
    one, again = (make_sample(OPTIONS, heads, 3, 1) for _ in range(2))
    other = make_sample(OPTIONS, heads, 3, 0)
    assert np.array_equal(one.image, again.image) and not np.array_equal(one.image, other.image)


def test_a_voxel_that_is_not_seen_teaches_nothing(heads):
    sample = make_sample(replace(OPTIONS, no_head=0.0), heads, 0, 0)
    seen = sample.seen.copy()
    seen[:16] = False
    hidden = HeadSample(sample.image, sample.brain, sample.lesion, seen)
    _, brain_share, weight = stack([hidden], 3.0)
    logits = torch.zeros(1, 1, *SHAPE, requires_grad=True)
    measure_loss(logits, brain_share, weight).backward()
    assert not logits.grad[..., :16, :, :].any() and logits.grad[..., 16:, :, :].any()


def test_right_logits_cost_less_than_wrong_ones(heads):
    _, share, weight = stack([make_sample(replace(OPTIONS, no_head=0.0), heads, 0, 0)], 3.0)
    right, wrong = (measure_loss(sign * 8 * (share - 0.5), share, weight) for sign in (1, -1))
    assert right < 0.5 < wrong
