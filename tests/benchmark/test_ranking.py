"""Laws of the ranking: it knows which way is better, ties share, and order of naming changes nothing."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from brainsegnet.benchmark.rank import pairs_csv, ranking_json, ranking_markdown, ranking_tables, standings_csv
from brainsegnet.benchmark.ranking import RANKABLE, case_ranks, rank_models
from brainsegnet.errors import BrainSegNetError, DatasetError


def scores(seed, cases=8, better=0.0):
    """Two regions, Dice, HD95 and volume error; `better` raises Dice, lowers HD95 and the size of the error."""
    rng = np.random.default_rng(seed)
    return {
        f"pat|{i}": {
            region: {
                "dice": 0.6 + better + 0.01 * rng.random(),
                "hd95_mm": 9 - 9 * better + 0.01 * rng.random(),
                "volume_error_ml": rng.choice([-1, 1]) * (5 - 5 * better + 0.01 * rng.random()),
            }
            for region in ("whole", "core[x]")
        }
        for i in range(cases)
    }


@pytest.fixture
def models():
    return {"poor": scores(1), "good": scores(2, better=0.3), "fair": scores(3, better=0.1)}


@pytest.mark.parametrize("metric", ["dice", "hd95_mm", "volume_error_ml"])
def test_the_better_model_is_first_whatever_the_metric(models, metric):
    ranking = rank_models(models, [metric])
    assert [(s.model, s.place, s.mean_rank) for s in ranking.standings] == [
        ("good", 1, 1),
        ("fair", 2, 2),
        ("poor", 3, 3),
    ]
    assert [s.first for s in ranking.standings] == [1, 0, 0]
    assert ranking.means["good"]["whole"]["volume_error_ml" if metric == "volume_error_ml" else metric] >= 0


def test_ranks_are_those_of_scipy_averaged_within_the_case(rng):
    figures = rng.integers(0, 4, (5, 3, 4)) / 8
    ranks = case_ranks(figures, [False, True, False])
    expected = np.stack([stats.rankdata(sign * figures[:, k], axis=1) for k, sign in enumerate((-1, 1, -1))])
    assert np.allclose(ranks, expected.mean(axis=0))
    assert np.allclose(ranks.sum(axis=1), 1 + 2 + 3 + 4)


def test_equal_models_share_the_first_place_and_no_test_tells_them_apart():
    ranking = rank_models({"a": scores(1), "b": scores(1), "c": scores(2, better=-0.2)})
    assert [(s.model, s.place, s.mean_rank) for s in ranking.standings] == [("a", 1, 1.5), ("b", 1, 1.5), ("c", 3, 3)]
    assert [s.first for s in ranking.standings] == [0.5, 0.5, 0]
    assert ranking.rank_tests[0].p_value == 1
    pair = next(c for c in ranking.comparisons if (c.a, c.b) == ("a", "b"))
    assert (pair.difference, pair.test.equal, pair.test.p_value) == (0, 8, 1)


def test_naming_the_models_in_another_order_changes_signs_only(models):
    one, other = rank_models(models), rank_models(dict(reversed(models.items())))
    assert one.standings == other.standings
    swapped = {(c.region, c.metric, c.b, c.a): c for c in other.comparisons}
    for c in one.comparisons:
        twin = swapped[c.region, c.metric, c.a, c.b]
        assert (c.difference, c.test) == (pytest.approx(-twin.difference), twin.test)
        assert c.interval == pytest.approx((-twin.interval[1], -twin.interval[0]), abs=2e-3)


def test_each_pair_is_tested_and_adjusted_for_the_number_of_pairs(models):
    ranking = rank_models(models)
    assert len(ranking.rank_tests) == 3 and len(ranking.comparisons) == 3 * 2 * 2
    assert {t.p_value for t in ranking.rank_tests} == {2 / 2**8}
    assert {t.p_adjusted for t in ranking.rank_tests} == {6 / 2**8}
    for c in ranking.comparisons:
        assert c.interval[0] <= c.difference <= c.interval[1] and c.p_adjusted >= c.test.p_value


def test_two_cases_have_no_interval_and_a_warning():
    ranking = rank_models({"a": scores(1, cases=2), "b": scores(2, cases=2)})
    assert ranking.standings[0].interval is None and ranking.comparisons[0].interval is None
    text = ranking_markdown(ranking)
    assert "In 4 of 4 comparisons fewer than six cases differ: p cannot fall below 0.5 there" in text
    assert "bootstrap over cases" not in text


def test_what_cannot_be_ranked_is_refused(models):
    with pytest.raises(DatasetError, match="two models or more, not of 1"):
        rank_models({"a": models["good"]})
    with pytest.raises(BrainSegNetError, match="ranked by speed; choose from dice, sensitivity"):
        rank_models(models, ["dice", "speed"])
    with pytest.raises(BrainSegNetError, match="cannot be ranked by none"):
        rank_models(models, [])
    with pytest.raises(DatasetError, match=r"good has no assd_mm of case pat\|0, whole|poor has no assd_mm"):
        rank_models(models, ["assd_mm"])
    less = {name: s for name, s in models["fair"].items() if name != "pat|3"}
    with pytest.raises(DatasetError, match=r"good was scored on case pat\|3 but fair was not"):
        rank_models({"good": models["good"], "fair": less})
    with pytest.raises(DatasetError, match=r"fair was scored on case pat\|3 but good was not|has no case"):
        rank_models({"good": {}, "fair": {}})
    odd = {**models["fair"], "pat|2": {"whole": models["fair"]["pat|2"]["whole"]}}
    with pytest.raises(DatasetError, match=r"fair, case pat\|2: scores of whole instead of whole, core"):
        rank_models({"good": models["good"], "fair": odd})
    assert "predicted_volume_ml" not in RANKABLE


def test_tables_hold_the_same_figures(models):
    ranking = rank_models(models)
    standings = list(csv.DictReader(io.StringIO(standings_csv(ranking))))
    assert [(row["model"], float(row["mean_rank"])) for row in standings] == [("good", 1), ("fair", 2), ("poor", 3)]
    pairs = list(csv.DictReader(io.StringIO(pairs_csv(ranking))))
    assert len(pairs) == 3 + 12
    assert [float(row["p_value"]) for row in pairs[3:]] == [c.test.p_value for c in ranking.comparisons]
    document = json.loads(ranking_json(ranking))
    assert document["standings"][0]["model"] == "good" and len(document["comparisons"]) == 12
    assert document["comparisons"][0]["test"]["p_value"] == ranking.comparisons[0].test.p_value
    assert document["notes"][0].startswith("Rank 1 is best")
    markdown = ranking_markdown(ranking)
    assert "| 1.00 | 1.00 to 1.00 | 100 % |" in " ".join(markdown.split()).replace("|  ", "| ")


def test_the_console_fits_80_columns_and_shows_names_as_they_are(models):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    for table in ranking_tables(rank_models(models)):
        console.print(table)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "core[x] hd95_mm" in text and "poor - good" in text
