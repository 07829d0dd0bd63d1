"""A cohort on a Ray cluster: Ray Data hands the numbers of cases to actors, and gets rows. The only import of Ray."""

import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import brainsegnet.errors
from brainsegnet._machine import count_cores, find_host
from brainsegnet.cohort.claims import Claims
from brainsegnet.cohort.manifest import choose_shard, pick_entries, read_sizes
from brainsegnet.cohort.ray_actor import END, LISTEN_SECONDS, Actor, Bell, Row
from brainsegnet.cohort.status import list_done, list_failed
from brainsegnet.cohort.work import ENDED, HUNG, LOOK_SECONDS, Job, Tally, sweep
from brainsegnet.errors import BrainSegNetError, MissingExtra, UsageError
from brainsegnet.pipeline.batch import Outcome
from brainsegnet.progress import Callback, CaseCounter

ACTOR = Actor
BATCH = 8
"""Cases that an actor is given at a time. It reads the next of them while it computes one."""
STORE_BYTES = 100 * 2**20
"""Memory for the rows in a cluster of this machine alone; the least that Ray takes is 75 MiB."""
LOST_SECONDS = 60.0
"""How long a node may be away until the work goes on without it."""
CONNECT_SECONDS = 10.0
LOG = "about/ray.log"
"""What Ray says goes there, in the folder of the results."""


def work_on_ray(job: Job, callback: Callback | None = None, stops: Callable[[], bool] = lambda: False) -> Tally:
    """Process the cases of a cohort by actors on the cluster at RAY_ADDRESS, or on one that is started on this machine.

    What this process writes on standard output and error goes into the log of the results. Arguments are those of
    `work`. It must be called in the main thread.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: no node has room for an actor.
        BrainSegNetError: there is no such cluster, an actor cannot open the model or write, or actors end one after
            another.
    """
    ray = _load()
    _turn_output(job.places.folder / LOG)
    bell = Bell(job.places.folder.absolute() / f".stop~{find_host()}~{os.getpid()}~{secrets.token_hex(4)}")
    threads = _join(ray, job)
    try:
        bell.started.mkdir()
        job = _prepare(job, threads)
        with Claims(job.places.claims) as claims:
            driver = _Driver(ray, job, bell, callback, stops)
            with driver.watching():
                driver.run(claims)
            sweep(job, claims)
        return driver.tally
    except ray.exceptions.RayError as error:
        *_, last = (str(error) or type(error).__name__).strip().splitlines()
        raise BrainSegNetError(
            f"Ray ended the work: {last}; see {job.places.folder / LOG}, and run it again"
        ) from error
    finally:
        bell.remove()
        ray.shutdown()


def _load() -> Any:  # noqa: ANN401
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports each start to its makers
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # on a machine at work, the usual 30 s are too few
    os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")  # and the usual 60 s for a process
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra('--engine ray needs Ray, which is absent; run: pip install "brainsegnet[ray]"') from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    return ray


def _turn_output(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _join(ray: Any, job: Job) -> int:  # noqa: ANN401
    """Join a cluster or start one. Returns the number of CPUs of each actor."""
    workers, threads = job.options.workers, job.segmenting.threads
    if address := os.environ.get("RAY_ADDRESS", ""):
        _check_address(address)
        try:
            ray.init(address=address, log_to_driver=False)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _tell_absent(address) from error
    else:
        threads = threads or max(count_cores() // workers, 1)
        ray.init(
            address="local",
            num_cpus=workers * threads,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
        )
    sizes = _measure_nodes(ray)
    threads = threads or max(min(sum(sizes) // workers, max(sizes)), 1)
    if threads > max(sizes):
        ray.shutdown()
        raise UsageError(f"--threads {threads} is more than the {max(sizes)} CPUs of the largest node; lower it")
    return threads


def _check_address(address: str) -> None:
    """Refuse an address at which nobody listens: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise UsageError(f"RAY_ADDRESS={address} is for Ray Client; write HOST:PORT, on a machine of the cluster")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise _tell_absent(address) from error


def _tell_absent(address: str) -> BrainSegNetError:
    return BrainSegNetError(
        f"no Ray cluster answers at {address} (RAY_ADDRESS); start one with ray start --head, or unset the variable"
    )


def _measure_nodes(ray: Any) -> list[int]:  # noqa: ANN401
    """CPUs of the nodes that live."""
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]] or [0]


def _prepare(job: Job, threads: int) -> Job:
    """The job as another process sees it, in another folder."""
    places = replace(job.places, folder=job.places.folder.absolute())
    model = Path(job.model).absolute() if Path(job.model).exists() else str(job.model)
    segmenting = replace(job.segmenting, threads=threads)
    return replace(job, manifest=job.manifest.absolute(), places=places, model=model, segmenting=segmenting)


class _Driver:
    def __init__(
        self,
        ray: Any,  # noqa: ANN401
        job: Job,
        bell: Bell,
        callback: Callback | None,
        stops: Callable[[], bool],
    ) -> None:
        self.tally = Tally()
        self._ray, self._job, self._bell, self._callback, self._stops = ray, job, bell, callback, stops
        self._most, self._vain, self._end = self._count_room(), 0, threading.Event()
        self._started, self._results = 0, 0

    def run(self, claims: Claims) -> None:
        """First all cases; then, in rounds, those that other processes had."""
        sizes = read_sizes(self._job.manifest)
        waiting = choose_shard(sizes, *self._job.options.part) if self._job.options.shard else {*sizes}
        self._counter, chosen = CaseCounter(self._callback, len(waiting)), sorted(waiting)
        while waiting and not self._bell.is_rung():
            for row in self._process(chosen) if chosen else ():
                if row.status in ("done", "failed", "settled"):
                    waiting.discard(row.number)
                self._hear(row)
            while waiting and not self._bell.is_rung() and not (chosen := self._choose_free(waiting, claims)):
                time.sleep(LOOK_SECONDS)

    def _choose_free(self, waiting: Collection[int], claims: Claims) -> list[int]:
        """The cases that no process has, now that those that had them may be done or dead."""
        return [entry.number for entry in pick_entries(self._job.manifest, waiting) if claims.is_free(entry.case)]

    def _process(self, numbers: list[int]) -> Iterator[Row]:
        """Give cases to actors. Ends when all have a row or, if the actors are to stop, when none is at work."""
        data, actors, left = self._ray.data, self._most, set[str]()
        size = max(min(BATCH, len(numbers) // (4 * actors)), 1)
        rows = data.from_items(numbers, override_num_blocks=-(-len(numbers) // size)).map_batches(
            ACTOR,
            fn_constructor_args=(self._job, self._bell),
            compute=data.ActorPoolStrategy(
                min_size=1,
                max_size=self._job.options.workers,
                initial_size=min(actors, len(numbers)),
                max_tasks_in_flight_per_actor=2,
            ),
            batch_size=None,
            batch_format="numpy",
            num_cpus=self._job.segmenting.threads,
        )
        for part in rows.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for values in zip(*part.values(), strict=True):
                row = Row(**dict(zip(part, values, strict=True)))
                yield row
                left |= {row.actor} if row.status == "left" else set()
            if len(left) >= actors:
                return

    def _hear(self, row: Row) -> None:
        if row.status == "error":
            self._fail(getattr(brainsegnet.errors, row.kind, BrainSegNetError)(row.error))
        if row.status == "changed":
            self.tally.changed.append(row.error)
        if row.status in ("done", "failed", "settled"):
            self._counter.advance()
        if row.status in ("done", "failed"):
            self.tally.done += row.status == "done"
            self.tally.failed += row.status == "failed"
            if self._callback:
                error = BrainSegNetError(row.error) if row.status == "failed" else None
                self._callback.on_case(row.case, Outcome(row.case, error=error))
        if row.status in ("done", "failed"):
            self._vain = self._vain + 1 if row.kind == ENDED else 0
        if self._vain > self._job.options.attempts + self._most:
            self._fail(
                BrainSegNetError(
                    f"{self._vain} cases ended their processes one after another, and none was done; look whether "
                    "there is enough memory, and run the cohort again"
                )
            )

    def _fail(self, error: BrainSegNetError) -> NoReturn:
        self._end_actors()
        raise error

    def _end_actors(self) -> None:
        """Have the actors give their cases back and end, before Ray kills them with their cases in hand."""
        self._bell.ring(END)
        time.sleep(LISTEN_SECONDS + 0.5)

    def _count_room(self) -> int:
        """How many of the actors the nodes have room for."""
        room = sum(size // int(self._job.segmenting.threads or 1) for size in _measure_nodes(self._ray))
        return min(room, self._job.options.workers)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block, SIGTERM ends the actors. A thread passes on a stop, and looks whether nodes are lost."""
        before = signal.signal(signal.SIGTERM, self._terminate)
        thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            signal.signal(signal.SIGTERM, before)

    def _terminate(self, number: int, frame: FrameType | None) -> NoReturn:
        self._end_actors()
        sys.exit(128 + number)

    def _watch(self) -> None:
        complete = time.monotonic()
        while not self._end.wait(1.0):
            if self._stops() and not self._bell.is_rung():
                self._bell.ring()
            if (room := self._count_room()) >= self._most:
                self._most, complete = room, time.monotonic()
            elif time.monotonic() - complete > LOST_SECONDS:
                self._end_with(HUNG, f"nodes are lost; the work goes on with {room} of {self._most} actors")
            if (vain := self._count_vain()) > self._job.options.attempts + self._most:
                self._end_with(1, f"{vain} actors started one after another without a case done; see {LOG}")

    def _count_vain(self) -> int:
        """Actors that started since there was a new result."""
        started = self._bell.count_started()
        if started - self._started > self._most:
            results = len(list_done(self._job.places)) + len(list_failed(self._job.places))
            if results != self._results:
                self._started, self._results = started, results
        return started - self._started

    def _end_with(self, code: int, sentence: str) -> NoReturn:
        """End this process, because Ray would wait for lost nodes, and start actors that end as often as they do.

        A process that takes its place plans for the nodes that are left.
        """
        if self._callback:
            self._callback.on_message(sentence)
        self._end_actors()
        self._bell.remove()
        os._exit(code)
