"""The log of a training: a CSV that grows line by line, TensorBoard, a JSON at the end, and the throughput.

Reading a log loads neither torch nor Lightning.
"""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainsegnet._atomic import write_text
from brainsegnet.progress import Callback, ProgressEvent

if TYPE_CHECKING:
    import torch

LOG_FILE = "log.csv"
BOARDS = ("tensorboard", "tensorboardX")
COLUMNS = ("step", "epoch", "stage", "progress", "loss", "learning_rate", "minutes", "samples_per_second", "data_wait")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a `log.csv`, with numbers converted and empty cells left out; no rows if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{k: v for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]
    return [{k: v if k == "stage" else int(v) if k == "step" else float(v) for k, v in row.items()} for row in rows]


class RunLog(Callback):
    """Writes every event of a training to a folder.

    Args:
        folder: Folder that gets `log.csv`, `log.json` and, if TensorBoard is installed, `tensorboard/`.
        regions: Regions whose Dice the events may hold.
        steps: Rows of an earlier part up to this step are kept, and later ones removed; 0 starts a new log.
    """

    def __init__(self, folder: Path, regions: Sequence[str], steps: int = 0) -> None:
        self.folder = folder
        self.rows = [row for row in read_log(folder / LOG_FILE) if row["step"] <= steps] if steps else []
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / LOG_FILE).open("w", encoding="utf-8", newline="")
        self._csv = csv.DictWriter(self._file, (*COLUMNS, *(f"dice_{region}" for region in regions)), restval="")
        self._csv.writeheader()
        self._csv.writerows(self.rows)
        self._board = _open_board(folder)

    def on_progress(self, event: ProgressEvent) -> None:
        """Add a row to the log.

        Raises:
            OSError: the disk is full.
        """
        row = {name: getattr(event, name) for name in COLUMNS}
        row |= {f"dice_{region}": value for region, value in (event.dice or {}).items()}
        self.rows.append(row)
        self._csv.writerow(row)
        self._file.flush()
        if self._board is None:
            return
        scalars = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
        try:
            self._board.log_metrics({name: value for name, value in scalars.items() if value == value}, event.step)
        except ValueError as error:
            raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None

    def close(self, summary: Mapping[str, Any]) -> None:
        """Write `log.json`: the summary, and every row with a Dice."""
        self._file.close()
        if self._board is not None:
            self._board.finalize("success")
        scored = [row for row in self.rows if any(name.startswith("dice_") for name in row)]
        write_text(json.dumps({**summary, "validations": scored}, indent=2), self.folder / "log.json")


def _open_board(folder: Path) -> Any:  # noqa: ANN401
    """What writes for TensorBoard; None where that is not installed."""
    if not any(find_spec(name) for name in BOARDS):
        return None
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, "tensorboard", version="")


class Throughput:
    """Measures how fast a training runs, and for which share of the time the device waits for samples.

    On a GPU a mark is an event on its time line, which is read after it has passed. So measuring never makes the GPU
    wait.
    """

    def __init__(self, device: "torch.device") -> None:
        self.on_gpu = device.type == "cuda"
        self.cutting, self.learning, self.samples = 0.0, 0.0, 0
        self._marks: list[Any] = []
        self._open: list[tuple[list[Any], int]] = []

    def mark(self) -> None:
        """Call before cutting samples, between cutting and learning, and after learning."""
        if not self.on_gpu:
            self._marks.append(time.perf_counter())
            return
        import torch

        self._marks.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        self._marks[-1].record()

    def close_step(self, samples: int) -> None:
        """Account for the three marks of a step, and for earlier steps that have ended since."""
        self._open.append((self._marks, samples))
        self._marks = []
        while self._open and (not self.on_gpu or self._open[0][0][-1].query()):
            (begin, middle, end), samples = self._open.pop(0)
            self.cutting += self._seconds(begin, middle)
            self.learning += self._seconds(middle, end)
            self.samples += samples

    def _seconds(self, earlier: Any, later: Any) -> float:  # noqa: ANN401
        return float(earlier.elapsed_time(later)) / 1000 if self.on_gpu else later - earlier

    @property
    def samples_per_second(self) -> float:
        """Samples per second since the start, or since the training was resumed."""
        spent = self.cutting + self.learning
        return self.samples / spent if spent else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time in which the device had no samples to train on."""
        spent = self.cutting + self.learning
        return self.cutting / spent if spent else 0.0
