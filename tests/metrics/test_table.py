"""Laws of the renderings: what a reader of the format parses back is what stands in the table, whatever the letters."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from brainsegnet.metrics.table import Column, Estimate, Span, Table, number_columns, text_columns

NASTY = r"a_b & 50% of #1 {x} $y$ ~^\z | *bold* <b>[0](1)_ 'q'"


@pytest.fixture
def table():
    rows = [
        [NASTY, 3, 2 / 3, Estimate(0.8123, 0.02, (0.79, 0.834), best=True)],
        [NASTY, 4, 1e-17, Estimate(0.7, 0.01, seed_sd=0.004)],
        ["[plain]", None, -0.5, Span(0.1, 0.25)],
    ]
    columns = [*text_columns("Model"), *number_columns("n", "Gap, <1", form="+.2f"), Column("Dice")]
    return Table(columns, rows, "Means & more", ["Over 3_cases.", NASTY], missing="-", ruled_rows=[1])


SHOWN = [
    [NASTY, "3", "+0.67", "0.812 ± 0.020 [0.790, 0.834]"],
    [NASTY, "4", "+0.00", "0.700 ± 0.010, seeds ± 0.004"],
    ["[plain]", "-", "-0.50", "0.100 to 0.250"],
]


def test_csv_keeps_every_bit_and_leaves_the_unknown_empty(table):
    heading, *rows = csv.reader(io.StringIO(table.to_csv()))
    assert heading == ["Model", "n", "Gap, <1", "Dice"]
    assert [row[0] for row in rows] == [NASTY, NASTY, "[plain]"] and [row[1] for row in rows] == ["3", "4", ""]
    assert [float(row[2]) for row in rows] == [2 / 3, 1e-17, -0.5]
    assert rows[0][3] == "0.8123 ± 0.02 [0.79, 0.834]" and rows[2][3] == "0.1 to 0.25"


def plain(cell):
    """Markdown without its backslashes and its emphasis."""
    return re.sub(r"\\(.)", r"\1", cell.replace("**0.812**", "0.812")).strip()


def test_markdown_parses_back_and_lines_up(table):
    title, _, *lines = table.to_markdown().splitlines()
    assert title == "## Means & more" and lines[-3:-1] == ["", "- Over 3_cases."]
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1, "columns line up as plain text"
    cells = [[plain(cell) for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    assert cells[2:] == SHOWN and cells[0] == ["Model", "n", "Gap, <1", "Dice"]
    assert [bool(rule.endswith(":")) for rule in cells[1]] == [False, True, True, True]
    assert "**0.812** ± 0.020" in rows[2] and plain(lines[-1]) == f"- {NASTY}"


class Cells(HTMLParser):
    """Texts of the cells, headings and list items; each element must close in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.words = [], {"th": [], "td": [], "li": [], "caption": []}, []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        if tag in self.found:
            self.found[tag].append("")
            self.words.append(dict(attrs).get("class") == "word")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_data(" / ")

    def handle_data(self, data):
        for tag in self.open[::-1]:
            if tag in self.found:
                self.found[tag][-1] += data
                break


def test_html_parses_back_with_the_interval_on_a_line_of_its_own(table):
    read = Cells(table.to_html())
    shown = [cell for row in SHOWN for cell in row]
    shown[3] = "0.812 ± 0.020 / 0.790 to 0.834"
    assert read.found == {
        "caption": ["Means & more"],
        "th": ["Model", "n", "Gap, <1", "Dice"],
        "td": shown,
        "li": ["Over 3_cases.", NASTY],
    }
    assert read.words[1:17] == [True, False, False, False] * 4 and "<b>0.812</b>" in table.to_html()


def test_html_names_a_group_once(table):
    rows = Cells(Table(table.columns, table.rows, grouped=True, missing="-").to_html()).found["td"][::4]
    assert rows == [NASTY, "", "[plain]"]


def test_latex_is_balanced_and_every_row_has_every_column(table):
    text = table.to_latex()
    bare = re.sub(r"\\.", "", text.replace(r"\\", "")).replace("% needs", "")
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0 and not set("#%~^") & set(bare)
    assert re.findall(r"\\begin\{(.*?)\}", text) == re.findall(r"\\end\{(.*?)\}", text)[::-1]
    assert r"\begin{tabular}{lrrr}" in text and text.isascii()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.split(r"(?<!\\)&", row)) for row in rows] == [4] * 4
    assert r"\textbf{0.812} $\pm$ 0.020 [0.790, 0.834]" in rows[1]
    assert rows[3].startswith("{[}plain]"), "a bracket after a line's end would be an argument of it"
    lines = text.splitlines()
    assert lines[lines.index(rows[2]) + 1] == r"\midrule" and text.count(r"\midrule") == 2
    assert r"\caption{Means \& more}" in text and r"\par\smallskip Over 3\_cases." in text


def test_latex_spans_the_columns_of_a_group_and_the_others_name_it():
    columns = [*text_columns("Model"), *(Column(h, group=g) for g in ("Dice", "Recall") for h in ("whole", "core"))]
    table = Table(columns, [["a", 0.1, 0.2, 0.3, 0.4]])
    heads = table.to_latex().split(r"\toprule")[1].split(r"\midrule")[0].split()
    assert " ".join(heads) == (
        r"& \multicolumn{2}{c}{Dice} & \multicolumn{2}{c}{Recall} \\ "
        r"\cmidrule(lr){2-3}\cmidrule(lr){4-5} Model & whole & core & whole & core \\"
    )
    assert table.to_csv().splitlines()[0] == "Model,Dice whole,Dice core,Recall whole,Recall core"


def printed(table, width=80):
    out = io.StringIO()
    Console(width=width, file=out, color_system=None).print(table.to_rich())
    return out.getvalue()


def test_the_console_shows_names_as_they_are(table):
    lines = [line.split() for line in printed(table, 120).splitlines()]
    for row in SHOWN:
        assert " ".join(row).split() in lines
    assert ["Over", "3_cases."] in lines and ["Means", "&", "more"] in lines


def test_the_console_draws_a_group_under_its_name():
    rows = [["a[b]", "whole", 0.1], ["a[b]", "core", 0.2], ["mean", "whole", 0.3]]
    table = Table([*text_columns("Case", "Region"), Column("Dice")], rows, grouped=True, bold_rows=[2])
    lines = [line.rstrip() for line in printed(table).splitlines()]
    assert lines[1].split() == ["Case,", "region", "Dice"]
    assert [line.split() for line in lines[3:-1]] == [
        ["a[b]"],
        ["whole", "0.100"],
        ["core", "0.200"],
        [],
        ["mean"],
        ["whole", "0.300"],
    ]
    assert [line.startswith("   ") for line in lines[3:6]] == [False, True, True]
    assert [row.style for row in table.to_rich().rows] == ["", "", "", "bold", "bold"]


def test_a_row_that_does_not_fit_its_columns_is_an_error():
    table = Table(text_columns("a", "b"), [["one"]])
    for render in (table.to_markdown, table.to_html, table.to_latex, table.to_rich):
        with pytest.raises(ValueError, match="zip"):
            render()
