import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from brainsegnet.inference import SegmentOptions
from brainsegnet.inference.postprocessing import (
    Decision,
    decide_presence,
    find_certainty,
    measure_presence,
    predict_presence,
)
from brainsegnet.inference.predict import predict
from brainsegnet.model.card import PRESENCE_FEATURES, PresenceRule
from brainsegnet.preprocessing.prepare import prepare
from brainsegnet.task import BRATS2021

NOTHING = dict.fromkeys(PRESENCE_FEATURES, 0.0)


def rule(intercept=0.0, **given):
    return PresenceRule(label=4, becomes=1, sequence="t1c", intercept=intercept, coefficients=NOTHING | given, cases=10)


@pytest.fixture
def ruled(engine, monkeypatch):
    """The engine of a model whose rule is given; each tissue is there if the intercept is positive."""

    def give(intercept, **changes):
        given = engine.card.input.model_copy(update={"any_subset": True, **changes})
        card = engine.card.model_copy(update={"presence": rule(intercept), "input": given})
        monkeypatch.setattr(engine, "card", card)
        return engine

    return give


def test_features_are_those_of_a_known_scan():
    channel = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    classes = np.zeros((10, 10, 10), np.uint8)
    classes[9, 9] = 3  # the ten brightest voxels
    classes[0, 0] = 1
    certainty = np.where(classes == 3, 204, 255).astype(np.uint8)
    found = measure_presence(classes, certainty, 3, channel, np.ones(classes.shape, bool))
    assert found["certainty"] == pytest.approx(math.log(0.8 / 0.2))
    assert found["log_voxels"] == 1 and found["log_share"] == pytest.approx(math.log10(0.5))
    assert found["rank"] == found["low_rank"] == pytest.approx(math.log(0.9999 / 0.0001))
    darkest = measure_presence(classes, certainty, 1, channel, np.ones(classes.shape, bool))
    assert darkest["rank"] == pytest.approx(-found["rank"])
    assert measure_presence(classes, certainty, 2, channel, classes == 0) is None


def test_features_do_not_depend_on_the_scale_of_the_sequence():
    rng = np.random.default_rng(0)
    channel, classes = rng.normal(size=(8, 9, 10)).astype(np.float32), rng.integers(0, 4, (8, 9, 10)).astype(np.uint8)
    brain = rng.random(classes.shape) < 0.7
    first = measure_presence(classes, classes, 3, channel, brain)
    assert measure_presence(classes, classes, 3, 8 * channel + 4, brain) == pytest.approx(first)


def test_the_probability_is_that_of_a_logistic_regression():
    found = predict_presence(rule(0.5, log_voxels=2.0, rank=-1.0), NOTHING | {"log_voxels": 1.0, "rank": 1.5})
    assert found == pytest.approx(1 / (1 + math.exp(-(0.5 + 2.0 - 1.5))))
    assert predict_presence(rule(1e6), NOTHING) == pytest.approx(1) and predict_presence(rule(-1e6), NOTHING) < 1e-9


@pytest.mark.parametrize("spacing_mm", [None, 1.0])
@pytest.mark.parametrize("probabilities", [False, True])
def test_an_absent_tissue_becomes_the_other_one(ruled, case, spacing_mm, probabilities):
    options = SegmentOptions(probabilities=probabilities)
    plain = predict(case, ruled(-9, spacing_mm=spacing_mm), replace(options, presence_check=False))
    found = predict(case, ruled(-9, spacing_mm=spacing_mm), options)
    assert np.any(plain.labels.array == 4) and not np.any(found.labels.array == 4)
    if not spacing_mm:
        np.testing.assert_array_equal(np.where(plain.labels.array == 4, 1, plain.labels.array), found.labels.array)
        assert found.volumes_ml["regions"]["core"] == plain.volumes_ml["regions"]["core"]
    assert not found.decision.kept and found.decision.probability < 0.01
    report = found.report()["presence"]
    assert (report["tissue"], report["becomes"]) == (BRATS2021.labels[4], BRATS2021.labels[1])
    assert plain.decision is None and plain.report()["presence"] is None


def test_marked_volume_is_that_without_the_decision(ruled, case):
    plain = predict(case, ruled(-9), SegmentOptions(presence_check=False))
    found = predict(case, ruled(-9))
    assert found.decision.marked_ml == pytest.approx(plain.volumes_ml["regions"]["enhancing"])


def test_a_tissue_that_is_there_stays(ruled, case):
    plain, found = predict(case, ruled(9), SegmentOptions(presence_check=False)), predict(case, ruled(9))
    np.testing.assert_array_equal(plain.labels.array, found.labels.array)
    assert found.decision.kept and found.decision.probability > 0.99


def test_nothing_is_decided_without_the_sequence_that_shows_the_tissue(ruled, case):
    part = replace(case, images={name: case.images[name] for name in ("flair", "t1")})
    assert predict(part, ruled(-9)).decision is None


def test_the_interval_of_an_absent_tissue_begins_at_zero(ruled, case):
    options = SegmentOptions(uncertainty=True)
    plain, found = predict(case, ruled(9), options).intervals, predict(case, ruled(-9), options).intervals
    assert plain["enhancing"].least_ml > 0 and found["enhancing"].least_ml == 0
    assert found["enhancing"].most_ml == plain["enhancing"].most_ml
    assert found["whole"] == plain["whole"] and found["core"] == plain["core"]


def test_merged_probabilities_choose_what_the_classes_say():
    rng = np.random.default_rng(1)
    soft = rng.dirichlet(np.ones(4), 500).T.reshape(4, 5, 10, 10).astype(np.float32)
    decision = Decision("enhancing", 0.1, False, "core", 1.0, source=3, target=1)
    merged = decision.merge(soft)
    np.testing.assert_allclose(merged.sum(0), soft.sum(0), atol=1e-6)
    assert not merged[3].any() and soft[3].any()
    assert decision.apply(soft.argmax(0).astype(np.uint8)).max() == 2


@pytest.mark.parametrize(
    "change", [{"label": 7}, {"sequence": "pet"}, {"coefficients": {"rank": 1.0}}, {"threshold": 1.0}]
)
def test_a_rule_that_does_not_fit_the_model_is_refused(engine, change):
    with pytest.raises(ValidationError):
        card = engine.card.model_dump() | {"presence": rule().model_dump() | change}
        type(engine.card).model_validate(card)


def test_no_rule_decides_nothing(engine):
    classes = np.full((2, 2, 2), 3, np.uint8)
    assert decide_presence(engine.card, classes, classes, {}, classes > 0, 0.001) is None


def test_certainty_is_the_probability_of_the_class(engine, case):
    image = prepare(case).image
    classes, confidence, certainty = engine.classify_with_certainty(image)
    first, second = engine.classify_with_confidence(image)
    np.testing.assert_array_equal(classes, first)
    np.testing.assert_array_equal(confidence, second)
    np.testing.assert_allclose(certainty, find_certainty(engine.probabilities(image)), atol=1)
