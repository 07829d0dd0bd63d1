"""Laws of the tables: they hold the same numbers as the scores, parse, and name convention and empty masks."""

import csv
import io
import json
import statistics

import numpy as np
import pytest
from rich.console import Console

from brainsegnet.errors import DatasetError
from brainsegnet.metrics.lesions import BRATS2023_GLIOMA
from brainsegnet.metrics.scores import METRICS, RegionScore, ScoreRules, score_case
from brainsegnet.metrics.tables import to_csv, to_json, to_markdown, to_rich
from brainsegnet.task import BRATS2021, BRATS2023, ISLES2017, Task


def scored(task: Task, names: tuple[str, ...]) -> dict[str, dict[str, RegionScore]]:
    values = np.array(task.label_values)
    maps = np.random.default_rng(3).choice(values, size=(len(names), 2, 4, 9, 9))
    return {name: score_case(p, t, task, (1.5, 0.7, 0.7)) for name, (p, t) in zip(names, maps, strict=True)}


@pytest.fixture
def cases() -> dict[str, dict[str, RegionScore]]:
    cases = scored(BRATS2023, ("pat, one", "pat|two", "pat[three]"))
    empty = RegionScore(0, 0, 1, 0, 373.1287, 0, 1.25, -1.25, -1, 373.1287, 0, 0, 0, 0, 2, 0, "prediction")
    return cases | {"missed": {**cases["pat|two"], "enhancing": empty}}


def printed(table: object, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_csv_holds_every_score_in_full_precision(cases):
    rows = list(csv.DictReader(io.StringIO(to_csv(cases, BRATS2023))))
    assert len(rows) == 4 * 3 + 4 * 3
    for row in rows[:12]:
        score = cases[row["case"]][row["region"]]
        assert [float(row[metric]) for metric in METRICS] == [getattr(score, metric) for metric in METRICS]
        assert row["empty"] == (score.empty or "")
    assert {(row["region"], row["labels"]) for row in rows} == {("whole", "1+2+3"), ("core", "1+3"), ("enhancing", "3")}


def test_csv_ends_with_mean_and_sd_over_all_cases(cases):
    rows = list(csv.DictReader(io.StringIO(to_csv(cases, BRATS2023))))
    dice = [scores["enhancing"].dice for scores in cases.values()]
    mean, sd, low, high = rows[-4:]
    assert [row["case"] for row in rows[-4:]] == ["mean", "sd", "ci95_low", "ci95_high"]
    assert {row["region"] for row in rows[-4:]} == {"enhancing"}
    assert min(dice) <= float(low["dice"]) <= float(mean["dice"]) <= float(high["dice"]) <= max(dice)
    assert float(mean["dice"]) == pytest.approx(statistics.mean(dice))
    assert float(sd["dice"]) == pytest.approx(statistics.stdev(dice))
    assert mean["empty"] == "both 0, prediction 1, truth 0"


def test_json_gives_back_the_scores(cases):
    document = json.loads(to_json(cases, BRATS2023))
    assert document["task"] == "brats2023"
    assert document["convention"] == {"1": "necrosis + non-enhancing", "2": "oedema", "3": "enhancing"}
    assert document["regions"] == {"whole": [1, 2, 3], "core": [1, 3], "enhancing": [3]}
    assert {n: {r: RegionScore(**s) for r, s in scores.items()} for n, scores in document["cases"].items()} == cases
    assert document["empty"]["enhancing"] == {"both": 0, "prediction": 1, "truth": 0}
    hd95 = [scores["core"].hd95_mm for scores in cases.values()]
    assert document["mean"]["core"]["hd95_mm"] == pytest.approx(statistics.mean(hd95))
    assert document["sd"]["core"]["hd95_mm"] == pytest.approx(statistics.stdev(hd95))


def test_json_says_by_which_rules_and_how_surely(cases):
    rules = ScoreRules(2.5, BRATS2023_GLIOMA)
    document = json.loads(to_json(cases, BRATS2023, rules))
    assert document["rules"] == {"tolerance_mm": 2.5, "lesions": {"dilation": 3, "smallest_mm3": 50.0}}
    assert "within 2.5 mm" in document["surface_rule"] and "BraTS 2023" in document["lesion_rule"]
    assert document["lesions"]["enhancing"]["lesions_missed"] == sum(
        s["enhancing"].lesions_missed for s in cases.values()
    )
    for region, interval in document["interval"].items():
        for metric, (low, high) in interval.items():
            assert low <= document["mean"][region][metric] <= high
    two = dict(list(cases.items())[:2])
    assert json.loads(to_json(two, BRATS2023))["interval"] == {}


def test_json_refuses_what_is_no_number():
    nan = RegionScore(float("nan"), 1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0)
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"a": {"lesion": nan}}, ISLES2017)


def test_the_same_label_means_what_the_convention_says():
    a, b = (to_markdown(scored(task, ("a",)), task) for task in (BRATS2021, BRATS2023))
    assert "Labels of brats2021: 1 necrosis + non-enhancing, 2 oedema, 4 enhancing. Regions: whole = 1 + 2 + 4;" in a
    assert "Labels of brats2023: 1 necrosis + non-enhancing, 2 oedema, 3 enhancing. Regions: whole = 1 + 2 + 3;" in b


def test_markdown_has_a_row_for_each_region_and_case_in_equal_columns(cases):
    text = to_markdown(cases, BRATS2023)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 + 2 + 3 + 2 + 12
    assert {len(row) for row in rows[:5]} == {len(rows[0])}
    assert {row.replace(r"\|", "").count("|") for row in rows[10:]} == {18}
    dice = [scores["whole"].dice for scores in cases.values()]
    assert f"| {statistics.mean(dice):.3f} ± {statistics.stdev(dice):.3f} |" in text
    assert "373.13" in text and "Intervals of means: 95 % percentile bootstrap" in text
    assert "within 1 mm of the other surface" in text and "as in ISLES 2022" in text
    assert "Empty masks: whole: both 0, prediction 0, truth 0;" in text
    assert "enhancing: both 0, prediction 1, truth 0." in text


def test_console_table_fits_80_columns_and_names_cases_as_they_are(cases):
    text = printed(to_rich(cases, BRATS2023))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("pat[three]", "373.13", "Mean of 4 cases", "Standard deviation", "Mean, 95 % to"):
        assert expected in text
    assert f"{cases['pat, one']['core'].dice:.3f}" in text


def test_console_table_can_show_means_alone(cases):
    text = printed(to_rich(cases, BRATS2023, per_case=False))
    assert "pat|two" not in text
    assert "Mean of 4 cases" in text


@pytest.mark.parametrize("table", [to_csv, to_json, to_markdown, to_rich])
def test_no_table_without_a_case(table):
    with pytest.raises(DatasetError, match="no scores"):
        table({}, ISLES2017)
