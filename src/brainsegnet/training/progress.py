"""The log of a training: a CSV that grows line by line, TensorBoard, and a JSON at the end.

How fast a training runs, and how much of the time the device waits for samples.
"""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from brainsegnet._atomic import write_text
from brainsegnet.training.log import read_log
from brainsegnet.training.plan import Record

__all__ = ["RunLog", "read_log"]

BOARDS = ("tensorboard", "tensorboardX")
COLUMNS = ("step", "epoch", "stage", "progress", "loss", "rate", "minutes", "samples_per_second", "data_wait")


def _has_board() -> bool:
    """Whether TensorBoard can be written for; a machine lent for an hour may lack it."""
    return any(find_spec(name) is not None for name in BOARDS)


class RunLog:
    """Writes every record of a training to `folder`.

    Args:
        folder: Gets `log.csv`, `log.json` and, where TensorBoard is installed, `tensorboard/`.
        regions: Regions whose Dice the records may hold.
        steps: Lines of an earlier part up to this step are kept, later ones dropped; 0 starts anew.
    """

    def __init__(self, folder: Path, regions: Sequence[str], steps: int = 0) -> None:
        self.folder, self.regions = folder, tuple(regions)
        self.columns = (*COLUMNS, *(f"dice_{region}" for region in regions))
        self.records = [row for row in read_log(folder / "log.csv") if row["step"] <= steps] if steps else []
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "log.csv").open("w", encoding="utf-8", newline="")
        self._csv = csv.DictWriter(self._file, self.columns, restval="")
        self._csv.writeheader()
        self._csv.writerows(self.records)
        self._board = TensorBoardLogger(folder, "tensorboard", version="") if _has_board() else None

    def __call__(self, record: Record) -> None:
        """Add a record.

        Raises:
            OSError: the disk is full.
        """
        row = {name: getattr(record, name) for name in COLUMNS}
        row |= {f"dice_{region}": value for region, value in record.dice.items()}
        self.records.append(row)
        self._csv.writerow(row)
        self._file.flush()
        if self._board is None:
            return
        scalars = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
        try:
            self._board.log_metrics({name: value for name, value in scalars.items() if value == value}, record.step)
        except ValueError as error:
            raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write `log.json`: the summary, and every record with a Dice."""
        self._file.close()
        if self._board is not None:
            self._board.finalize("success")
        scored = [row for row in self.records if any(name.startswith("dice_") for name in row)]
        write_text(json.dumps({**summary, "validations": scored}, indent=2), self.folder / "log.json")


class Mark:
    """A moment on the time line of a device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = time.perf_counter()
        self.event: Any = None
        if device.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self.event.record()

    def reached(self) -> bool:
        """Whether the device has come this far."""
        return self.event is None or bool(self.event.query())

    def seconds_to(self, other: "Mark") -> float:
        """Seconds from this mark to a later one, on the time line of the device."""
        if self.event is None or other.event is None:
            return other.seconds - self.seconds
        return float(self.event.elapsed_time(other.event)) / 1000


class Throughput:
    """Splits each step into cutting samples and learning from them.

    On a GPU the split is read from events on its time line, once it has passed them: measuring never makes it wait.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cutting, self.learning, self.samples = 0.0, 0.0, 0
        self._marks: list[Mark] = []
        self._open: list[tuple[list[Mark], int]] = []

    def mark(self) -> None:
        """Call before cutting, between cutting and learning, and after learning."""
        self._marks.append(Mark(self.device))

    def close_step(self, samples: int) -> None:
        """Account for the three marks of a step, and of earlier steps that have ended since."""
        self._open.append((self._marks, samples))
        self._marks = []
        while self._open and self._open[0][0][-1].reached():
            (begin, middle, end), samples = self._open.pop(0)
            self.cutting += begin.seconds_to(middle)
            self.learning += middle.seconds_to(end)
            self.samples += samples

    @property
    def samples_per_second(self) -> float:
        """Since the start, or since training was resumed."""
        spent = self.cutting + self.learning
        return self.samples / spent if spent else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time in which the device had no samples to learn from."""
        spent = self.cutting + self.learning
        return self.cutting / spent if spent else 0.0
