"""Laws of the leaderboard: means and tests are those of numpy and scipy, and its three forms agree."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from brainsegnet.benchmark.leaderboard import (
    ModelResults,
    console_table,
    make_leaderboard,
    to_csv,
    to_json,
    to_markdown,
)
from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import score_region
from brainsegnet.metrics.statistics import holm

REGIONS = ("whole", "core")


def made(dice, cases=("a", "b", "c")):
    mask = np.ones((1, 1, 1), bool)
    score = score_region(mask, mask, (1.0, 1.0, 1.0))
    rows = {
        name: {region: replace(score, dice=d + i / 100) for region, d in zip(REGIONS, (dice, dice / 2), strict=True)}
        for i, name in enumerate(cases)
    }
    return ModelResults(rows, 1_250_000, 41_456.0, 3.5, 0.25, 100.5, 7.0)


@pytest.fixture
def results():
    return {"ours": made(0.8), "theirs": made(0.7), "other": made(0.8)}


def test_rows_are_means_and_differences_to_the_first(results):
    rows = make_leaderboard(results)
    assert rows["ours"]["whole"].mean == pytest.approx(0.81) and rows["ours"]["whole"].sd == pytest.approx(0.01)
    assert rows["ours"]["whole"].difference is None and rows["ours"]["whole"].p is None
    assert rows["theirs"]["core"].difference == pytest.approx(-0.05)
    assert rows["theirs"]["core"].difference_interval == pytest.approx((-0.05, -0.05))
    assert rows["theirs"]["whole"].p == pytest.approx(0.25) and rows["other"]["whole"].p == 1


def test_cases_are_paired_by_name_and_not_by_their_order(results):
    scores = dict(reversed(results["other"].scores.items()))
    shuffled = results | {"other": ModelResults(scores, 1, 1.0, 1.0, 1.0, 1.0, 1.0)}
    assert make_leaderboard(shuffled)["other"]["whole"].p == 1


def test_the_three_forms_hold_every_model_and_agree(results):
    markdown, rows = to_markdown(results, ("a note",)), list(csv.DictReader(io.StringIO(to_csv(results))))
    document = json.loads(to_json(results, {"seed": 1}, ("a note",)))
    assert [row["model"] for row in rows] == [name for name in results for _ in REGIONS]
    assert list(document["models"]) == list(results) and document["settings"] == {"seed": 1}
    for row in rows:
        dice = document["models"][row["model"]]["dice"][row["region"]]
        assert float(row["dice_mean"]) == dice["mean"] and float(row["dice_low"]) == dice["interval"][0]
        assert (row["p"] == "") == (dice["p"] is None) == (row["model"] == "ours")
        assert float(row["parameters"]) == 1_250_000 and float(row["seconds_per_scan"]) == 0.25
    lines = [re.sub(" +", " ", line) for line in markdown.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| ours", "| theirs", "| other"]
    assert "**0.810** ± 0.010 [0.800, 0.820]" in lines[2] and "**" not in lines[3]
    assert "1.25 M | 41.5 k | 3.50 | 0.25 | 100 |" in lines[2] and "- a note" in markdown
    assert document["models"]["theirs"]["cases"]["b"]["core"]["dice"] == pytest.approx(0.36)
    assert console_table(results).to_rich().row_count == 3


def test_of_two_cases_there_is_no_interval_and_p_is_told_to_be_out_of_reach():
    results = {"ours": made(0.8, ("a", "b")), "theirs": made(0.7, ("a", "b"))}
    rows = make_leaderboard(results)
    assert all(s.interval is None and s.difference_interval is None for r in rows.values() for s in r.values())
    assert rows["theirs"]["whole"].test.too_few and rows["theirs"]["whole"].p == 0.5
    markdown, document = to_markdown(results), json.loads(to_json(results, {}))
    assert "[0." not in markdown and "p cannot fall below 0.5 there" in markdown
    assert document["models"]["ours"]["dice"]["whole"]["interval"] is None
    assert [row["dice_low"] for row in csv.DictReader(io.StringIO(to_csv(results)))] == [""] * 4


def test_p_values_of_a_region_are_adjusted_over_its_models():
    cases = tuple("abcdefgh")
    models = {name: made(dice, cases) for name, dice in (("ours", 0.8), ("theirs", 0.7), ("other", 0.6))}
    rows = make_leaderboard(models)
    for region in REGIONS:
        raw = [rows[name][region].p for name in ("theirs", "other")]
        assert raw == [2**-7, 2**-7]
        assert [rows[name][region].p_adjusted for name in ("theirs", "other")] == holm(raw) == [2**-6, 2**-6]
    assert "cannot fall below" not in to_markdown(models)


def test_one_model_alone_is_tested_against_none(results):
    text = to_markdown({"ours": results["ours"]})
    assert "Against" not in text and "ours" in text


def test_of_several_seeds_each_case_counts_with_its_mean_and_the_means_spread(results):
    """The same rows as of one training that had the mean of each case; a part of a seed makes no mean."""
    cases = ("a", "b", "c")
    seeds = [made(dice, cases).scores for dice in (0.6, 0.9)]
    several = results | {"theirs": replace(made(0.3, cases), repeats=seeds)}
    one = results | {"theirs": made(0.6, cases)}
    for region in REGIONS:
        row, expected = (make_leaderboard(models)["theirs"][region] for models in (several, one))
        assert row.mean == pytest.approx(expected.mean) and row.sd == pytest.approx(expected.sd)
        assert row.difference == pytest.approx(expected.difference) and row.p == expected.p
        assert row.seed_sd == pytest.approx(np.std([0.3, 0.6, 0.9], ddof=1) / (1 if region == "whole" else 2))
        assert expected.seed_sd is None and make_leaderboard(several)["ours"][region].seed_sd is None
    markdown, document = to_markdown(several), json.loads(to_json(several, {}))
    assert ", seeds ± 0.300" in markdown and "mean over the seeds" in markdown
    assert "seeds" not in to_markdown(one)
    assert document["models"]["theirs"]["repeats"][1]["b"]["whole"]["dice"] == pytest.approx(0.91)
    assert [row["dice_seed_sd"] for row in csv.DictReader(io.StringIO(to_csv(several)))][:2] == ["", ""]
    part = [{"a": made(0.6, cases).scores["a"]}]
    row = make_leaderboard({"ours": replace(made(0.3, cases), repeats=part)})["ours"]["whole"]
    assert row.seed_sd is None and row.mean == pytest.approx((0.45 + 0.31 + 0.32) / 3)


def test_models_that_were_scored_on_other_cases_are_refused(results):
    with pytest.raises(DatasetError, match="theirs was not scored on the cases and regions of ours"):
        make_leaderboard(results | {"theirs": made(0.7, ("a", "b", "d"))})
    with pytest.raises(DatasetError, match="there are no models"):
        make_leaderboard({})


def test_mean_and_spread_are_numpys_and_the_test_is_scipys(rng):
    dice = rng.random((2, 9))
    results = {
        name: ModelResults(
            {str(i): {"whole": made(float(d)).scores["a"]["whole"]} for i, d in enumerate(row)}, 1, *[1.0] * 5
        )
        for name, row in zip(("ours", "theirs"), dice, strict=True)
    }
    ours, theirs = (board["whole"] for board in make_leaderboard(results).values())
    assert ours.mean == pytest.approx(dice[0].mean()) and ours.sd == pytest.approx(np.std(dice[0], ddof=1))
    assert theirs.difference == pytest.approx((dice[1] - dice[0]).mean())
    assert theirs.p == pytest.approx(stats.wilcoxon(dice[1], dice[0], method="exact").pvalue)


def test_the_page_of_two_models_computed_by_hand():
    """Two cases: Dice 0.8 and 0.81 of ours, 0.7 and 0.71 of theirs; half of that in the core."""
    two = {name: made(dice, ("a", "b")) for name, dice in (("ours", 0.8), ("theirs", 0.7))}
    lines = to_markdown(two).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:6]]
    costs = ["1.25 M", "41.5 k", "3.50", "0.25", "100"]
    assert lines[0] == "## Dice and cost over 2 cases" and len(set(map(len, lines[2:6]))) == 1
    assert rows[0] == ["Model", *REGIONS, "Parameters", "Mult.-adds/voxel", "Samples/s", "s/scan", "Steps"]
    assert rows[2] == ["ours", "**0.805** ± 0.007", "**0.405** ± 0.007", *costs]
    assert rows[3] == ["theirs", "0.705 ± 0.007", "0.355 ± 0.007", *costs]
    assert lines[7:13] == [
        "## Against ours",
        "",
        "| Model  | Region | Difference | 95 % interval |   p | p adjusted |",
        "| ------ | ------ | ---------: | ------------: | --: | ---------: |",
        "| theirs | whole  |     -0.100 |               | 0.5 |        0.5 |",
        "| theirs | core   |     -0.050 |               | 0.5 |        0.5 |",
    ]
