"""Cohorts: any number of cases, by any number of processes that share a folder. This file holds the options.

A manifest lists the cases. Each case is claimed, segmented and marked as done by its JSON, which gets its name last. So
a run can end at any moment and be continued, and a table of all cases (the ledger) can be made from what is on disk.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brainsegnet.errors import UsageError

Layout = Literal["flat", "sharded"]
Retry = Literal["none", "failed"]
LEAST_MINUTES = 5
_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
_MEMORY = re.compile(r"[0-9]{1,9}[MGT]")
_TIMES = [
    re.compile(form)
    for form in (
        r"(?P<minutes>\d{1,9})(:(?P<seconds>\d\d))?",
        r"(?P<hours>\d{1,9}):(?P<minutes>\d\d):(?P<seconds>\d\d)",
        r"(?P<days>\d{1,9})-(?P<hours>\d{1,2})(:(?P<minutes>\d\d))?(:(?P<seconds>\d\d))?",
    )
]
"""How Slurm writes times."""
_WORD = re.compile(r"[A-Za-z0-9_.,-]+")
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
class QualityOptions:
    """How the pages of a cohort are made. The fields are options of `brainsegnet cohort report`.

    Raises:
        UsageError: a number is below 1.
    """

    page_cases: int = 200
    "Cases on a page."
    threads: int | None = None
    "Thumbnails that are drawn at the same time. By default one for each core."

    def __post_init__(self) -> None:
        if self.page_cases < 1 or (self.threads is not None and self.threads < 1):
            raise UsageError("--page-cases and --threads must be 1 or more")


@dataclass(frozen=True)
class SlurmOptions:
    """An array of jobs. The fields are options of `brainsegnet cohort sbatch`.

    Raises:
        UsageError: a number, size, time or name is none that Slurm takes.
    """

    jobs: int
    "Number of jobs. Each has a part of the cases, of about the same size in bytes."
    cpus: int = 2
    "Cores of a job."
    memory: str = "6G"
    "Memory of a job, as in 6G or 6000M. At most half of it is for the network; larger scans are cut."
    time: str = "04:00:00"
    """Longest time of a job, as in 04:00:00, 1-12 or 240 (minutes). Two minutes before, it stops after the current
    case."""
    partition: str = ""
    "Partition of Slurm; by default that of the cluster."
    account: str = ""
    "Account that pays."
    apptainer: Path | None = None
    "Image (.sif) in which the jobs run. By default they run the program that writes the script."

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.cpus < 1:
            raise UsageError("--jobs and --cpus must be 1 or more")
        if not _MEMORY.fullmatch(self.memory) or not int(self.memory[:-1]):
            raise UsageError(f"--memory {self.memory} is no size; write 6G or 6000M")
        if not any(form.fullmatch(self.time) for form in _TIMES):
            raise UsageError(f"--time {self.time} is no time of Slurm; write hours:minutes:seconds, as in 04:00:00")
        if self.minutes < LEAST_MINUTES:
            raise UsageError(f"--time {self.time} is too short to open a model; write {LEAST_MINUTES} minutes or more")
        for name in ("partition", "account"):
            if (value := getattr(self, name)) and not _WORD.fullmatch(value):
                raise UsageError(f"--{name} {value} is no name of Slurm's; it has letters, digits, and - _ . , alone")

    @property
    def minutes(self) -> float:
        """The longest time.

        Examples:
            >>> [SlurmOptions(1, time=time).minutes for time in ("04:00:00", "1-12", "240", "30:30")]
            [240.0, 2160.0, 240.0, 30.5]
        """
        found = next(match for form in _TIMES if (match := form.fullmatch(self.time)))
        days, hours, minutes, seconds = (
            int(found.groupdict().get(part) or 0) for part in ("days", "hours", "minutes", "seconds")
        )
        return 1440 * days + 60 * hours + minutes + seconds / 60

    @property
    def memory_gb(self) -> float:
        """The memory in GB, of which Slurm's have 2^30 bytes.

        Examples:
            >>> f"{SlurmOptions(1, memory='6G').memory_gb:.2f}"
            '6.44'
        """
        return int(self.memory[:-1]) * _UNITS[self.memory[-1]] / 1e9


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
