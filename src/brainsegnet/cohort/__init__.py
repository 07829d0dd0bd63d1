"""Cohorts: any number of cases, by any number of processes that share a folder. This file holds the options.

A manifest lists the cases. Each case is claimed, segmented and marked as done by its JSON, which gets its name last. So
a run can end at any moment and be continued, and a table of all cases (the ledger) can be made from what is on disk.
"""

import re
from dataclasses import dataclass
from typing import Literal

from brainsegnet.errors import UsageError

Layout = Literal["flat", "sharded"]
Retry = Literal["none", "failed"]
_SHARD = re.compile(r"([0-9]+)/([0-9]+)")


@dataclass(frozen=True)
class CohortOptions:
    """How a cohort is processed. The fields are options of `brainsegnet cohort run`.

    Raises:
        UsageError: a shard, a number or a time is out of range.

    Examples:
        >>> CohortOptions(shard="2/8").part
        (2, 8)
    """

    shard: str = ""
    """Only a part of the cases, as in 3/10: the third of ten parts of about the same size in bytes, for the jobs of an
    array."""
    output_layout: Layout = "flat"
    "Where results go: flat, all into one folder; sharded, into folders of 1,000 cases."
    retry: Retry = "none"
    "failed: try the cases that failed again. By default they stay failed."
    engine: Literal["processes", "ray"] = "processes"
    """What does the work: processes on this machine, or actors on a Ray cluster. The variable RAY_ADDRESS names the
    cluster; without it, one is started on this machine for this command. All nodes must see the same disk."""
    workers: int = 1
    """Processes or actors that share the cases. Each has its own model and its share of the cores, or as many as
    --threads says."""
    case_minutes: float = 60.0
    "Longest time for reading, computing or writing one case. A case that takes longer is stopped, and fails."
    attempts: int = 3
    "How often a case is tried whose process ended on it, for example for lack of memory, until it counts as failed."
    verify: bool = False
    "Compare the inputs of existing results by their content (SHA-256). By default size, time and header are compared."
    overwrite: bool = False
    "Replace results whose inputs have changed since. By default they are left as they are and named."

    def __post_init__(self) -> None:
        if self.shard and not (_SHARD.fullmatch(self.shard) and 1 <= self.part[0] <= self.part[1]):
            raise UsageError(f"--shard {self.shard} is no part of a whole; write 1/8 to 8/8 for eight parts")
        if self.workers < 1 or self.attempts < 1:
            raise UsageError("--workers and --attempts must be 1 or more")
        if not self.case_minutes > 0:
            raise UsageError(f"--case-minutes must be above 0, not {self.case_minutes}")

    @property
    def part(self) -> tuple[int, int]:
        """Number of the part, from 1, and of all parts."""
        match = _SHARD.fullmatch(self.shard)
        return (int(match[1]), int(match[2])) if match else (1, 1)


@dataclass(frozen=True)
class BidsOptions:
    """Which participants of a BIDS data set are processed. The fields are options of `brainsegnet bids`."""

    participant_label: tuple[str, ...] = ()
    "Participants, with or without sub-. By default all."
    session_label: tuple[str, ...] = ()
    "Sessions, with or without ses-. By default all."
    skip_bids_validation: bool = False
    "Take a data set without a valid dataset_description.json. The files are checked all the same when they are read."
    verify: bool = False
    "Compare the inputs of existing results by their content (SHA-256). By default size, time and header are compared."
    overwrite: bool = False
    "Replace results that were made with other inputs, options or another model. By default they are refused."
