"""Laws of the paper's tables: its figures as its text states them, ours as they were scored, and sound LaTeX."""

import csv
import io
import json
import re

import numpy as np
import pytest

from brainsegnet.errors import DatasetError
from brainsegnet.metrics.scores import score_case
from brainsegnet.metrics.tables import to_json
from brainsegnet.paper.tables import TABLE_1, TABLE_2, run_of, to_csv, to_latex, to_markdown
from brainsegnet.task import BRATS2015, ISLES2017

NASTY = r"a_b & 50% of #1 {x} $y$ ~^\z | *bold*"


def scores_of(task, count=3):
    rng = np.random.default_rng(4)
    values = [0, *task.labels]
    masks = {f"pat_{n}": rng.choice(values, (2, 6, 10, 10)) for n in range(count)}
    cases = {n: score_case(p, t, task, (1.0, 1.0, 1.0), n) for n, (p, t) in masks.items()}
    return {**json.loads(to_json(cases, task)), "interval": {}}


@pytest.fixture(params=[(1, TABLE_1, BRATS2015), (2, TABLE_2, ISLES2017)], ids=["table1", "table2"])
def made(request):
    number, table, task = request.param
    scores = scores_of(task)
    runs = [run_of("plain", scores, table), run_of(NASTY, scores, table)]
    return number, table, runs, scores


def markdown_rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def latex_rows(text):
    return [line.removesuffix(r"\\") for line in text.splitlines() if line.endswith(r"\\")]


def cells(row):
    spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
    return len(re.split(r"(?<!\\)&", row)) + spans


def test_what_the_text_of_the_paper_states_is_what_stands_there():
    stated = {row.method: row.cells for row in (*TABLE_1.rows, *TABLE_2.rows[3:])}
    assert stated["Brain SegNet with focal loss"] == {("dice", ""): 0.30}
    first = {row.method: row.cells for row in TABLE_1.rows}
    assert first["Brain SegNet without focal loss"] == {("dice", "whole"): 0.85, ("dice", "enhancing"): 0.69}
    assert first["Brain SegNet with focal loss"] == {("dice", "whole"): 0.86, ("dice", "enhancing"): 0.72}
    assert [row.cells[("dice", "")] for row in TABLE_2.rows] == [0.20, 0.26, 0.29, 0.26, 0.30]


def test_markdown_has_every_row_and_ours_are_the_means(made):
    number, table, runs, scores = made
    rows = markdown_rows(to_markdown(table, number, runs))
    assert len({len(row) for row in rows}) == 1 and len(rows) == 2 + len(table.rows) + len(runs)
    region = {r: r or next(iter(scores["mean"])) for r in table.regions}
    for (metric, r), cell in zip(table.keys, rows[-2][2:], strict=True):
        mean, sd = (float(part) for part in cell.split(" ± "))
        assert mean == pytest.approx(scores["mean"][region[r]][metric], abs=0.00501)
        assert sd == pytest.approx(scores["sd"][region[r]][metric], abs=0.00501)
    for row, printed in zip(rows[2:], table.rows, strict=False):
        open_cells = len(table.keys) - len(printed.cells)
        assert row.count("\N{EN DASH}") == open_cells


def test_csv_reads_back_in_full_precision(made):
    _, table, runs, _ = made
    rows = list(csv.DictReader(io.StringIO(to_csv(table, runs))))
    assert len(rows) == (len(table.rows) + len(runs)) * len(table.keys)
    ours = {(row["metric"], row["region"]): float(row["mean"]) for row in rows if row["method"] == NASTY}
    assert ours == dict(runs[1].mean)
    paper = [row for row in rows if row["source"] != "ours"]
    assert sum(row["mean"] != "" for row in paper) == sum(len(row.cells) for row in table.rows)


def test_latex_is_sound_in_structure(made):
    number, table, runs, _ = made
    text = to_latex(table, number, runs)
    bare = re.sub(r"\\.", "", text.replace(r"\\", ""))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0 and "#" not in bare and "%" not in bare[1:]
    assert re.findall(r"\\begin\{(.*?)\}", text) == re.findall(r"\\end\{(.*?)\}", text)[::-1]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1)
    rows = latex_rows(text)
    assert {cells(row) for row in rows} == {len(columns)}
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert text.isascii()


def test_a_row_of_ours_says_which_cases_and_never_that_it_is_the_test_set(made):
    number, table, runs, _ = made
    for text in (to_markdown(table, number, runs).replace("\\", ""), to_latex(table, number, runs).replace("\\", "")):
        assert text.count("over 3 cases of task") == 2 and "not the test set of the challenge" in text
        assert "pat_0, pat_1, pat_2" in text


def test_intervals_stand_in_a_row_of_their_own_where_there_are_any():
    scores = scores_of(BRATS2015)
    assert "interval" not in to_markdown(TABLE_1, 1, [run_of("a", scores, TABLE_1)])
    metrics = {"dice": [0.31, 0.42], "specificity": [0.9, 1], "sensitivity": [0.1, 0.2]}
    scores["interval"] = dict.fromkeys(BRATS2015.regions, metrics)
    run = run_of("a", scores, TABLE_1)
    rows = markdown_rows(to_markdown(TABLE_1, 1, [run]))
    assert rows[-1][0] == "a, 95 % interval" and rows[-1][2] == "0.31 to 0.42" and rows[-1][5] == "0.900 to 1.000"
    assert {cells(row) for row in latex_rows(to_latex(TABLE_1, 1, [run]))} == {11}


def test_scores_of_another_task_are_refused_with_the_table_that_fits():
    with pytest.raises(DatasetError, match=r"mine are of lesion, but .* whole, core, enhancing; choose --paper 2"):
        run_of("mine", scores_of(ISLES2017), TABLE_1)
    with pytest.raises(DatasetError, match="choose --paper 1"):
        run_of("mine", scores_of(BRATS2015), TABLE_2)
    scores = scores_of(ISLES2017)
    del scores["mean"]["lesion"]["precision"]
    with pytest.raises(DatasetError, match="scores mine lack 'precision'"):
        run_of("mine", scores, TABLE_2)
