"""Tables as Markdown, in columns that line up as plain text too."""

from collections.abc import Sequence

_LEFT = {"Case", "Region", "Metric", "Model", "Models"}
"""Headings of columns of words; figures stand at the right."""


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns are as wide as their widest cell.

    >>> print(markdown_table(["Region", "Dice"], [["whole", "0.861"], ["core", "0.7"]]))
    | Region |  Dice |
    | ------ | ----: |
    | whole  | 0.861 |
    | core   |   0.7 |
    """
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [heading in _LEFT for heading in headings]
    rule = ["-" * width if word else "-" * (width - 1) + ":" for width, word in zip(widths, words, strict=True)]
    lines = [
        [c.ljust(width) if word else c.rjust(width) for c, width, word in zip(row, widths, words, strict=True)]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
