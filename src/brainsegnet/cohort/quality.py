"""The cases of a cohort as its pages show them: what is known of each, in which order they stand, and all together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from brainsegnet.cohort.gallery import Picture
from brainsegnet.cohort.ledger import STAGES
from brainsegnet.cohort.outliers import LIMIT, Measure, count_kinds, describe_kind, find_outliers

SECONDS = tuple(f"seconds_{stage}" for stage in STAGES)
"""Columns of the ledger with the seconds of the stages."""


class Group(IntEnum):
    """Why a case stands where it does on the pages."""

    FAILED = 0
    OUTLIER = 1
    WARNED = 2
    REST = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """A case as the pages show it.

    Attributes:
        number: Its number in the manifest.
        case: Its name.
        status: done, failed, running or waiting.
        kind: Kind of its failure; empty if it did not fail.
        sentences: Why it failed, or its warnings.
        labels: Its label map, relative to the folder of the results.
        report: The report on the patient, relative to that folder; empty if there is none.
        measures: What can be compared over the cohort.
        picture: Its thumbnail.
        doubtful: Whether there is a warning about the alignment.
        reasons: Why it is an outlier, as sentences.
        group: Why it stands where it does.
    """

    number: int
    case: str
    status: str
    kind: str = ""
    sentences: Sequence[str] = ()
    labels: str = ""
    report: str = ""
    measures: Mapping[Measure, float] = field(default_factory=dict)
    picture: Picture = field(default_factory=Picture)
    doubtful: bool = False
    reasons: Sequence[str] = ()
    group: Group = Group.REST


@dataclass
class Summary:
    """The cohort as a whole.

    Attributes:
        states: Status to number of cases.
        failures: Kind and sentence without case and numbers, to number of cases.
        warnings: Warning without case and numbers, to number of cases.
        work: Processor and arithmetic, to number of cases.
        seconds: Stage to the seconds of each case.
    """

    states: Counter[str] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    work: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row of the ledger."""
        case, status = row["case"], row["status"]
        self.states[status] += 1
        if status == "failed":
            self.failures[row["kind"] or "unknown", describe_kind(row["error"] or "not known", case)] += 1
        if status == "done":
            self.warnings += count_kinds([(case, row["warnings"] or [])])
            self.work[row["processor"] or "not known", row["engine"] or "not known"] += 1
            for name in SECONDS:
                if row[name] is not None:
                    self.seconds.setdefault(name.removeprefix("seconds_"), []).append(row[name])


def rank(cases: Sequence[Seen], tumour: bool = False) -> list[Seen]:
    """The cases in their order on the pages, with the reasons why they are outliers.

    Failed cases come first, by the kind of failure. Then outliers, and cases whose alignment is doubtful or whose
    result cannot be drawn, the most unusual first. Then cases with warnings, the rarest warning first. Then the others
    by name. Cases without a result are last.

    Args:
        cases: In any order.
        tumour: Whether the regions are those of a tumour, for the words.
    """
    done = [one for one in cases if one.status == "done"]
    kinds = count_kinds((one.case, one.sentences) for one in done)
    failed = [replace(one, group=Group.FAILED) for one in cases if one.status == "failed"]
    placed = [((one.group, one.kind, 0.0, one.case), one) for one in failed]
    for one, reasons in zip(done, find_outliers([one.measures for one in done], tumour), strict=True):
        strength = max(
            [reason.strength for reason in reasons] + [LIMIT] * (one.doubtful or not one.picture.file), default=0.0
        )
        rarest = min((kinds[describe_kind(said, one.case)] for said in one.sentences), default=0)
        group = Group.OUTLIER if strength else Group.WARNED if one.sentences else Group.REST
        place = -strength if strength else float(rarest)
        told = replace(one, reasons=[reason.sentence for reason in reasons], group=group)
        placed.append(((group, "", place, one.case), told))
    rest = [one for one in cases if one.status not in ("done", "failed")]
    placed += [((Group.REST, one.status, 0.0, one.case), one) for one in rest]
    return [one for _, one in sorted(placed, key=lambda pair: pair[0])]
