"""Laws of the calibration of probabilities: what is calibrated has no error, and a known error is measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainsegnet.model.card import BINS, LEAST_PROBABILITY, CalibrationNote
from release.reliability import count_bins, describe_reliability, expected_error

MIDDLES = (np.arange(BINS) + 0.5) / BINS


def exact(shares, voxels=1000, below=0):
    """As many voxels at the middle of each bin, of which just these shares are true; and certain background."""
    probability = np.repeat(MIDDLES, voxels)
    truth = np.concatenate([np.arange(voxels) < round(share * voxels) for share in shares])
    background = np.zeros(below)
    return count_bins(np.concatenate([probability, background]), np.concatenate([truth, background > 0]))


def note_of(*tallies) -> CalibrationNote:
    return describe_reliability({str(k): {"whole": tally} for k, tally in enumerate(tallies)})["whole"]


def test_calibrated_probabilities_have_no_error():
    note = note_of(exact(MIDDLES, below=50000))
    assert note.error == pytest.approx(0, abs=1e-12) and note.brain_error == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(0)
    probability = rng.random(400_000) ** 4
    note = note_of(count_bins(probability.astype(np.float32), rng.random(400_000) < probability))
    assert note.error < 0.004 and note.brain_error < 0.004
    for one in note.bins:
        assert one.share == pytest.approx(one.probability, abs=0.03)


@given(st.lists(st.integers(0, 1000), min_size=BINS, max_size=BINS))
def test_a_known_miscalibration_is_measured_exactly(true):
    shares = np.array(true) / 1000
    note = note_of(exact(shares, below=BINS * 1000))
    expected = np.abs(shares - MIDDLES).mean()
    assert note.error == note.error_by_case == pytest.approx(expected, rel=1e-3, abs=1e-9)
    assert note.brain_error == note.brain_error_by_case
    assert [one.share for one in note.bins] == pytest.approx(shares, abs=1e-4)
    assert [one.probability for one in note.bins] == pytest.approx(MIDDLES)
    assert note.below.voxels == BINS * 1000 and note.below.share == 0


def test_errors_of_opposite_sign_cancel_between_cases_but_not_in_their_mean():
    less, more = (exact(np.clip(MIDDLES + by, 0.05, 0.95)) for by in (-0.05, 0.05))
    middle = slice(1, -1)
    less, more = (np.concatenate([t[:1] * 0, t[1:2] * 0, t[1:][middle], t[-1:] * 0]) for t in (less, more))
    note = note_of(less, more)
    assert note.error == pytest.approx(0, abs=1e-9) and note.error_by_case == pytest.approx(0.05)
    assert note.cases == 2 and note.bins[0].probability is None and note.bins[0].share is None


def test_certain_background_hides_errors_in_the_brain_and_lesions_that_are_missed_are_told():
    probability = np.concatenate([np.full(1000, 0.75), np.zeros(99_000)])
    truth = np.concatenate([np.arange(1000) < 250, np.arange(99_000) < 750])
    note = note_of(count_bins(probability, truth))
    assert note.error == pytest.approx(0.5) and note.brain_error == pytest.approx(0.005 + 0.0075, rel=1e-3)
    assert note.missed == pytest.approx(0.75, rel=1e-3)


def test_a_case_in_which_nothing_is_probable_has_no_error_of_its_own():
    nothing = count_bins(np.zeros(100), np.zeros(100, bool))
    assert expected_error(nothing[1:]) is None
    assert note_of(nothing).error is None and note_of(nothing).error_by_case is None
    assert note_of(nothing).missed is None and note_of(nothing).brain_error == 0
    known = exact(np.zeros(BINS))
    assert note_of(nothing, known).error_by_case == note_of(known).error_by_case and note_of(nothing, known).cases == 2


@given(st.integers(0, 2**32 - 1))
def test_every_voxel_is_counted_once_in_the_bin_of_its_probability(seed):
    rng = np.random.default_rng(seed)
    probability, truth = (rng.random(500) ** rng.integers(1, 9)).astype(np.float32), rng.random(500) < 0.3
    tally = count_bins(probability, truth)
    assert tally[:, 0].sum() == 500 and tally[:, 2].sum() == truth.sum()
    assert tally[:, 1].sum() == pytest.approx(probability.sum(dtype=float))
    limits = [0, LEAST_PROBABILITY, *(np.arange(BINS) + 1) / BINS]
    for (voxels, predicted, _), low, high in zip(tally, limits, limits[1:], strict=False):
        assert not voxels or low - 1e-6 <= predicted / voxels <= high + 1e-6
