import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.benchmark.leaderboard import Entry, stand, to_csv, to_json, to_markdown, to_rich
from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import score_region
from brainsegnet.metrics.statistics import holm

REGIONS = ("whole", "core")


def entry(dice, cases=("a", "b", "c")):
    mask = np.ones((1, 1, 1), bool)
    score = score_region(mask, mask, (1.0, 1.0, 1.0))
    rows = {
        name: {region: replace(score, dice=d + i / 100) for region, d in zip(REGIONS, (dice, dice / 2), strict=True)}
        for i, name in enumerate(cases)
    }
    return Entry(rows, 1_250_000, 41_456.0, 3.5, 0.25, 100.5, 7.0)


@pytest.fixture
def entries():
    return {"ours": entry(0.8), "theirs": entry(0.7), "other": entry(0.8)}


def test_standings_are_means_and_differences_to_the_first(entries):
    rows = stand(entries)
    assert rows["ours"]["whole"].mean == pytest.approx(0.81) and rows["ours"]["whole"].sd == pytest.approx(0.01)
    assert rows["ours"]["whole"].difference is None and rows["ours"]["whole"].p is None
    assert rows["theirs"]["core"].difference == pytest.approx(-0.05)
    assert rows["theirs"]["core"].difference_interval == pytest.approx((-0.05, -0.05))
    assert rows["theirs"]["whole"].p == pytest.approx(0.25) and rows["other"]["whole"].p == 1


def test_cases_are_paired_by_name_and_not_by_their_order(entries):
    scores = dict(reversed(entries["other"].scores.items()))
    shuffled = entries | {"other": Entry(scores, 1, 1.0, 1.0, 1.0, 1.0, 1.0)}
    assert stand(shuffled)["other"]["whole"].p == 1


def test_the_three_forms_hold_every_model_and_agree(entries):
    markdown, rows = to_markdown(entries, ("a note",)), list(csv.DictReader(io.StringIO(to_csv(entries))))
    document = json.loads(to_json(entries, {"seed": 1}, ("a note",)))
    assert [row["model"] for row in rows] == [name for name in entries for _ in REGIONS]
    assert list(document["models"]) == list(entries) and document["settings"] == {"seed": 1}
    for row in rows:
        standing = document["models"][row["model"]]["dice"][row["region"]]
        assert float(row["dice_mean"]) == standing["mean"] and float(row["dice_low"]) == standing["interval"][0]
        assert (row["p"] == "") == (standing["p"] is None) == (row["model"] == "ours")
        assert float(row["parameters"]) == 1_250_000 and float(row["seconds_per_scan"]) == 0.25
    lines = [re.sub(" +", " ", line) for line in markdown.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| ours", "| theirs", "| other"]
    assert "**0.810** ± 0.010 [0.800, 0.820]" in lines[2] and "**" not in lines[3]
    assert "1.25 M | 41.5 k | 3.50 | 0.25 | 100 |" in lines[2] and "- a note" in markdown
    assert document["models"]["theirs"]["cases"]["b"]["core"]["dice"] == pytest.approx(0.36)
    assert to_rich(entries).row_count == 3


def test_of_two_cases_there_is_no_interval_and_p_is_told_to_be_out_of_reach():
    entries = {"ours": entry(0.8, ("a", "b")), "theirs": entry(0.7, ("a", "b"))}
    rows = stand(entries)
    assert all(s.interval is None and s.difference_interval is None for r in rows.values() for s in r.values())
    assert rows["theirs"]["whole"].test.too_few and rows["theirs"]["whole"].p == 0.5
    markdown, document = to_markdown(entries), json.loads(to_json(entries, {}))
    assert "[0." not in markdown and "p cannot fall below 0.5 there" in markdown
    assert document["models"]["ours"]["dice"]["whole"]["interval"] is None
    assert [row["dice_low"] for row in csv.DictReader(io.StringIO(to_csv(entries)))] == [""] * 4


def test_p_values_of_a_region_are_adjusted_over_its_models():
    cases = tuple("abcdefgh")
    models = {name: entry(dice, cases) for name, dice in (("ours", 0.8), ("theirs", 0.7), ("other", 0.6))}
    rows = stand(models)
    for region in REGIONS:
        raw = [rows[name][region].p for name in ("theirs", "other")]
        assert raw == [2**-7, 2**-7]
        assert [rows[name][region].p_adjusted for name in ("theirs", "other")] == holm(raw) == [2**-6, 2**-6]
    assert "cannot fall below" not in to_markdown(models)


def test_one_model_alone_is_tested_against_none(entries):
    text = to_markdown({"ours": entries["ours"]})
    assert "Against" not in text and "ours" in text


def test_of_several_seeds_each_case_counts_with_its_mean_and_the_means_spread(entries):
    """The same standings as of one training that had the mean of each case; a part of a seed makes no mean."""
    cases = ("a", "b", "c")
    seeds = [entry(dice, cases).scores for dice in (0.6, 0.9)]
    several = entries | {"theirs": replace(entry(0.3, cases), repeats=seeds)}
    one = entries | {"theirs": entry(0.6, cases)}
    for region in REGIONS:
        standing, expected = (stand(models)["theirs"][region] for models in (several, one))
        assert standing.mean == pytest.approx(expected.mean) and standing.sd == pytest.approx(expected.sd)
        assert standing.difference == pytest.approx(expected.difference) and standing.p == expected.p
        assert standing.seed_sd == pytest.approx(np.std([0.3, 0.6, 0.9], ddof=1) / (1 if region == "whole" else 2))
        assert expected.seed_sd is None and stand(several)["ours"][region].seed_sd is None
    markdown, document = to_markdown(several), json.loads(to_json(several, {}))
    assert ", seeds ± 0.300" in markdown and "mean over the seeds" in markdown
    assert "seeds" not in to_markdown(one)
    assert document["models"]["theirs"]["repeats"][1]["b"]["whole"]["dice"] == pytest.approx(0.91)
    assert [row["dice_seed_sd"] for row in csv.DictReader(io.StringIO(to_csv(several)))][:2] == ["", ""]
    part = [{"a": entry(0.6, cases).scores["a"]}]
    standing = stand({"ours": replace(entry(0.3, cases), repeats=part)})["ours"]["whole"]
    assert standing.seed_sd is None and standing.mean == pytest.approx((0.45 + 0.31 + 0.32) / 3)


def test_models_that_were_scored_on_other_cases_are_refused(entries):
    with pytest.raises(DatasetError, match="theirs was not scored on the cases and regions of ours"):
        stand(entries | {"theirs": entry(0.7, ("a", "b", "d"))})
    with pytest.raises(DatasetError, match="there are no models"):
        stand({})


def test_the_mean_is_numpys(entries, rng):
    dice = rng.random(5)
    scores = {str(i): {"whole": entry(float(d)).scores["a"]["whole"]} for i, d in enumerate(dice)}
    standing = stand({"ours": Entry(scores, 1, 1.0, 1.0, 1.0, 1.0, 1.0)})["ours"]["whole"]
    assert standing.mean == pytest.approx(dice.mean()) and standing.sd == pytest.approx(np.std(dice, ddof=1))
