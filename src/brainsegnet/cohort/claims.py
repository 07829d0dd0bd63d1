"""Claims: which process works on which case, so that several share a folder and no case is done twice.

A claim is a file that one process alone can create. Its owner touches it every 10 s. A claim that was not touched for
60 s, by the clock of the file server, is of a dead process. The next process creates the claim with the next number, so
the number counts the processes that have tried the case.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from brainsegnet._machine import find_host, is_running
from brainsegnet.cohort.ending import whole
from brainsegnet.errors import OutputError

BEAT_SECONDS, STALE_SECONDS = 10.0, 60.0


def read_server_clock(file: Path) -> float:
    """The time on the clock of the disk that holds a file, which is written for that.

    Raises:
        OSError: it cannot be written.
    """
    file.write_text("", encoding="utf-8")
    os.utime(file)
    return file.stat().st_mtime


def refresh(folder: Path) -> None:
    """Let the next look at a folder see what other machines wrote: NFS asks again for a folder that is opened."""
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY))


def read_owner(claim: Path) -> str | None:
    """Host, number and token of the process of a claim; empty if it is not written yet, None if the file is gone."""
    try:
        return claim.read_text(encoding="utf-8").strip('"')
    except OSError:
        return None


def has_ended(owner: str) -> bool:
    """Whether the owner of a claim is a process of this host that has ended. Of other hosts, nothing is known."""
    host, _, rest = owner.partition("~")
    number = rest.partition("~")[0]
    return host == find_host() and number.isdigit() and not is_running(int(number))


@dataclass
class Claim:
    """A case that this process works on.

    Attributes:
        case: Name of the case.
        attempt: How many processes have tried it, this one included.
        former: Host and number of the dead process that had it before, as in "host~123"; empty if there was none.
        since: When its stage began, on the clock of `time.monotonic`; None while it waits for its turn.
    """

    case: str
    attempt: int
    former: str = ""
    since: float | None = None


class Claims:
    """The claims of this process in a folder. They are kept alive by a thread, and given back at the end of the block.

    Args:
        folder: Folder of the claims; created if needed.
        watch: Called after every beat with the claims that are held; for example to end a case that hangs.
        beat_seconds: Time between two touches.
        stale_seconds: A claim that was not touched for so long is of a dead process.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        watch: Callable[[list[Claim]], object] = lambda claims: None,
        beat_seconds: float = BEAT_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._folder, self._watch = folder, watch
        self._beat, self._stale = beat_seconds, stale_seconds
        self._token = f"{find_host()}~{os.getpid()}~{secrets.token_hex(4)}"
        self._clock = folder / f".clock~{self._token}"
        self._held: dict[str, Claim] = {}
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True)

    def __enter__(self) -> "Claims":
        try:
            with whole():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._now()
                self._thread.start()
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be written: {error.strerror or error}") from error
        except SystemExit:  # the block is not entered, so it is not left either
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all cases back, and touch nothing any more."""
        with whole():
            self.give_all_back()
            self._thread.join()
            with suppress(OSError):
                self._clock.unlink()

    def take(self, case: str) -> Claim | None:
        """Claim a case. Returns None if another process has it, or if these claims are closed.

        Raises:
            OutputError: the folder cannot be written to.
        """
        refresh(self._folder)
        *_, last = (0, *self._numbers(case))
        if last and not self._is_stale(self._path(case, last)):
            return None
        claim = Claim(case, last + 1, read_owner(self._path(case, last)) or "" if last else "")
        if not self._create(claim):
            return None
        refresh(self._folder)
        overtaken = self._path(case, claim.attempt + 1).exists()
        if overtaken or (last and not self._is_stale(self._path(case, last))):
            self.give_back(case)
            return None
        return claim

    def is_free(self, case: str) -> bool:
        """Whether no living process has a case."""
        *_, last = (0, *self._numbers(case))
        return not last or self._is_stale(self._path(case, last))

    def begin(self, case: str, *, waits: bool = False) -> None:
        """A case begins a stage, or waits for the next one."""
        with self._lock:
            if case in self._held:
                self._held[case].since = None if waits else time.monotonic()

    def holds(self, case: str) -> bool:
        """Whether the claim on a case is still that of this process; not if it slept so long that another took over."""
        claim = self._held.get(case)
        if claim is None or self._path(case, claim.attempt + 1).exists():
            return False
        return read_owner(self._path(case, claim.attempt)) in (self._token, "")

    def release(self, case: str) -> None:
        """A case is done or has failed: nobody needs its claims any more."""
        with whole():
            with self._lock:
                claim = self._held.pop(case, None)
            for number in range(1, claim.attempt + 1) if claim else ():
                with suppress(OSError):
                    self._path(case, number).unlink(missing_ok=True)

    def give_back(self, case: str) -> None:
        """Leave a case to others, which know how many processes have ended on it before this one."""
        with whole():
            with self._lock:
                claim = self._held.pop(case, None)
            if claim:
                with suppress(OSError):
                    self._path(case, claim.attempt).unlink(missing_ok=True)

    def forget(self, case: str) -> None:
        """Another process took a case over. The claim stays on disk, so that the numbers have no gap."""
        with self._lock:
            self._held.pop(case, None)

    def give_all_back(self) -> None:
        """Leave all cases to others, and take no more."""
        with self._lock:
            self._end.set()
        for case in list(self._held):
            self.give_back(case)

    def list_stale(self) -> dict[str, list[Path]]:
        """Cases with claims of dead processes alone, and these claims. Clocks of dead processes are removed."""
        refresh(self._folder)
        found: dict[str, list[Path]] = {}
        alive = set()
        for path in self._folder.iterdir():
            if path.name.startswith(".clock~"):
                if self._is_of_dead(path.name.removeprefix(".clock~"), path):
                    path.unlink(missing_ok=True)
            elif self._is_stale(path):
                found.setdefault(path.name.rpartition("~")[0], []).append(path)
            else:
                alive.add(path.name.rpartition("~")[0])
        return {case: paths for case, paths in found.items() if case not in alive}

    def _create(self, claim: Claim) -> bool:
        """Create the file of a claim, and hold it. Returns False if another process was faster."""
        path = self._path(claim.case, claim.attempt)
        with whole(), self._lock:
            if self._end.is_set():
                return False
            try:
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            except OSError as error:
                raise OutputError(f"{self._folder} cannot be written: {error.strerror or error}") from error
            self._held[claim.case] = claim
        with suppress(OSError), os.fdopen(file, "w", encoding="utf-8") as stream:  # on a full disk its name is enough
            stream.write(json.dumps(self._token))
        return True

    def _path(self, case: str, number: int) -> Path:
        return self._folder / f"{case}~{number}"

    def _numbers(self, case: str) -> Iterator[int]:
        """Numbers of the claims on a case, in their order."""
        number = 1
        while self._path(case, number).exists():
            yield number
            number += 1

    def _is_stale(self, path: Path) -> bool:
        """Whether the process of a claim is dead."""
        owner = read_owner(path)
        return owner is not None and self._is_of_dead(owner, path)

    def _is_of_dead(self, owner: str, path: Path) -> bool:
        """Whether a file is of a dead process. One that is opened has its newest time, also over a network."""
        if has_ended(owner):
            return True
        try:
            with path.open(encoding="utf-8") as stream:
                touched = os.fstat(stream.fileno()).st_mtime
        except OSError:
            return False
        return self._now() - touched > self._stale

    def _now(self) -> float:
        return read_server_clock(self._clock)

    def _keep_alive(self) -> None:
        while not self._end.wait(self._beat):
            with self._lock:
                held = list(self._held.values())
            for claim in held:
                with suppress(OSError):
                    os.utime(self._path(claim.case, claim.attempt))
            with suppress(OSError):
                self._now()  # so that its clock tells that it lives
            self._watch(held)
