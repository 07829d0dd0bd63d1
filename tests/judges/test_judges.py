"""Other tools find the same scores, where their definitions are ours; see docs/results/judges.md."""

import pytest

from judges.agreement import CLAIMS, compare
from judges.panel import JUDGES

LEAST = 30
"""Masks on which every score is compared at least."""


def test_a_tool_gives_the_same_scores(verdict, pairs):
    name, answers = verdict
    for found in compare(name, answers, pairs):
        assert not found.different, f"{found.claim.score} is not {found.claim.ours}"
        assert not found.undefined and found.compared >= LEAST, found.claim.score


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_every_tool_is_asked_for_something(judge):
    assert [claim for claim in CLAIMS if claim.judge == judge.name]


def test_a_wrong_score_is_noticed(pairs):
    """The comparison itself: one changed answer of many is found, and an answer that is no number is counted."""
    from judges.agreement import score_pairs

    scores = score_pairs(pairs)
    answers = {pair.name: {} for pair in pairs}
    for (pair, region), score in scores.items():
        answers[pair][region] = {"dice": score.dice}
    (right,) = compare("surface_distance", answers, pairs)
    assert right.equal == right.compared == len(scores) and not right.undefined
    answers["equal"]["core"]["dice"] -= 0.01
    answers["twelve foci"]["whole"]["dice"] = float("nan")
    (wrong,) = compare("surface_distance", answers, pairs)
    assert [name for name, *_ in wrong.different] == ["equal, core"] and wrong.undefined == 1
    assert wrong.compared == len(scores) - 1
