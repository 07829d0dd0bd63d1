"""Laws of the paper's tables: its figures as its text states them, ours as they were scored, and sound LaTeX."""

import csv
import io
import json
import re

import numpy as np
import pytest

from brainsegnet.errors import BrainSegNetError, DatasetError
from brainsegnet.metrics.evaluate import evaluate
from brainsegnet.metrics.evaluation import Evaluation
from brainsegnet.metrics.score_file import ScoreFile, to_json
from brainsegnet.metrics.scores import score_case
from brainsegnet.paper.tables import TABLE_1, TABLE_2, full_table, make_row, reading_table, table
from brainsegnet.task import BRATS2015, ISLES2017

NASTY = r"a_b & 50% of #1 {x} $y$ ~^\z | *bold*"


def scores_of(task, count=3):
    rng = np.random.default_rng(4)
    values = [0, *task.labels]
    masks = {f"pat_{n}": rng.choice(values, (2, 6, 10, 10)) for n in range(count)}
    cases = {n: score_case(p, t, task, (1.0, 1.0, 1.0), n) for n, (p, t) in masks.items()}
    document = {**json.loads(to_json(Evaluation(task, cases))), "interval": {}}
    return ScoreFile.model_validate(document)


@pytest.fixture(params=[(1, TABLE_1, BRATS2015), (2, TABLE_2, ISLES2017)], ids=["table1", "table2"])
def made(request):
    number, published, task = request.param
    scores = scores_of(task)
    ours = [make_row("plain", scores, published), make_row(NASTY, scores, published)]
    return number, published, ours, scores


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
    _, published, ours, scores = made
    rows = markdown_rows(reading_table(published, ours).to_markdown())
    assert len({len(row) for row in rows}) == 1 and len(rows) == 2 + len(published.rows) + len(ours)
    region = {r: r or next(iter(scores.mean)) for r in published.regions}
    for (metric, r), cell in zip(published.keys, rows[-2][2:], strict=True):
        mean, sd = (float(part) for part in cell.split(" ± "))
        assert mean == pytest.approx(scores.mean[region[r]][metric], abs=0.00501)
        assert sd == pytest.approx(scores.sd[region[r]][metric], abs=0.00501)
        assert len(cell) == len("0.123 ± 0.123" if metric == "specificity" else "0.12 ± 0.12")
    for cells_, row in zip(rows[2:], published.rows, strict=False):
        assert cells_.count("\N{EN DASH}") == len(published.keys) - len(row.cells)


def test_csv_reads_back_in_full_precision(made):
    _, published, ours, _ = made
    rows = list(csv.DictReader(io.StringIO(full_table(published, ours).to_csv())))
    assert len(rows) == (len(published.rows) + len(ours)) * len(published.keys)
    means = {(row["metric"], row["region"]): float(row["mean"]) for row in rows if row["method"] == NASTY}
    assert means == {key: estimate.mean for key, estimate in ours[1].estimates.items()}
    paper = [row for row in rows if row["source"] != "ours"]
    assert sum(row["mean"] != "" for row in paper) == sum(len(row.cells) for row in published.rows)


def test_latex_is_sound_in_structure(made):
    _, published, ours, _ = made
    text = reading_table(published, ours).to_latex()
    bare = re.sub(r"\\.", "", text.replace(r"\\", ""))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0 and "#" not in bare and "%" not in bare[1:]
    assert re.findall(r"\\begin\{(.*?)\}", text) == re.findall(r"\\end\{(.*?)\}", text)[::-1]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text).group(1)
    rows = latex_rows(text)
    assert {cells(row) for row in rows} == {len(columns)}
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert text.index(f"{published.rows[-1].method} &") < text.rindex(r"\midrule") < text.index("plain &")
    assert text.isascii()


def test_the_verb_writes_all_three_and_says_which_table(made, tmp_path):
    number, published, ours, scores = made
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "scores.json").write_text(scores.model_dump_json())
    files = [tmp_path / f"table{suffix}" for suffix in (".md", ".csv", ".tex")]
    text = table([tmp_path / "plain"], number, files)
    assert files[0].read_text() == text and text.startswith(f"## Table {number}. {published.caption}\n\n")
    assert files[1].read_text() == full_table(published, ours[:1]).to_csv()
    assert rf"\caption{{{published.caption}. The paper's Table {number} and ours.}}" in files[2].read_text()


def test_a_row_of_ours_says_which_cases_and_never_that_it_is_the_test_set(made):
    _, published, ours, _ = made
    for text in (reading_table(published, ours).to_markdown(), reading_table(published, ours).to_latex()):
        text = text.replace("\\", "")
        assert text.count("over 3 cases of task") == 2 and "not the test set of the challenge" in text
        assert "pat_0, pat_1, pat_2" in text


def test_intervals_stand_in_a_row_of_their_own_where_there_are_any():
    scores = scores_of(BRATS2015)
    assert "interval" not in reading_table(TABLE_1, [make_row("a", scores, TABLE_1)]).to_markdown()
    metrics = {"dice": (0.31, 0.42), "specificity": (0.9, 1.0), "sensitivity": (0.1, 0.2)}
    intervals = dict.fromkeys(BRATS2015.regions, metrics)
    row = make_row("a", scores.model_copy(update={"interval": intervals}), TABLE_1)
    rows = markdown_rows(reading_table(TABLE_1, [row]).to_markdown())
    assert rows[-1][0] == "a, 95 % interval" and rows[-1][2] == "0.31 to 0.42" and rows[-1][5] == "0.900 to 1.000"
    assert {cells(row) for row in latex_rows(reading_table(TABLE_1, [row]).to_latex())} == {11}


def test_scores_of_another_task_are_refused_with_the_table_that_fits():
    with pytest.raises(DatasetError, match=r"mine are of lesion, but .* whole, core, enhancing; choose --number 2"):
        make_row("mine", scores_of(ISLES2017), TABLE_1)
    with pytest.raises(DatasetError, match="choose --number 1"):
        make_row("mine", scores_of(BRATS2015), TABLE_2)
    scores = scores_of(ISLES2017)
    mean = {name: value for name, value in scores.mean["lesion"].items() if name != "precision"}
    scores = scores.model_copy(update={"mean": {"lesion": mean}})
    with pytest.raises(DatasetError, match="scores mine lack 'precision'"):
        make_row("mine", scores, TABLE_2)


def test_a_table_in_three_formats_from_a_folder_of_scores(phantoms, shifted, tmp_path):
    evaluate(shifted, phantoms, "brats2015", tmp_path / "mine")
    outs = [tmp_path / f"table{suffix}" for suffix in (".md", ".csv", ".tex")]
    text = table([tmp_path / "mine", tmp_path / "mine" / "scores.json"], 1, outs, ["a", "b"])
    assert outs[0].read_text() == text and all(path.stat().st_size > 500 for path in outs)
    assert "over 3 cases of task brats2015" in text and "phantom0000, phantom0001, phantom0002" in text
    assert "| mine | ours |" in " ".join(table([tmp_path / "mine"], 1).split())


def test_tables_that_cannot_be_made_leave_nothing(phantoms, shifted, tmp_path):
    evaluate(shifted, phantoms, "brats2015", tmp_path / "mine")
    out = tmp_path / "out" / "t.md"
    for arguments, words in [
        (([tmp_path / "none"], 1, out), "none cannot be read: No such file"),
        (([tmp_path / "mine"], 2, out), "choose --number 1"),
        (([tmp_path / "mine"] * 2, 1, out), "two of the scores are called mine; tell them apart with --labels"),
        (([tmp_path / "mine"], 1, out, ["a", "b"]), "2 labels are given for 1 scores"),
        (([tmp_path / "mine" / "scores.csv"], 1, out), "is no scores.json as evaluate writes it"),
        (([tmp_path / "mine"], 3, out), "Table 1 and a Table 2, not 3"),
        (([tmp_path / "mine"], 1, tmp_path / "t.docx"), r"must end in one of \.md, \.csv, \.tex"),
    ]:
        with pytest.raises(BrainSegNetError, match=words):
            table(*arguments)
    (tmp_path / "mine" / "scores.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"is no scores\.json"):
        table([tmp_path / "mine"], 1, out)
    assert not out.exists()
