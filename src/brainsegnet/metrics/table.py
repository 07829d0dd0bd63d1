"""One table in five formats: Markdown, CSV, HTML, LaTeX and the console.

A cell is a number, a text, an `Estimate` (a mean with its spread), a `Span` (the ends of an interval), or None if
nothing is known. CSV holds numbers in full precision; the other formats round them as their column says.
"""

import csv
import html
import io
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Estimate:
    """A mean with its spread, shown as `0.81 ± 0.02 [0.78, 0.84]`.

    Attributes:
        mean: Mean over the cases.
        sd: Standard deviation over the cases; None leaves it out.
        interval: Ends of the interval of the mean; None leaves it out.
        seed_sd: Standard deviation of the mean over repeated trainings, or None.
        best: Whether the mean is emphasised.
        form: Format of the numbers, if it is not that of the column.
    """

    mean: float
    sd: float | None = None
    interval: tuple[float, float] | None = None
    seed_sd: float | None = None
    best: bool = False
    form: str = ""


@dataclass(frozen=True)
class Span:
    """The two ends of an interval, shown as `0.78 to 0.84`."""

    low: float
    high: float


Cell = str | float | Estimate | Span | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: Heading of the column.
        form: Format of its numbers, for Python's `format`; whole numbers of type int are shown as they are.
        is_text: Whether it holds words, which are flush left. Numbers are flush right.
        group: Second heading, shared with its neighbours. LaTeX sets it above them, the other formats before the
            heading.
    """

    heading: str
    form: str = ".3f"
    is_text: bool = False
    group: str = ""

    @property
    def full_heading(self) -> str:
        """Group and heading in one line."""
        return f"{self.group} {self.heading}".strip()


def text_columns(*headings: str) -> list[Column]:
    """Columns that hold words."""
    return [Column(heading, is_text=True) for heading in headings]


def number_columns(*headings: str, form: str = ".3f") -> list[Column]:
    """Columns that hold numbers in one format."""
    return [Column(heading, form) for heading in headings]


def count_cases(number: int) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} case{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class _Style:
    """How a rendering writes text, the best figure, and the interval of an `Estimate`."""

    escape: Callable[[str], str]
    best: str = "{}"
    interval: str = " [{}, {}]"


@dataclass(frozen=True)
class Table:
    """A table of results, which can be written as Markdown, CSV, HTML or LaTeX, or shown on the console.

    Attributes:
        columns: The columns.
        rows: The rows; each has one cell for each column.
        title: Text above the table.
        notes: Sentences below the table.
        missing: Text of a cell that is None. CSV leaves it empty.
        grouped: Whether HTML and the console name an equal first cell of neighbouring rows once.
        bold_rows: Numbers of the rows that the console shows in bold.
        ruled_rows: Numbers of the rows below which LaTeX draws a line.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    notes: Sequence[str] = ()
    missing: str = ""
    grouped: bool = False
    bold_rows: Container[int] = ()
    ruled_rows: Container[int] = ()

    def to_csv(self) -> str:
        """Headings and rows as CSV, with numbers in full precision, without title and notes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.full_heading for column in self.columns])
        writer.writerows([_format(c, "", _CSV) if isinstance(c, (Estimate, Span)) else c for c in r] for r in self.rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        """A table in GitHub's Markdown whose columns also line up as plain text.

        Examples:
            >>> rows = [["whole", 0.8613], ["core", Estimate(0.7, 0.05)]]
            >>> print(Table([*text_columns("Region"), Column("Dice")], rows, notes=["two cases"]).to_markdown(), end="")
            | Region |          Dice |
            | ------ | ------------: |
            | whole  |         0.861 |
            | core   | 0.700 ± 0.050 |
            <BLANKLINE>
            - two cases
        """
        cells = [[_escape_markdown(c.full_heading) for c in self.columns], *self._format_rows(_MARKDOWN)]
        widths = [max(2, *map(len, column)) for column in zip(*cells, strict=True)]  # a rule of ":" alone is no rule
        lines = [
            [c.ljust(w) if column.is_text else c.rjust(w) for c, w, column in zip(r, widths, self.columns, strict=True)]
            for r in cells
        ]
        rule = ["-" * (w - 1) + ("-" if c.is_text else ":") for w, c in zip(widths, self.columns, strict=True)]
        title = f"## {_escape_markdown(self.title)}\n\n" if self.title else ""
        notes = "".join(f"- {_escape_markdown(note)}\n" for note in self.notes)
        body = "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))
        return title + body + (f"\n{notes}" if notes else "")

    def to_html(self) -> str:
        """An element `table` and a list of class `notes` below it. Cells that hold words have the class `word`."""
        word = [' class="word"' if column.is_text else "" for column in self.columns]
        heads = "".join(f"<th{w}>{html.escape(c.full_heading)}</th>" for w, c in zip(word, self.columns, strict=True))
        rows = self._format_rows(_HTML)
        for number in range(len(rows) - 1, 0, -1) if self.grouped else ():
            if rows[number][0] == rows[number - 1][0]:
                rows[number][0] = ""
        lines = ("".join(f"<td{w}>{cell}</td>" for w, cell in zip(word, row, strict=True)) for row in rows)
        body = "".join(f"<tr>{line}</tr>\n" for line in lines)
        title = f"<caption>{html.escape(self.title)}</caption>\n" if self.title else ""
        items = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        notes = f'<ul class="notes">{items}</ul>\n' if items else ""
        return f"<table>\n{title}<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n{notes}"

    def to_latex(self) -> str:
        """A `table*` for LaTeX with the package booktabs: the title is its caption, and the notes are below."""
        rows = [" & ".join(row) + r" \\" for row in self._format_rows(_LATEX)]
        body = [line for n, row in enumerate(rows) for line in ((row, r"\midrule") if n in self.ruled_rows else (row,))]
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            *([rf"\caption{{{_escape_latex(self.title)}}}"] if self.title else []),
            rf"\begin{{tabular}}{{{''.join('l' if column.is_text else 'r' for column in self.columns)}}}",
            r"\toprule",
            *self._latex_headings(),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(["", rf"\par\smallskip {' '.join(map(_escape_latex, self.notes))}"] if self.notes else []),
            r"\end{table*}",
        ]
        return "\n".join(lines) + "\n"

    def to_rich(self) -> "RichTable":
        """A table for the console. If `grouped` is set, the first cell is a line above the rows that share it."""
        from rich import box, markup
        from rich.table import Table as RichTable

        notes, style = "\n".join(map(markup.escape, self.notes)), _Style(markup.escape, "[bold]{}[/bold]")
        table = RichTable(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, caption=notes or None)
        table.title, table.title_justify, table.caption_justify = markup.escape(self.title) or None, "left", "left"
        headings, columns = [column.full_heading for column in self.columns], list(self.columns)
        if self.grouped:
            headings, columns = [f"{headings[0]}, {headings[1].lower()}", *headings[2:]], columns[1:]
        for heading, column in zip(headings, columns, strict=True):
            layout = {"overflow": "fold"} if column.is_text else {"justify": "right", "no_wrap": True}
            table.add_column(markup.escape(heading), **layout)
        numbered = list(enumerate(self._format_rows(style)))
        for name, group in groupby(numbered, key=lambda pair: pair[1][0] if self.grouped else ""):
            rows = [(row, "bold" if number in self.bold_rows else "") for number, row in group]
            if self.grouped:
                table.add_row(name, style=rows[0][1])
            for row, look in rows:
                table.add_row(*([f"  {row[1]}", *row[2:]] if self.grouped else row), style=look)
            table.add_section()
        return table

    def _format_rows(self, style: _Style) -> list[list[str]]:
        known = ([self.missing if cell is None else cell for cell in row] for row in self.rows)
        return [[_format(x, column.form, style) for x, column in zip(r, self.columns, strict=True)] for r in known]

    def _latex_headings(self) -> Iterator[str]:
        """One line of headings, or two with rules between where columns have a group."""
        if any(column.group for column in self.columns):
            place, cells, rules = 1, [], ""
            for group, members in groupby(self.columns, key=lambda column: column.group):
                span = len(list(members))
                cells += [rf"\multicolumn{{{span}}}{{c}}{{{_escape_latex(group)}}}"] if group else [""] * span
                rules += rf"\cmidrule(lr){{{place}-{place + span - 1}}}" if group else ""
                place += span
            yield " & ".join(cells) + r" \\"
            yield rules
        yield " & ".join(_escape_latex(column.heading) for column in self.columns) + r" \\"


def _format(cell: Cell, form: str, style: _Style) -> str:
    """The text of a cell, escaped; an empty format is full precision."""
    if isinstance(cell, Span):
        return style.escape(f"{cell.low:{form}} to {cell.high:{form}}")
    if not isinstance(cell, Estimate):
        return style.escape(f"{cell:{form}}" if isinstance(cell, float) else str(cell))
    form = cell.form or form
    mean = style.escape(f"{cell.mean:{form}}")
    sd = "" if cell.sd is None else style.escape(f" ± {cell.sd:{form}}")
    ends = style.interval.format(*(f"{end:{form}}" for end in cell.interval)) if cell.interval else ""
    seeds = "" if cell.seed_sd is None else style.escape(f", seeds ± {cell.seed_sd:{form}}")
    return (style.best.format(mean) if cell.best else mean) + sd + ends + seeds


def _escape_markdown(text: str) -> str:
    r"""Text as itself in Markdown, with no more backslashes than that takes.

    Examples:
        >>> print(_escape_markdown("a_b | *c* _d_ <e> <1"))
        a_b \| \*c\* \_d\_ \<e> <1
    """
    return re.sub(r"[\\|*`~]|<(?=[A-Za-z/!?])|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[])", r"\\\g<0>", text)


_LATEX_TEXT = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {"[": "{[}", "*": "{*}", "\u2013": "--", "±": r"$\pm$"}
_LATEX_TEXT |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _escape_latex(text: str) -> str:
    r"""Text as itself in LaTeX, where a bracket or star after a row's end would belong to that.

    Examples:
        >>> print(_escape_latex("sub_1 & 50 % ± 2"))
        sub\_1 \& 50 \% $\pm$ 2
    """
    return "".join(_LATEX_TEXT.get(letter, letter) for letter in text)


_CSV = _Style(str)
_MARKDOWN = _Style(_escape_markdown, "**{}**")
_HTML = _Style(html.escape, "<b>{}</b>", "<br/><small>{} to {}</small>")
_LATEX = _Style(_escape_latex, r"\textbf{{{}}}")
