"""Pairs of repeated scans: those that are decided differently have no part in the constants of the tissue alone."""

import numpy as np
import pytest

from brainsegnet.model.store import resolve_model
from brainsegnet.volume import LabelMap

CARD = resolve_model("tumour").card


@pytest.fixture(scope="module")
def retest(benchmark_called):
    """The script."""
    return benchmark_called("retest")


def scan(retest, ruled_out):
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3:9, 3:9, 3:9] = 2
    labels[4:7, 4:7, 4:7] = 1 if ruled_out else 4
    return retest.Scan(LabelMap(labels, np.eye(4)), np.eye(4), "real", ruled_out)


@pytest.mark.parametrize("region", CARD.task.regions)
def test_pairs_are_left_out_of_the_decided_region_alone(retest, region):
    found = retest.pair_up([scan(retest, False), scan(retest, True), scan(retest, False)], CARD, region)
    assert found == ([(0, 2)] if region == "enhancing" else [(0, 1), (0, 2), (1, 2)])


def test_a_model_without_a_rule_keeps_all_pairs(retest):
    card = CARD.model_copy(update={"presence": None})
    assert len(retest.pair_up([scan(retest, False), scan(retest, True)], card, "enhancing")) == 1


def test_volumes_that_a_decision_moved_are_in_no_pair(retest):
    pairs = retest.measure_pairs("case", [scan(retest, False), scan(retest, True), scan(retest, False)], CARD)
    assert [(pair.before, pair.after) for pair in pairs["volumes"]["enhancing"]] == [
        pytest.approx((1.861, 1.861), 0.01)
    ]
    assert len(pairs["volumes"]["whole"]) == 3 and all(pair.apart == 0 for pair in pairs["volumes"]["whole"])


def test_decisions_are_counted_by_head(retest, tmp_path):
    for name, ruled_out in (("a.0", False), ("a.1", True), ("a.2", True), ("b.0", False), ("b.1", False)):
        np.savez(tmp_path / f"{name}.npz", ruled_out=ruled_out)
    assert retest.count_decisions(tmp_path) == {"pairs": 4, "differ": 2, "both": 1}
