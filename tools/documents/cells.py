"""Cells that many tables share: means with their interval or range, names of cases, sequences and networks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from brainsegnet.metrics.statistics import find_intervals
from brainsegnet.metrics.table import Cell, Column, Table, number_columns, text_columns
from documents.records import Record, name_sources

FEWEST_FOR_INTERVAL = 6
"""Of fewer cases a table gives the range instead of an interval."""

DASH = "\N{EN DASH}"
INTERVAL_NOTE = "Square brackets: 95 % bootstrap interval of the mean over the cases."
RANGE_NOTE = "Round brackets: lowest and highest case."
SEQUENCES = {"flair": "FLAIR", "dwi": "DWI", "adc": "ADC", "mtt": "MTT", "rcbf": "rCBF", "rcbv": "rCBV"}
SEQUENCES |= {"tmax": "Tmax", "ttp": "TTP", "t1": "T1", "t1c": "T1c", "t2": "T2"}

Scores = Mapping[str, Mapping[str, float]]
"""Case to region to Dice."""


@dataclass(frozen=True)
class Generated:
    """A table, the files that its figures come from, and a line of Markdown with a picture, which may be empty."""

    table: Table
    records: Sequence[Record]
    picture: str = ""

    def to_markdown(self) -> str:
        """The table, its notes, where its figures come from, and the picture."""
        lines = self.table.to_markdown() + ("" if self.table.notes else "\n")
        return f"{lines}- {name_sources(self.records)}\n" + (f"\n{self.picture}\n" if self.picture else "")


def describe_mean(values: Sequence[float], form: str = ".2f") -> str:
    """Mean with its 95 % interval, or with the range where the cases are fewer than six.

    >>> describe_mean([0.45, 0.92]).replace(DASH, "-")
    '0.69 (0.45-0.92)'
    >>> describe_mean([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]).replace(DASH, "-")
    '0.75 [0.62-0.88]'
    """
    if len(values) == 1:
        return f"{values[0]:{form}}"
    found = f"{mean(values):{form}}"
    if len(values) < FEWEST_FOR_INTERVAL:
        return f"{found} ({min(values):{form}}{DASH}{max(values):{form}})"
    (interval,) = find_intervals(np.array(values, np.float64)[:, None])
    assert interval  # six cases or more
    return f"{found} [{interval[0]:{form}}{DASH}{interval[1]:{form}}]"


def describe_means(scores: Scores) -> list[Cell]:
    """Of each region in turn."""
    return [describe_mean(column) for column in columns_of(scores)]


def columns_of(scores: Scores) -> list[list[float]]:
    """The figures of all cases, region by region."""
    regions = next(iter(scores.values()))
    return [[case[region] for case in scores.values()] for region in regions]


def spread_note(cases: int) -> str:
    """What stands beside a mean over so many cases."""
    return INTERVAL_NOTE if cases >= FEWEST_FOR_INTERVAL else RANGE_NOTE


def dice_of(cases: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Case to region to Dice, of full scores."""
    return {case: {region: score["dice"] for region, score in row.items()} for case, row in cases.items()}


def triple(values: Iterable[float], form: str = ".2f") -> str:
    """Figures of the regions in one cell.

    >>> triple([0.8, 0.5, 0.4])
    '0.80 / 0.50 / 0.40'
    """
    return " / ".join(f"{value:{form}}" for value in values)


def short_name(case: str) -> str:
    """A case as people call it.

    >>> short_name("brats_2013_pat0004_1"), short_name("BraTS2021_00006")
    ('pat0004', 'BraTS2021_00006')
    """
    return re.sub(r"brats_2013_(pat\d+)_1|sub-strokecase(\d+)", lambda found: found[1] or f"case {found[2]}", case)


def name_sequences(subset: str) -> str:
    """Sequences with commas, as they are written in a paper.

    >>> name_sequences("flair+t1c")
    'FLAIR, T1c'
    """
    return ", ".join(SEQUENCES[sequence] for sequence in subset.split("+"))


def name_regions(regions: Iterable[str]) -> list[str]:
    """Headings of the regions."""
    return [region.capitalize() for region in regions]


def dice_columns(first: str, regions: Iterable[str], *others: str) -> list[Column]:
    """A column of words, columns of the regions' Dice, and columns of other figures."""
    return [*text_columns(first), *number_columns(*name_regions(regions), *others, form=".2f")]
