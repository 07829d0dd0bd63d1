"""Lesions of successive scans are matched by overlap, then by the nearest; and followed over all scans."""

import numpy as np
import pytest

from brainsegnet.errors import GridMismatch
from brainsegnet.followup.matching import REACH_MM, Match, follow_lesions, match_lesions

MM = (1.0, 1.0, 1.0)


def draw(*boxes):
    """Boxes (start, stop) along each axis as lesions 1, 2, ..."""
    numbers = np.zeros((20, 20, 40), np.uint16)
    for number, (d, h, w) in enumerate(boxes, start=1):
        numbers[slice(*d), slice(*h), slice(*w)] = number
    return numbers


SMALL, LARGE = ((5, 8), (5, 8), (5, 8)), ((5, 15), (5, 15), (5, 15))
FAR, BESIDE = ((5, 8), (5, 8), (30, 33)), ((5, 8), (5, 8), (9, 12))


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ([SMALL], [SMALL], ["same"]),
        ([SMALL], [LARGE], ["same"]),
        ([LARGE], [SMALL], ["same"]),
        ([SMALL], [SMALL, FAR], ["same", "new"]),
        ([SMALL, FAR], [SMALL], ["same", "vanished"]),
        ([SMALL, BESIDE], [((5, 8), (5, 8), (5, 12))], ["merged"]),
        ([((5, 8), (5, 8), (5, 12))], [SMALL, BESIDE], ["split"]),
        ([SMALL, BESIDE], [((5, 8), (5, 8), (7, 10)), ((5, 8), (5, 8), (11, 14))], ["merged and split"]),
        ([], [], []),
        ([], [SMALL], ["new"]),
    ],
)
def test_what_happened_to_lesions_is_told(before, after, kinds):
    assert [match.kind for match in match_lesions(draw(*before), draw(*after), MM)] == kinds


def test_a_touch_is_no_match_but_a_tenth_of_the_smaller_is():
    before = draw(((5, 15), (5, 15), (5, 15)))
    touching = draw(((5, 15), (5, 15), (15, 25)))
    touching[5, 5:14, 14] = 1
    assert [match.kind for match in match_lesions(before, touching, MM)] == ["vanished", "new"]
    assert [match.kind for match in match_lesions(before, draw(((5, 15), (5, 15), (14, 24))), MM)] == ["same"]


def test_a_small_lesion_that_missed_itself_is_found_again_only_nearby():
    speck = draw(((5, 7), (5, 7), (5, 7)))
    for shift, kinds in ((2, ["same"]), (3, ["same"]), (4, ["vanished", "new"])):
        after = draw(((5, 7), (5, 7), (5 + shift, 7 + shift)))
        assert REACH_MM == 3 and [match.kind for match in match_lesions(speck, after, MM)] == kinds


def test_a_lesion_beside_one_that_stays_is_new():
    assert [match.kind for match in match_lesions(draw(SMALL), draw(SMALL, BESIDE), MM)] == ["same", "new"]


def test_distance_counts_in_millimetres():
    before, after = draw(((5, 7), (5, 7), (5, 7))), draw(((5, 7), (5, 7), (7, 9)))
    assert [match.kind for match in match_lesions(before, after, (1.0, 1.0, 2.0))] == ["vanished", "new"]


def test_each_lesion_is_in_one_match_and_reversal_mirrors_it(rng):
    for _ in range(20):
        arrays = [draw(*(_box(rng) for _ in range(6))) for _ in range(2)]
        matches = match_lesions(arrays[0], arrays[1], MM)
        for side, array in enumerate(arrays):
            numbers = [n for match in matches for n in (match.before, match.after)[side]]
            assert sorted(numbers) == sorted(set(np.unique(array).tolist()) - {0})
        mirrored = {(match.after, match.before) for match in match_lesions(arrays[1], arrays[0], MM)}
        assert mirrored == {(match.before, match.after) for match in matches}


def test_two_grids_are_refused():
    with pytest.raises(GridMismatch):
        match_lesions(draw(), np.zeros((2, 2, 2), np.uint16), MM)


def test_a_lesion_that_returns_is_another_track():
    steps = [[Match((1,), ())], [Match((), (1,))]]
    assert [track.lesions for track in follow_lesions([[1], [], [1]], steps)] == [((1,), (), ()), ((), (), (1,))]


def test_lesions_that_merge_are_one_track_from_the_start():
    steps = [[Match((1,), (1,)), Match((2,), (2,))], [Match((1, 2), (1,))]]
    assert [track.lesions for track in follow_lesions([[1, 2], [1, 2], [1]], steps)] == [((1, 2), (1, 2), (1,))]


def _box(rng):
    starts = rng.integers(0, (14, 14, 34))
    return [(int(a), int(a + b)) for a, b in zip(starts, rng.integers(1, 6, 3), strict=True)]
