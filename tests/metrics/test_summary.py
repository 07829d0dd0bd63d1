"""Laws of the summary: no case is dropped, and the interval lies around the mean."""

import numpy as np
import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import METRICS, RegionScore
from brainsegnet.metrics.summary import summarise


def made(figure: float, empty: str | None = None) -> RegionScore:
    overlap = (figure, figure, 1.0, figure, 10 * figure, 3.0, 4.0, -1.0, -0.25)
    return RegionScore(*overlap, figure, figure, figure, figure, 2, 1, 3, empty)


def test_a_missed_lesion_stays_in_the_mean_and_is_counted():
    cases = {"a": {"lesion": made(0.8)}, "b": {"lesion": made(0.0, "prediction")}, "c": {"lesion": made(1.0, "both")}}
    summary = summarise(cases)
    assert summary.cases == 3
    assert summary.mean["lesion"]["dice"] == pytest.approx(0.6)
    assert summary.sd["lesion"]["dice"] == pytest.approx(np.std([0.8, 0.0, 1.0], ddof=1))
    assert summary.empty == {"lesion": {"both": 1, "prediction": 1, "truth": 0}}
    assert summary.lesions == {"lesion": {"lesions_found": 6, "lesions_missed": 3, "lesions_invented": 9}}


def test_intervals_lie_around_the_means_from_three_cases_up():
    cases = {str(i): {"lesion": made(figure)} for i, figure in enumerate((0.5, 0.7, 0.9))}
    summary = summarise(cases)
    low, high = summary.low["lesion"], summary.high["lesion"]
    assert all(low[m] <= summary.mean["lesion"][m] <= high[m] for m in METRICS)
    assert 0.5 <= low["dice"] < 0.7 < high["dice"] <= 0.9
    del cases["2"]
    assert not summarise(cases).low and not summarise(cases).high


def test_a_single_case_has_no_spread():
    summary = summarise({"a": {"lesion": made(0.8)}})
    assert summary.sd["lesion"] == dict.fromkeys(METRICS, 0.0)
    assert summary.mean["lesion"]["hd95_mm"] == 8.0


def test_nothing_to_summarise_and_regions_that_differ_are_refused():
    with pytest.raises(DatasetError, match="no scores"):
        summarise({})
    with pytest.raises(DatasetError, match="case b has scores of"):
        summarise({"a": {"whole": made(1.0)}, "b": {"core": made(1.0)}})
