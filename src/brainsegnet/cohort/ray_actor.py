"""An actor of a Ray cluster: a process that is given numbers of cases, segments them, and gives back a row for each.

Claims, errors and the JSON that marks a case as done are those of `work`. So Ray need not remember anything: whatever
ends, the folder says what is left to do. What passes through Ray is never an image.
"""

import os
import secrets
import shutil
import threading
import time
import traceback
import weakref
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from brainsegnet._machine import find_host
from brainsegnet.cohort.claims import refresh
from brainsegnet.cohort.ending import TERMINATED
from brainsegnet.cohort.manifest import Entry, pick_entries
from brainsegnet.cohort.work import Broken, Job, Worker
from brainsegnet.errors import BrainSegNetError, DatasetError, ModelError
from brainsegnet.inference.segmenter import Segmenter
from brainsegnet.io.layouts import read_note
from brainsegnet.model.store import resolve_model
from brainsegnet.pipeline.batch import Outcome
from brainsegnet.progress import Callback

END = "end"
LISTEN_SECONDS = 2.0
"""Time between two looks whether an actor is to end at once."""


@dataclass(frozen=True)
class Bell:
    """A file in the folder of the results that tells the actors of a run to stop."""

    path: Path

    def ring(self, how: str = "") -> None:
        """Ask the actors to stop after their current case, or with `END` at once."""
        with suppress(OSError):
            self.path.write_text(how, encoding="utf-8")

    def hear(self) -> str | None:
        """How the actors are asked to stop; None if they are not."""
        refresh(self.path.parent)
        try:
            return self.path.read_text(encoding="utf-8")
        except OSError:
            return None

    def is_rung(self) -> bool:
        """Whether the actors are asked to stop."""
        return self.hear() is not None

    @property
    def started(self) -> Path:
        """Folder with a mark of each actor that has started."""
        return self.path.with_name(f"{self.path.name}~started")

    def sign(self) -> None:
        """Leave the mark of an actor that starts, if the run has not ended."""
        with suppress(OSError):
            (self.started / f"{find_host()}~{os.getpid()}~{secrets.token_hex(4)}").write_text("", encoding="utf-8")

    def count_started(self) -> int:
        """How many actors have started."""
        refresh(self.started)
        with suppress(OSError):
            return sum(1 for _ in self.started.iterdir())
        return 0

    def remove(self) -> None:
        """Remove the file, and the marks of the actors."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # under another name, so that no actor can leave a mark any more
            shutil.rmtree(self.started.replace(self.path.with_name(f"{self.path.name}~ended")))


@dataclass(frozen=True)
class Row:
    """What became of a case.

    Attributes:
        number: Its number; -1 for the error of an actor.
        case: Its name.
        status: done, failed, settled (before, or by another), later (others have it), left, changed (inputs), error.
        kind: Kind of the failure.
        error: Sentence on it.
        seconds: From the start of its reading to the end of its writing.
        actor: Host and number of the process.
    """

    number: int
    case: str
    status: str
    kind: str = ""
    error: str = ""
    seconds: float = 0.0
    actor: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "actor", self.actor or f"{find_host()}~{os.getpid()}")


class Actor:
    """Segments cases in a process of the cluster. It opens the model for its first case, and keeps it.

    Args:
        job: What is to be done, with absolute paths and the number of threads.
        bell: Tells when to stop.
    """

    def __init__(self, job: Job, bell: Bell) -> None:
        self._job, self._bell = job, bell
        self._segmenter: Segmenter | None = None
        self._worker: Worker | None = None
        bell.sign()
        threading.Thread(target=_listen, args=(weakref.ref(self), bell), name="bell", daemon=True).start()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Segment cases by their numbers: together, and then one at a time those on which a process ended.

        Returns:
            The columns of their rows.
        """
        told = _Told()
        try:
            self._segmenter = self._segmenter or self._open()
            entries = pick_entries(self._job.manifest, [int(number) for number in batch["item"]])
            worker = Worker(self._job, self._segmenter, told, self._bell.is_rung)
            worker.faults, self._worker = self._worker.faults if self._worker else 0, worker
            with worker.claims:
                worker.process(entries)
                again, worker.later = worker.later, []
                for entry in again:
                    worker.process([entry], alone=True)
            later = {entry.case for entry in worker.later}
            rows = [self._describe(entry, told.seconds, later) for entry in entries]
            rows += [Row(-1, "", "changed", error=sentence) for sentence in worker.tally.changed]
        except Broken:  # Ray starts another process, and gives it the batch
            traceback.print_exc()
            os._exit(1)
        except BrainSegNetError as error:
            rows = [Row(-1, "", "error", type(error).__name__, str(error))]
        return {field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)}

    def _open(self) -> Segmenter:
        manifest, folder = self._job.manifest, self._job.places.folder
        if not manifest.exists():
            raise DatasetError(
                f"{find_host()} does not see {manifest}; the cohort and its images must be on a disk that all nodes see"
            )
        model = resolve_model(self._job.model)
        if model.card.weights is None or not model.card.weights.sha256.startswith(folder.name):
            raise ModelError(f"model {self._job.model} of {find_host()} is another; install one release on all nodes")
        return Segmenter(model, self._job.segmenting)

    def _describe(self, entry: Entry, seconds: Mapping[str, float], later: Collection[str]) -> Row:
        """What became of a case, by the files in the folder, and the seconds of what this actor did."""
        places, took = self._job.places, seconds.get(entry.case, 0.0)
        if entry.case in later:
            return Row(entry.number, entry.case, "later")
        if (failed := places.find_failure(entry)) is not None:
            status = "failed" if failed >= self._job.started else "settled"
            note = read_note(places.error_of(entry))
            return Row(entry.number, entry.case, status, str(note.get("kind")), str(note.get("error")))
        if places.json_of(entry).exists():
            return Row(entry.number, entry.case, "done" if entry.case in seconds else "settled", seconds=took)
        return Row(entry.number, entry.case, "left")

    def give_back(self) -> None:
        """Leave the cases of this actor to others."""
        if self._worker:
            with suppress(RuntimeError):  # its block has not begun
                self._worker.claims.close()


def _listen(actor: weakref.ref[Actor], bell: Bell) -> None:
    """End this process if it is asked to end at once, and give its cases back. Listens as long as there is an actor."""
    while bell.hear() != END:
        if actor() is None:
            return
        time.sleep(LISTEN_SECONDS)
    if (ended := actor()) is not None:
        ended.give_back()
    os._exit(TERMINATED)


class _Told(Callback):
    """Seconds of the cases that were done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def on_case(self, name: str, result: Outcome) -> None:
        if result.saved:
            self.seconds[name] = result.saved.seconds
