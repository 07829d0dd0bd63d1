"""Which results are unlike the others, and how that is told."""

import numpy as np
import pytest

from brainsegnet.cohort.outliers import (
    LEAST_CASES,
    Measure,
    count_kinds,
    describe_kind,
    find_outliers,
    measure_note,
    score,
)

WHOLE, CORE, BRAIN = Measure("volume", "whole"), Measure("volume", "core"), Measure("brain")
MOVED, AGREEMENT = Measure("moved", "t2"), Measure("agreement", "t2")


def draw(measure, rng, count=200, mean=50.0):
    return [{measure: float(value)} for value in rng.lognormal(np.log(mean), 0.5, count)]


def told(cases, tumour=True):
    return {place: [one.sentence for one in found] for place, found in enumerate(find_outliers(cases, tumour)) if found}


def test_a_volume_far_from_the_others_is_an_outlier_on_either_side(rng):
    cases = [*draw(WHOLE, rng), {WHOLE: 2000.0}, {WHOLE: 0.5}]
    assert told(cases) == {
        200: ["whole tumour of 2000 ml: larger than all others"],
        201: ["whole tumour of 0.5 ml: smaller than all others"],
    }


def test_the_share_is_that_of_the_cohort(rng):
    cases = [*draw(WHOLE, rng, 197), *[{WHOLE: ml} for ml in (2000.0, 2000.0, 2000.0)]]
    assert told(cases)[199] == ["whole tumour of 2000 ml: larger than 98 % of the cohort"]


@pytest.mark.parametrize("factor", [0.01, 1.0, 1000.0])
def test_the_unit_of_volumes_does_not_matter(rng, factor):
    cases = [*draw(WHOLE, rng), {WHOLE: 2000.0}, {WHOLE: 0.5}]
    scaled = [{WHOLE: case[WHOLE] * factor} for case in cases]
    strengths = [[round(one.strength, 6) for one in found] for found in find_outliers(scaled)]
    assert strengths == [[round(one.strength, 6) for one in found] for found in find_outliers(cases)]


def test_few_cases_have_no_outlier(rng):
    cases = [*draw(WHOLE, rng, LEAST_CASES - 2), {WHOLE: 1e5}]
    assert told(cases) == {}
    assert told([*cases, {WHOLE: 50.0}])


def test_equal_values_have_no_outlier_but_one_that_differs():
    assert told([{WHOLE: 10.0}] * 50) == {}
    assert told([*[{WHOLE: 10.0}] * 50, {WHOLE: 10.5}]) == {}
    assert [*told([*[{WHOLE: 10.0}] * 50, {WHOLE: 20.0}])] == [50]


@pytest.mark.parametrize(("zeros", "named"), [(4, True), (20, True), (40, False)])
def test_a_volume_of_zero_is_an_outlier_where_it_is_rare(rng, zeros, named):
    cases = [{**case, CORE: case[WHOLE] / 2} for case in draw(WHOLE, rng, 200 - zeros)]
    found = told([*cases, *[{WHOLE: 30.0, CORE: 0.0}] * zeros])
    sentence = f"tumour core of 0 ml, as in {zeros // 2} % of the cohort"
    assert found == ({200 - n: [sentence] for n in range(zeros, 0, -1)} if named else {})


def test_a_result_without_any_lesion_has_one_reason(rng):
    cases = [{**case, CORE: case[WHOLE] / 2} for case in draw(WHOLE, rng, 198)]
    found = told([*cases, *[{WHOLE: 0.0, CORE: 0.0}] * 2])
    assert found == {place: ["no lesion was found, as in 1 % of the cohort"] for place in (198, 199)}


def test_of_motion_and_agreement_one_side_counts(rng):
    cases = [{MOVED: case[MOVED], AGREEMENT: 0.9} for case in draw(MOVED, rng, mean=3.0)]
    found = told([*cases, {MOVED: 90.0, AGREEMENT: 0.2}, {MOVED: 0.0, AGREEMENT: 1.5}])
    far, unlike = "t2 was moved by 90 mm: further", "t2 agrees with the reference by 0.2 nats: less"
    assert found == {200: [f"{unlike} than all others", f"{far} than all others"]}


def test_most_cases_of_one_distribution_are_no_outliers():
    values = np.random.default_rng(0).lognormal(3, 1, 20_000)
    assert np.mean(np.abs(score(values, 0.05, 1e-6)) > 3.5) < 0.001


def test_the_json_of_a_result_is_measured_and_what_is_no_number_is_left_out():
    motion = {"translation_mm": 3.0, "rotation_degrees": None, "mutual_information_after": float("nan")}
    note = {
        "volumes_ml": {"regions": {"whole": 12.5, "core": "much"}, "labels": {"oedema": 3}},
        "geometry": {"moved": {"t2": motion, "t1": "lost"}, "in_place": None},
        "brain": {"how": "as given"},
        "head": {"skull": "stripped", "volume_ml": 1400.8},
    }
    assert measure_note(note) == {WHOLE: 12.5, BRAIN: 1400.8, MOVED: 3.0}
    assert BRAIN not in measure_note({**note, "head": {"skull": "skull on", "volume_ml": 4000.0}})
    assert measure_note({}) == {}


def test_warnings_that_differ_in_case_and_numbers_are_of_one_kind():
    pairs = [(f"p{n}", [f"case p{n}: t2 was moved by {n}.5 mm", f"/data/p{n}/t2.nii is odd"]) for n in range(3)]
    assert count_kinds(pairs) == {"t2 was moved by … mm": 3, "/data/…/t2.nii is odd": 3}
    assert describe_kind("a+b is odd", "a+b") == "… is odd"
